"""`wsolbench data pseudo-boxes`: make pseudo-boxes for a split, then report how good they are where that can be known."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolbench.cli.parser import Verb
from wsolbench.errors import UsageError, unknown
from wsolbench.system.preflight import check_device, check_writable

if TYPE_CHECKING:
    from wsolbench.data.dataset import Dataset
    from wsolbench.data.split import Split

SOURCES = ("segments", "rpn", "clip")
LABELS_ONLY = ("last", "class-accuracy")  # checkpoint selectors that look at no boxes


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("name", help="data set, see 'wsolbench list datasets'")
    parser.add_argument("--root", metavar="PATH", help="folder in which the data set lies")
    parser.add_argument("--split", default="val", metavar="NAME", help="train, val or test (default: val)")
    parser.add_argument(
        "--source",
        default="segments",
        metavar="NAME",
        help="segments: of the image itself, no weights; rpn: torchvision's region proposal network (trained with COCO's "
        "boxes); clip: maps of the class's name, needs open_clip (default: segments)",
    )
    parser.add_argument(
        "--classifier",
        metavar="RUN",
        required=True,
        help="folder of a finished run, e.g. of cam, whose classifier was trained on labels only; it points and rates",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="tensors for rpn or clip (default: what their packages offer)"
    )
    parser.add_argument(
        "--class-names", metavar="FILE", type=Path, help="for clip: one name a line, in order of labels"
    )
    parser.add_argument(
        "--rated", default=200, type=int, metavar="N", help="boxes of an image rated at most (default: 200)"
    )
    parser.add_argument("--seed", default=0, type=int, metavar="N", help="draws them where there are more (default: 0)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--workers", default=0, type=int, metavar="N", help="processes that segment (default: 0)")
    parser.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="folder for the files")


def pseudo_boxes(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Check what is asked, make the boxes, then report how good they are."""
    _check(arguments)
    dataset = _open(arguments)
    check_writable(arguments.out)
    split = _make(arguments, dataset)
    _report(arguments.out, split, dataset.info.has_boxes, arguments.split)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what no flag may say, before anything heavy is imported."""
    if arguments.source not in SOURCES:
        raise unknown("source", arguments.source, SOURCES)
    for flag, least in (("rated", 1), ("workers", 0), ("seed", 0)):
        if getattr(arguments, flag) < least:
            raise UsageError(f"--{flag} {getattr(arguments, flag)}: expected a whole number from {least}")
    if arguments.weights is not None and arguments.source == "segments":
        raise UsageError("--weights belongs to the sources rpn and clip; 'segments' needs none")
    check_device(arguments.device)


def _open(arguments: argparse.Namespace) -> Dataset:
    """The data set; refused where it has no such split or shows crops."""
    from wsolbench.data.dataset import create_dataset

    dataset = create_dataset(arguments.name, root=arguments.root)
    if arguments.split not in dataset.splits:
        raise unknown("split", arguments.split, dataset.splits)
    if dataset.info.geometry != "resize":
        raise UsageError(
            f"'{arguments.name}' shows {dataset.info.geometry}s of its images; pseudo-boxes need images shown whole"
        )
    return dataset


def _make(arguments: argparse.Namespace, dataset: Dataset) -> Split:
    """Make the boxes, or find them made; returns the split they are of."""
    from wsolbench.pseudo_boxes.make import make_pseudo_boxes
    from wsolbench.pseudo_boxes.pointing import Pointing
    from wsolbench.runs.opening import resolve_device
    from wsolbench.system.progress import Reporter

    device, info = resolve_device(arguments.device), dataset.info
    method, classifier = _classifier(arguments.classifier, arguments.name, info.class_names)
    split = dataset.split(arguments.split)
    names = info.class_names
    if arguments.class_names is not None:
        names = _names(arguments.class_names, len(names))
    reporter = Reporter()
    reporter.message(f"filter: {Pointing.rule}")
    made = make_pseudo_boxes(
        split,
        _source(arguments, names, device),
        Pointing(method, device, arguments.rated),
        arguments.out,
        about={
            "dataset": arguments.name,
            "revision": info.revision,
            "split": arguments.split,
            "classifier": classifier,
            "prompts": list(names) if arguments.source == "clip" else None,
        },
        seed=arguments.seed,
        workers=arguments.workers if arguments.source == "segments" else 0,  # the others share the device
        reporter=reporter,
    )
    print(f"{arguments.out}: {len(split)} pseudo-boxes{'' if made else ', done before'}")
    return split


def _report(folder: Path, split: Any, has_boxes: bool, name: str) -> None:
    """A step of its own, after the boxes are on disk."""
    from wsolbench.pseudo_boxes.folder import read_pseudo_boxes
    from wsolbench.pseudo_boxes.quality import measure_quality, write_quality

    if not has_boxes:
        print("quality unknown: the data set has no ground truth boxes")
        return
    quality = measure_quality(read_pseudo_boxes(folder, split), split)
    write_quality(folder, quality)
    print(f"quality: {quality}")
    print(f"the ground truth boxes of {name} were read for this report only, after the pseudo-boxes had been made")


def _classifier(folder: str, dataset: str, class_names: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The method of a finished run, and what identifies it; refused if boxes had a say in its weights."""
    from wsolbench.record import read_record
    from wsolbench.runs.load import load_run

    method = load_run(folder)
    record = read_record(Path(folder, "record.json"))
    if tuple(method.class_names or ()) != tuple(class_names):
        raise UsageError(
            f"--classifier '{folder}' knows the {method.num_classes} classes of '{record.dataset}', which are not those of "
            f"'{dataset}'"
        )
    chosen = record.ledger.checkpoint
    if chosen not in LABELS_ONLY:
        raise UsageError(
            f"--classifier '{folder}' has a checkpoint chosen by '{chosen}'; pseudo-boxes need a classifier trained and chosen "
            f"with labels only: {' or '.join(LABELS_ONLY)}"
        )
    about = {name: getattr(record, name) for name in ("method", "dataset", "backbone", "protocol", "seed", "hash")}
    return method, about


def _source(arguments: argparse.Namespace, names: Sequence[str], device: Any) -> Any:
    if arguments.source == "segments":
        from wsolbench.pseudo_boxes.proposals import SegmentProposals

        return SegmentProposals()
    from wsolbench.pseudo_boxes.pretrained import load_clip, load_rpn

    if arguments.source == "rpn":
        return load_rpn(arguments.weights, device)
    return load_clip(arguments.weights, names, device)


def _names(path: Path, count: int) -> tuple[str, ...]:
    from wsolbench.data.lists import read_lines

    names = tuple(line.strip() for line in read_lines(path, "class names, one a line").text if line.strip())
    if len(names) != count:
        raise UsageError(f"--class-names '{path}' holds {len(names)} names, but the data set has {count} classes")
    return names


VERB = Verb(
    "pseudo-boxes",
    "Make one box per image without annotators: proposals, of which a classifier trained on labels only takes one. "
    "How it takes it is wsolbench's own choice; the paper's filter is not public. See docs/pseudo-boxes.md.",
    "wsolbench data pseudo-boxes badges --classifier results/runs/badges/cam/badges_cnn/full/s0-4d5c1b4c -o boxes",
    add_flags,
    pseudo_boxes,
    keeps=True,
)
