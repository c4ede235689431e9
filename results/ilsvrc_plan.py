"""Time, memory and storage of ILSVRC on 8 GPUs, worked out from what was measured here.

    python results/ilsvrc_plan.py --measure   count and weigh (a minute on a CPU, nothing is downloaded): ilsvrc_plan.csv
    python results/ilsvrc_plan.py             the arithmetic, as markdown
    python results/ilsvrc_plan.py --write     puts it between the PLAN marks of docs/scale.md

Every input says where it comes from: counted (by torch, exact), measured (on the CPU of the files in profile/), stated (by the
data set or by a recipe) or assumed (a rate that no GPU here could confirm).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import math
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TABLE = HERE / "ilsvrc_plan.csv"
PAGE = HERE.parent / "docs" / "scale.md"
RUNS = {"sat": "sat_ilsvrc", "tscam": "tscam_ilsvrc", "cam": "cam_resnet50_ilsvrc"}  # method: recipe
SEEDS = 3
GPUS = 8
RATES = (50, 100, 200)  # TFLOP/s that one GPU sustains: assumed
TRAIN, VAL, TEST, CLASSES = 1_281_167, 10_000, 50_000, 1000  # stated by the data set
JPEGS = 138 + 6.3 + 1.2  # GB of train, test (ImageNet's validation images) and val (ImageNetV2): stated
BATCH = 2  # images in the networks that are weighed
CORES = 128  # of such a machine: assumed
GB = 1e9


def main() -> None:
    """Measure if asked to, then print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="rewrite ilsvrc_plan.csv")
    parser.add_argument("--write", action="store_true", help="rewrite docs/scale.md")
    arguments = parser.parse_args()
    if arguments.measure:
        measure()
    if not arguments.write:
        print(plan(), end="")
        return
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split("<!-- PLAN -->\n")
    after = rest.partition("<!-- /PLAN -->")[2]
    PAGE.write_text(f"{before}<!-- PLAN -->\n{plan()}<!-- /PLAN -->{after}", encoding="utf-8")


# --- measured --------------------------------------------------------------------------------------------------------


def measure() -> None:
    """Count the work of the recipes' networks, and weigh what a run keeps."""
    rows = [(method, *row) for method, recipe in RUNS.items() for row in _network(method, recipe)]
    rows += [("any", *row) for row in _kept()]
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("method", "quantity", "value"))
        writer.writerows(rows)


def _network(method_name: str, recipe: str) -> list[tuple[str, Any]]:
    """What the recipe says, and what a forward pass and a training step of its network take, per image."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from wsolbench.config.compose import expand
    from wsolbench.conventions import get_convention
    from wsolbench.runs.trained import create
    from wsolbench.types import Batch

    (config,) = expand(
        [method_name], dataset="ilsvrc", overrides=[f"experiment={recipe}", "pretrained=false"], device="cpu"
    )
    info: Any = type("Info", (), {"num_classes": CLASSES, "class_names": tuple(map(str, range(CLASSES)))})
    method = create(config, info, config.backbone)
    images_BCHW = torch.randn(BATCH, 3, 224, 224)
    batch = Batch([str(number) for number in range(BATCH)], images_BCHW, torch.arange(BATCH), {})
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    groups = method.param_groups(config.train)
    optimizer: torch.optim.Optimizer
    if config.train.optimizer.value == "sgd":
        optimizer = torch.optim.SGD(groups, lr=1e-5, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(groups, lr=1e-5)

    with sdpa_kernel(SDPBackend.MATH):  # whose matrix products are counted in every release
        method.eval()
        with FlopCounterMode(display=False) as forward:
            method.localize(images_BCHW)
        method.train()
        with FlopCounterMode(display=False) as step:
            torch.stack(list(method(batch).values())).sum().backward()
    optimizer.step()
    kept = _kept_for_backward(method, batch)
    state, weights = io.BytesIO(), io.BytesIO()
    torch.save({"model": method.state_dict(), "optimizer": optimizer.state_dict()}, state)
    torch.save(method.state_dict(), weights)
    return [
        ("backbone", config.backbone),
        ("epochs", config.train.epochs),
        ("batch size", config.train.batch_size),
        ("optimizer", config.train.optimizer.value),
        ("test passes", 1 + (get_convention(config.evaluate.convention).geometry not in (None, "resize"))),
        ("parameters", sum(parameter.numel() for parameter in method.parameters())),
        ("trainable", sum(parameter.numel() for parameter in parameters)),
        ("forward flops an image", forward.get_total_flops() // BATCH),
        ("training flops an image", step.get_total_flops() // BATCH),
        ("bytes kept for backward an image", kept // BATCH),
        ("state.pt bytes", state.tell()),
        ("weights bytes", weights.tell()),
    ]


def _kept_for_backward(method: Any, batch: Any) -> int:
    """Bytes of what autograd holds between forward and backward, float32, each storage once and weights not."""
    import torch

    own = {tensor.untyped_storage().data_ptr() for tensor in [*method.parameters(), *method.buffers()]}
    held: dict[int, int] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        losses = method(batch)  # alive, so that no storage is used twice
    assert losses
    return sum(held.values())


def _kept() -> list[tuple[str, Any]]:
    """What a finished run keeps of each image: outcomes of an untrained control on the embedded data."""
    import numpy as np

    from wsolbench.config.compose import expand
    from wsolbench.launch.here import run_all
    from wsolbench.system.progress import Silent

    with tempfile.TemporaryDirectory() as out:
        (outcome,) = run_all(expand(["attention"], device="cpu", out=out), reporter=Silent())
        assert outcome.record is not None
        assert outcome.directory is not None
        images = outcome.record.ledger.labels["val"] + outcome.record.ledger.labels["test"]
        folder = outcome.directory
        sizes = {name: (folder / name).stat().st_size for name in ("levels.npz", "images.csv.gz")}
        with np.load(folder / "levels.npz") as levels:
            loose = {"levels.npz": sum(levels[name].nbytes for name in levels.files)}
        loose["images.csv.gz"] = len(gzip.decompress((folder / "images.csv.gz").read_bytes()))
    return [
        *((f"{name} bytes an image", round(size / images)) for name, size in sizes.items()),
        *((f"{name} bytes an image, not compressed", round(size / images)) for name, size in loose.items()),
    ]


# --- worked out ------------------------------------------------------------------------------------------------------


def plan() -> str:
    """The plan as markdown."""
    with TABLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    runs = {name: {row["quantity"]: row["value"] for row in rows if row["method"] == name} for name in RUNS}
    kept = {row["quantity"]: float(row["value"]) for row in rows if row["method"] == "any"}
    load, boxes_ms = _loading(), _boxes()
    tables = [_work(runs), _time(runs, load), _evaluation(runs, load, boxes_ms), _memory(runs), _storage(runs, kept)]
    return "\n".join(tables)


def _loading() -> dict[str, float]:
    """Images per second that one core decodes and resizes, by geometry: measured, two workers on two cores."""
    with (HERE / "profile/loading-amd-epyc-cpu.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["workers"], row["cache"]) == ("2", "off")]
    return {row["geometry"]: float(row["ours [images/s]"]) / 2 for row in rows}


def _boxes() -> float:
    """Milliseconds of one thread from a map to its boxes, of both contour modes, the slowest of the CAM-like maps."""
    with (HERE / "profile/boxes-amd-epyc-cpu.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["map"].startswith("CAM-like")]
    return sum(max(float(row["ours [ms]"]) for row in rows if row["contours"] == kind) for kind in ("single", "multi"))


def _images(run: dict[str, str]) -> int:
    """Training images of a run: whole batches only."""
    batch = int(run["batch size"])
    return int(run["epochs"]) * (TRAIN // batch) * batch


def _work(runs: dict[str, dict[str, str]]) -> str:
    lines = []
    for name, run in runs.items():
        images, flops = _images(run), float(run["training flops an image"])
        what = f"{run['epochs']} x {TRAIN // int(run['batch size']):,} steps of {run['batch size']}"
        parameters = f"{int(run['parameters']) / 1e6:.1f}"
        forward = f"{float(run['forward flops an image']) / 1e9:.1f}"
        work = f"{images * flops / 1e15:,.0f}"
        lines.append((name, run["backbone"], parameters, forward, f"{flops / 1e9:.1f}", what, f"{images:,}", work))
    head = ("method", "backbone", "million parameters", "GFLOP forward", "GFLOP a training image", "training", "images")
    title = "Work of a training: images x operations. Operations and parameters are counted, steps follow from recipe and data set."
    return _table(title, (*head, "PFLOP"), lines)


def _time(runs: dict[str, dict[str, str]], load: dict[str, float]) -> str:
    lines = []
    total = {rate: [0.0, 0.0] for rate in RATES}
    for name, run in runs.items():
        flops, images = float(run["training flops an image"]), _images(run)
        for rate in RATES:
            speed = GPUS * rate * 1e12 / flops
            seconds = images / speed, images / min(speed, CORES * load["train"])
            cores = math.ceil(speed / load["train"])
            total[rate] = [hours + SEEDS * each / 3600 for hours, each in zip(total[rate], seconds, strict=True)]
            lines.append((name, rate, f"{speed:,.0f}", f"{seconds[0] / 60:.1f}", cores, f"{seconds[1] / 60:.1f}"))
    head = ("method", "TFLOP/s a GPU (assumed)", "images/s", "minutes", "loading cores", f"minutes with {CORES} cores")
    title = (
        f"Time of a training on {GPUS} GPUs: how fast they could go, how many cores load images that fast, and the time where "
        f"there are {CORES} (assumed)."
    )
    sums = "; ".join(
        f"at {rate} TFLOP/s {free:.1f} h, with {CORES} cores {bound:.1f} h" for rate, (free, bound) in total.items()
    )
    fed = (CORES * load["train"] * float(run["training flops an image"]) / GPUS / 1e12 for run in runs.values())
    enough = ", ".join(f"{rate:.0f} ({name})" for rate, name in zip(fed, runs, strict=True))
    return (
        f"{_table(title, head, lines)}\nAll {len(runs)} methods with {SEEDS} seeds: {sums}. A core loads {load['train']:.0f} "
        f"training images a second (measured): {CORES} cores feed {GPUS} GPUs of up to {enough} TFLOP/s each.\n"
    )


def _evaluation(runs: dict[str, dict[str, str]], load: dict[str, float], boxes_ms: float) -> str:
    lines = []
    for name, run in runs.items():
        images = VAL + TEST * int(run["test passes"])
        forward = images * float(run["forward flops an image"]) / (GPUS * RATES[0] * 1e12)
        loading, boxes = images / load["eval"] / CORES, images * boxes_ms / 1000 / CORES
        lines.append((name, f"{images:,}", f"{forward:.1f}", f"{loading:.1f}", f"{boxes:.1f}"))
    head = (
        "method",
        "images",
        f"forward, s at {RATES[0]} TFLOP/s",
        f"loading, s on {CORES} cores",
        "map to boxes, s on them",
    )
    title = (
        f"Evaluation of a run on {GPUS} GPUs: val and test, and test once more where a convention cuts images its own way. "
        "The three overlap."
    )
    return (
        f"{_table(title, head, lines)}\nA core loads {load['eval']:.0f} images a second, or takes {boxes_ms:.1f} ms from a map "
        "to its boxes at every threshold (both measured).\n"
    )


def _memory(runs: dict[str, dict[str, str]]) -> str:
    lines = []
    for name, run in runs.items():
        words = 3 if run["optimizer"] == "sgd" else 4  # weight, gradient, and one or two of the optimizer
        fixed = int(run["trainable"]) * 4 * words
        share = int(run["batch size"]) // GPUS
        kept = int(run["bytes kept for backward an image"])
        lines.append(
            (
                name,
                f"{fixed / GB:.2f}",
                share,
                f"{kept / 1e6:.0f}",
                f"{share * kept / GB:.1f}",
                f"{(fixed + share * kept) / GB:.1f}",
                f"{(fixed + int(run['batch size']) * kept) / GB:.1f}",
            )
        )
    head = (
        "method",
        "weights, gradients, optimizer, GB",
        "images a GPU",
        "MB an image",
        "activations, GB",
        "sum, GB a GPU",
        "all on one GPU, GB",
    )
    return _table(f"Memory of a GPU in training, float32: one of {GPUS}, or one alone.", head, lines)


def _storage(runs: dict[str, dict[str, str]], kept: dict[str, float]) -> str:
    images = VAL + TEST
    loose = sum(size for name, size in kept.items() if name.endswith("not compressed"))
    packed = sum(kept.values()) - loose
    pixels = 224 * 224 * 3
    lines = [
        ("JPEGs of train, val and test", "once", f"{JPEGS:.0f} GB", "stated"),
        (
            "cache of resized val and test, if wanted",
            "once",
            f"{images * pixels / GB:.1f} GB",
            f"{images:,} x {pixels:,} bytes",
        ),
        (
            "levels.npz and images.csv.gz",
            "a run",
            f"{images * packed / 1e6:.0f} to {images * loose / 1e6:.0f} MB",
            f"{images:,} x {packed:.0f} bytes (measured), {loose:.0f} before compression",
        ),
    ]
    for name, run in runs.items():
        weights, state, count = int(run["weights bytes"]), int(run["state.pt bytes"]), int(run["epochs"]) + 1
        lines.append((f"{name}: last.safetensors", "a run", f"{weights / 1e6:.0f} MB", "measured"))
        lines.append((f"{name}: state.pt", "while it trains", f"{state / 1e6:.0f} MB", "measured"))
        how = f"{count} x {weights / 1e6:.0f} MB"
        lines.append((f"{name}: snapshots, to choose among", "a training", f"{count * weights / GB:.1f} GB", how))
    all_runs = SEEDS * sum(int(run["weights bytes"]) + images * loose for run in runs.values())
    lines.append(
        (
            f"all {len(runs) * SEEDS} runs without snapshots",
            "",
            f"{all_runs / GB:.1f} GB",
            "sum of weights and outcomes",
        )
    )
    return _table("Storage.", ("what", "how often", "size", "how"), lines)


def _table(title: str, head: tuple[str, ...], lines: list[tuple[Any, ...]]) -> str:
    rows = [f"| {' | '.join(map(str, line))} |" for line in [head, ("---",) * len(head), *lines]]
    return f"{title}\n\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
