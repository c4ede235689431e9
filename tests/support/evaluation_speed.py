"""What an evaluation takes beside its forward passes: wall time of the whole over that of `localize` alone.

    python tests/support/evaluation_speed.py [--method sat] [--images 128] [--batch 32] [--rounds 10]
        [--device cpu] [--dtype fp32] [--threads 1] [--workers 0] [--out results/profile/evaluation-NAME.csv]

DeiT-S with random weights, 224 x 224, 1000 classes, on pictures that lie in memory as uint8. The whole is `evaluate`: images
normalised and stacked, localised, their maps normalised, every threshold's boxes compared with the truth, outcomes written
to a folder. The part is `localize` on the same batches, made before. Every round times both, in changing order; a ratio is
that of one round; printed are medians and the 95 % interval of the median ratio (bootstrap over rounds). Wall time: run it
on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation_cases import MemorySplit
from speed_table import write_rows

import wsolbench
from wsolbench.config.schema import Dtype, EvaluateConfig
from wsolbench.data.annotations import AnnotationReader
from wsolbench.data.loading import eval_batches
from wsolbench.evaluation.evaluate import evaluate
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.scoring import Scoring
from wsolbench.method.numerics import Numerics
from wsolbench.profile.device import device_name, synchroniser
from wsolbench.system.progress import Silent

BACKBONE, CLASSES, SIDE = "deit_small_patch16_224", 1000, 224


def subjects(chosen: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """The whole evaluation, and the forward passes in it."""
    torch.manual_seed(0)
    device = torch.device(chosen.device)
    method = wsolbench.create_method(chosen.method, num_classes=CLASSES, backbone=BACKBONE).eval().to(device)
    split = MemorySplit(chosen.images, SIDE, CLASSES)
    config = EvaluateConfig(
        batch_size=chosen.batch, threads=chosen.threads, workers=chosen.workers, dtype=Dtype(chosen.dtype)
    )
    batches = [batch.to(device) for batch in eval_batches(split, batch_size=chosen.batch)]
    numerics = Numerics(config.dtype)
    finish = synchroniser(device)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            evaluate(
                method,
                "test",
                split,
                Scoring(Frame((SIDE, SIDE), has_masks=False)),
                config,
                seed=0,
                device=device,
                reader=AnnotationReader(),
                folder=Path(folder),
                reporter=Silent(),
            ).levels()

    def forward() -> None:
        with torch.inference_mode(), numerics.running(device):
            for batch in batches:
                method.localize(batch.images_BCHW, batch.labels_B)
        finish()

    return {"whole": whole, "forward": forward}


def measure(subjects: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each subject, by round."""
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for subject in subjects.values():
        subject()
    for number in range(rounds):
        for name in sorted(subjects, reverse=bool(number % 2)):
            started = time.perf_counter()
            subjects[name]()
            seconds[name].append(time.perf_counter() - started)
    return {name: np.array(each) for name, each in seconds.items()}


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """95 % interval of the median."""
    drawn = np.random.RandomState(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="sat")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32", choices=[each.value for each in Dtype])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    seconds = measure(subjects(chosen), chosen.rounds)
    ratios = seconds["whole"] / seconds["forward"]
    low, high = interval(ratios)
    whole, forward = (1000 * float(np.median(seconds[name])) / chosen.images for name in ("whole", "forward"))
    print(
        f"{chosen.method}, {chosen.images} images in batches of {chosen.batch}, {torch.get_num_threads()} threads of torch: "
        f"evaluation {whole:.2f} ms an image, forward {forward:.2f} ms, ratio {np.median(ratios):.3f} [{low:.3f}, {high:.3f}]"
    )
    if chosen.out is not None:
        row: dict[str, Any] = {
            "method": chosen.method, "backbone": BACKBONE, "images": chosen.images, "batch_size": chosen.batch,
            "dtype": chosen.dtype, "scorers": chosen.threads, "workers": chosen.workers, "rounds": chosen.rounds,
            "evaluation_ms_per_image": f"{whole:.3f}", "forward_ms_per_image": f"{forward:.3f}",
            "ratio": f"{np.median(ratios):.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}",
            "device": device_name(torch.device(chosen.device)), "torch_threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }  # fmt: skip
        write_rows(chosen.out, [row])


if __name__ == "__main__":
    main()
