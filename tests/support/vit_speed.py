"""What SAT and TS-CAM cost on a ViT: ratios of CPU time in one interleaved run, and peak memory of each alone.

    python tests/support/vit_speed.py [--rounds 20] [--batch 8] [--out results/profile/vit-methods-NAME.csv]

Two kinds of work on DeiT-S, 224 x 224, 1000 classes: to localise (map and logits of the predicted class), and a training step
(losses and their gradients, no optimizer). Each with ours, with the same written plainly on timm's own blocks with fused
attention off (the mask in the last three blocks only; a convolution and its average as the head), and with timm's classifier,
which gives no map. The first two must agree, in every gradient too, or nothing is measured. Every round times all of them one
after the other; a ratio is that of one round; the table holds medians and the 95 % interval of the median (bootstrap over
rounds). One thread, CPU seconds, so that other processes show little.
Memory: the highest sum of what torch had allocated at one time in one call, weights and images not counted, gradients counted.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from speed_table import write_rows
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import wsolbench
from wsolbench.types import Batch
from wsolbench_methods.networks.vit import embed, final_norm, project, run_block

BACKBONE, CLASSES, SIDE = "deit_small_patch16_224", 1000, 224
LOCALIZE, TRAIN = "localize", "train"

Subject = Callable[[Tensor], tuple[Tensor, ...]]
"""Images to what must agree: logits and maps, or the loss and all gradients."""


# --- the alternatives ------------------------------------------------------------------------------------------------


def method(name: str) -> Any:
    torch.manual_seed(0)
    return wsolbench.create_method(name, num_classes=CLASSES, backbone=BACKBONE, drop_path=0.0)


def labels_of(images: Tensor) -> Tensor:
    return torch.arange(len(images)) % CLASSES


def step_of(net: nn.Module, losses: Callable[[Tensor], list[Tensor]]) -> Subject:
    """A training step without its optimizer."""
    net.train()

    def step(images: Tensor) -> tuple[Tensor, ...]:
        net.zero_grad(set_to_none=True)
        loss = torch.stack(losses(images)).sum()
        loss.backward()
        return (loss.detach(), *[p.grad for p in net.parameters() if p.grad is not None])

    return step


def ours(name: str, work: str) -> Subject:
    """The method as it is."""
    built = method(name)

    def losses(images: Tensor) -> list[Tensor]:
        return list(built.loss(Batch([], images, labels_of(images))).values())

    def localize(images: Tensor) -> tuple[Tensor, ...]:
        prediction = built.localize(images)
        return prediction.logits_BK, prediction.maps_Bhw

    if work == TRAIN:
        return step_of(built, losses)
    built.eval()
    return localize


def unfused(name: str, work: str) -> Subject:
    """The same numbers from timm's blocks with the attention matrix written out."""
    built = copy.deepcopy(method(name))
    vit, head = built.vit, built.head
    for block in vit.blocks:
        block.attn.fused_attn = False

    def masked(attn: Any, x: Tensor) -> Tensor:  # timm's unfused attention, and the mask
        q, k, v = project(attn, x)
        weights = q * attn.scale @ k.transpose(-2, -1)
        mask = weights[:, :, -1].mean(1).sigmoid()
        masks.append(mask)
        weights = weights.softmax(-1)
        weights = weights * mask[:, None, None]
        return attn.proj((weights @ v).transpose(1, 2).flatten(2))

    def keep_row(module: Any, inputs: Any, weights: Tensor) -> None:
        rows.append(weights[:, :, 0, 1:].mean(1))

    masks: list[Tensor] = []
    rows: list[Tensor] = []
    if name == "tscam" and work == LOCALIZE:
        for block in vit.blocks:
            block.attn.attn_drop.register_forward_hook(keep_row)

    def scored(images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Class maps [B, K, h, w], and their grid."""
        masks.clear(), rows.clear()
        x, grid = embed(vit, images, built.loc_token + built.loc_embed if name == "sat" else None)
        last = 3 if name == "sat" else 0
        for block in vit.blocks[: len(vit.blocks) - last]:
            x = block(x)
        for block in vit.blocks[len(vit.blocks) - last :]:
            x = run_block(block, x, masked)
        patches = final_norm(vit, x)[:, 1 : -1 if name == "sat" else None]
        maps = patches.transpose(1, 2).reshape(len(x), -1, *grid)
        return F.conv2d(maps, head.weight, head.bias, padding=1), grid

    def losses(images: Tensor) -> list[Tensor]:
        scores, grid = scored(images)
        classified = F.cross_entropy(scores.mean((2, 3)), labels_of(images))
        if name == "tscam":
            return [classified]
        mask = torch.stack(masks).mean(0)[:, None, 1:-1].reshape(-1, 1, *grid)
        smooth = F.conv2d(mask, built.kernel_33[None, None], padding=1)
        return [classified, (mask.mean() - built.config.area).abs(), ((1 - smooth) * smooth).mean()]

    @torch.no_grad()
    def localize(images: Tensor) -> tuple[Tensor, ...]:
        scores, grid = scored(images)
        logits = scores.mean((2, 3))
        if name == "sat":
            return logits, torch.stack(masks).mean(0)[:, 1:-1].reshape(-1, *grid)
        attention = torch.stack(rows).sum(0).reshape(-1, *grid)
        return logits, attention * scores[torch.arange(len(images)), logits.argmax(1)]

    if work == TRAIN:
        return step_of(built, losses)
    built.eval()
    return localize


def plain(name: str, work: str) -> Subject:
    """timm's classifier, attention fused."""
    torch.manual_seed(0)
    model = timm.create_model(BACKBONE, num_classes=CLASSES)

    @torch.no_grad()
    def classify(images: Tensor) -> tuple[Tensor, ...]:
        return (model(images),)

    if work == TRAIN:
        return step_of(model, lambda images: [F.cross_entropy(model(images), labels_of(images))])
    model.eval()
    return classify


SUBJECTS: dict[str, Callable[[str, str], Subject]] = {"ours": ours, "unfused": unfused, "plain": plain}


# --- measuring -------------------------------------------------------------------------------------------------------


def interleaved(subjects: dict[str, Subject], images: Tensor, rounds: int) -> dict[str, np.ndarray]:
    """CPU seconds of each subject in each round."""
    for subject in subjects.values():
        subject(images)
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for i in range(rounds):
        names = list(subjects)
        for name in names[i % len(names) :] + names[: i % len(names)]:  # none is always the one behind another
            started = time.process_time()
            subjects[name](images)
            times[name].append(time.process_time() - started)
    return {name: np.array(values) for name, values in times.items()}


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float, float]:
    """Median ratio of a round, and its 95 % interval, rounds drawn with replacement."""
    ratios = numerator / denominator
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (5000, len(ratios))), 1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def peak_mib(subject: Subject, images: Tensor) -> float:
    """Most memory that tensors made by one call took at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = subject(images)
    events: Any = profiled.profiler
    changes = [event for event in events.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    del kept
    return float(np.cumsum([change.nbytes() for change in changes]).max() / 2**20)


def images_of(batch: int) -> Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def measure(name: str, work: str, batch: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    images = images_of(batch)
    subjects = {kind: build(name, work) for kind, build in SUBJECTS.items()}
    for got, want in zip(subjects["ours"](images), subjects["unfused"](images), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=5e-5)
    times = interleaved(subjects, images, rounds)
    row: dict[str, Any] = {
        "method": name,
        "work": work,
        "backbone": BACKBONE,
        "batch": batch,
        "classes": CLASSES,
        "rounds": rounds,
    }
    for kind, values in times.items():
        row[f"{kind} [s]"] = f"{np.median(values):.3f}"
    for title, pair in (("speedup over unfused", ("unfused", "ours")), ("time over plain", ("ours", "plain"))):
        middle, low, high = ratio(times[pair[0]], times[pair[1]])
        row[title], row[f"{title}, 95 % low"], row[f"{title}, 95 % high"] = f"{middle:.3f}", f"{low:.3f}", f"{high:.3f}"
    for kind in SUBJECTS:
        row[f"{kind} peak [MiB]"] = f"{peak_mib(subjects[kind], images):.1f}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for work in (LOCALIZE, TRAIN):
        for name in ("sat", "tscam"):
            rows.append(measure(name, work, arguments.batch, arguments.rounds))
            print(*(f"{key}: {value}" for key, value in rows[-1].items()), sep="\n", end="\n\n", flush=True)
    if arguments.out is not None:
        write_rows(arguments.out, rows)


if __name__ == "__main__":
    main()
