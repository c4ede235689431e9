"""`wsolbench profile`: what methods cost."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from wsolbench.cli.parser import Verb
from wsolbench.config.overrides import integers_in, names_in
from wsolbench.errors import UsageError, unknown
from wsolbench.system.preflight import check_device, check_writable

DTYPES = ("fp32", "tf32", "bf16", "fp16")
WORKS = ("forward", "localize", "boxes", "train")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add = parser.add_argument
    add("--methods", metavar="A,B", required=True, help="names, see 'wsolbench list methods'")
    add("--dataset", metavar="NAME", default="badges", help="gives classes and size (default: badges)")
    add("--backbone", metavar="A,B", help="timm or embedded names (default: the recipe's)")
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--batch-size", metavar="1,64", default="1,64", help="default: 1,64")
    add("--image-size", metavar="N", type=int, help="pixels a side (default: the data set's)")
    add("--out", metavar="FILE", type=Path, help=".csv or .json, both are written (default: results/profile/<device>)")
    add("--dtype", metavar="A,B", default="fp32", help=f"{', '.join(DTYPES)} (default: fp32)")
    add("--compile", action="store_true", help="measure with torch.compile, beside without")
    add("--channels-last", action="store_true", help="measure CNNs in that layout too, beside the usual one")
    add("--work", metavar="A,B", default=",".join(WORKS), help=f"default: {','.join(WORKS)}")
    add("--classes", metavar="N", type=int, help="number of classes (default: the data set's)")
    add("--seconds", metavar="X", type=float, default=3.0, help="timed calls of a line, about (default: 3)")
    add("--no-memory", action="store_true", help="leave out peak memory, which takes a process for each line on a CPU")
    add("--results", metavar="DIR", type=Path, help="whose leaderboard is drawn against throughput (default: results)")


def profile(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Measure what the flags ask for."""
    batch_sizes = integers_in(arguments.batch_size, "--batch-size", least=1)
    dtypes = _known(arguments.dtype, "number format", DTYPES)
    works = _known(arguments.work, "kind of work", WORKS)
    if not arguments.seconds >= 0:
        raise UsageError(f"--seconds {arguments.seconds}: expected a number from 0")
    if arguments.results is not None and not arguments.results.is_dir():
        raise UsageError(f"--results '{arguments.results}' is no folder of results")
    check_device(arguments.device)
    for backbone in names_in(arguments.backbone):
        from wsolbench.backbones import check_backbone

        check_backbone(backbone)
    check_writable(Path("results/profile") if arguments.out is None else arguments.out.parent)
    from wsolbench.profile import Request
    from wsolbench.profile import profile as measure

    return measure(
        Request(
            methods=names_in(arguments.methods),
            dataset=arguments.dataset,
            backbone=arguments.backbone,
            device=arguments.device,
            batch_sizes=batch_sizes,
            dtypes=dtypes,
            compile=arguments.compile,
            channels_last=arguments.channels_last,
            works=works,
            image_size=arguments.image_size,
            classes=arguments.classes,
            out=arguments.out,
            seconds=arguments.seconds,
            memory=not arguments.no_memory,
            results=arguments.results,
            command=_command(arguments),
        )
    )


def _known(text: str, kind: str, known: Sequence[str]) -> list[str]:
    names = names_in(text)
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    if not names:
        raise UsageError(f"name at least one {kind}: {', '.join(known)}")
    return names


def _command(arguments: argparse.Namespace) -> str:
    """The command that measures the same, to stand in the file."""
    words = ["wsolbench", "profile"]
    for action in arguments.parser._actions:
        value = getattr(arguments, action.dest, None)
        if not action.option_strings or action.dest == "help" or value == action.default or value is None:
            continue
        words += [action.option_strings[-1]] if value is True else [action.option_strings[-1], str(value)]
    return shlex.join(words)


VERB = Verb(
    "profile",
    "Measure throughput, latency, memory, FLOPs and energy of methods. See docs/profile.md.",
    "wsolbench profile --methods cam,center-box --device cpu --batch-size 1,8",
    add_flags,
    profile,
)
