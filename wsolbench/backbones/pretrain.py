"""Trains the embedded backbones: letters on the objects of `badges`, as ImageNet precedes CUB.

Two phases. First the convolutional trunk learns letters from crops around the badge: from whole images they stay near
chance. Then the whole network learns from whole images, with image labels only: which letter, and (a second head) which
stripe textures are in sight. Body plan, textures and the training photos' columns are those of the benchmark; symbols
are not. Everything was chosen on letters and on the benchmark's val split.
"""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolbench.backbones.embedded import SEEDS, list_backbones, weights_file
from wsolbench.errors import WsolbenchError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn

    from wsolbench.data.split import Split

IMAGES = 6000  # letters to train on
CROP = 28  # pixels: the largest badge and a margin
BATCH = 64
CROP_EPOCHS, CROP_LR = 8, 4e-3
EPOCHS, LR = {"badges_cnn": 12, "badges_vit": 14}, {"badges_cnn": 4e-3, "badges_vit": 1.5e-3}
WEIGHT_DECAY = 0.05
# Of the texture head's loss beside the letters' cross-entropy. A heavier one made the ViT's class attention cover more of
# the object on val.
TEXTURE_WEIGHT = {"badges_cnn": 1.0, "badges_vit": 4.0}


def pretrain(name: str, out: Path, *, seed: int | None = None, scale: float = 1.0) -> dict[str, Any]:
    """Train an embedded backbone from scratch and write `<name>.safetensors` and its log `<name>.jsonl` to `out`.

    Args:
        name: One of `wsolbench.backbones.embedded.list_backbones()`.
        out: Folder; made if missing.
        seed: Of initialisation, order and augmentation; None: the one the shipped weights were made with.
        scale: Multiplies the number of images and of epochs (at least two); 1 reproduces the shipped weights.

    Returns:
        A summary: path, seed, seconds, and the last epoch's losses and val accuracies in [0, 1].
    """
    if name not in SEEDS:
        raise unknown("embedded backbone", name, list_backbones())
    import torch

    from wsolbench.backbones import create_backbone
    from wsolbench.data.dataset import create_dataset
    from wsolbench.method.checkpoint import write_tensors

    seed = SEEDS[name] if seed is None else seed
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WsolbenchError(f"cannot write to '{out}': {error.strerror}") from error
    letters = create_dataset(
        "badges", variant="letters", train=max(BATCH, int(IMAGES * scale)), val=max(64, int(640 * scale))
    )
    train, val = letters.split("train"), letters.split("val")
    start = time.monotonic()
    log = _Log(out / f"{name}.jsonl")
    command = f"wsolbench pretrain --backbone {name} --seed {seed}"
    log.write({"backbone": name, "command": command, "seed": seed, "scale": scale, "torch": torch.__version__})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_backbone(name, num_classes=letters.info.num_classes, pretrained=False)
        _learn_crops(model, train, val, seed, scale, log)
        last = _learn_images(name.partition(".")[0], model, train, val, seed, scale, log)
    seconds = round(time.monotonic() - start, 1)
    path = out / weights_file(name).name
    log.write({"seconds": seconds, "parameters": sum(parameter.numel() for parameter in model.parameters())})
    log.close()
    origin = {"command": command, "scale": scale, "torch": torch.__version__, "data": letters.fingerprint()}
    # a single entry: safetensors writes several in an order that changes from run to run, and with it the file's hash
    write_tensors(path, model.state_dict(), {"origin": json.dumps(origin)})
    return {**last, "path": path, "seed": seed, "seconds": seconds}  # of the whole, not of the last epoch


class _Log:
    """One JSON object per line, written as it comes and moved to its place when complete."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, path.with_name(path.name + ".tmp")
        self.file = self.temporary.open("w", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        self.temporary.replace(self.path)


def _learn_crops(model: nn.Module, train: Split, val: Split, seed: int, scale: float, log: _Log) -> None:
    """Phase one: the trunk under a throw-away classifier, on 28x28 crops around the badge."""
    from torch import nn
    from torch.nn import functional as F

    trunk: Any = model.trunk if hasattr(model, "trunk") else model.patch_embed.backbone  # type: ignore[union-attr]
    wide = 2 * trunk.num_features
    net = nn.Sequential(
        trunk,
        nn.Conv2d(trunk.num_features, wide, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(wide, 16),
    )

    def step(images: Tensor, labels: Tensor, ids: list[str]) -> dict[str, Tensor]:
        return {"letter": F.cross_entropy(net(images), labels)}

    def score() -> dict[str, float]:
        return {"letter_accuracy": _accuracy(net, _crops(val))}

    epochs = max(2, round(CROP_EPOCHS * scale))
    _fit("crops", net.parameters(), step, score, net, _crops(train), epochs, CROP_LR, seed, log)


def _learn_images(
    architecture: str, model: nn.Module, train: Split, val: Split, seed: int, scale: float, log: _Log
) -> dict[str, float]:
    """Phase two: letter and texture heads on whole images."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    network: Any = model
    arrays: Any = train.arrays  # type: ignore[attr-defined]
    textures = dict(zip(train.ids, torch.from_numpy(arrays.textures_nT).float(), strict=True))
    names = nn.Linear(network.num_features, arrays.textures_nT.shape[1])

    def step(images: Tensor, labels: Tensor, ids: list[str]) -> dict[str, Tensor]:
        features = network.forward_features(images)
        pooled = network.forward_head(features, pre_logits=True)
        wanted = torch.stack([textures[id] for id in ids])
        return {
            "letter": F.cross_entropy(network.get_classifier()(pooled), labels),
            "texture": TEXTURE_WEIGHT[architecture]
            * F.binary_cross_entropy_with_logits(names(pooled), wanted)
            * wanted.shape[1]
            / 4,
        }

    def score() -> dict[str, float]:
        return {"letter_accuracy": _accuracy(model, val)}

    epochs = max(2, round(EPOCHS[architecture] * scale))
    parameters = [*model.parameters(), *names.parameters()]
    return _fit("images", parameters, step, score, model, train, epochs, LR[architecture], seed, log)


def _fit(
    phase: str,
    parameters: Any,
    step: Callable[[Tensor, Tensor, list[str]], dict[str, Tensor]],
    score: Callable[[], dict[str, float]],
    net: nn.Module,
    train: Split,
    epochs: int,
    lr: float,
    seed: int,
    log: _Log,
) -> dict[str, float]:
    """AdamW with a short warm-up and a cosine; one line of the log per epoch, the last one is returned."""
    import torch

    from wsolbench.data.loading import train_batches

    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=WEIGHT_DECAY)
    steps = epochs * max(1, len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1, pct_start=0.15)
    line: dict[str, Any] = {}
    with _progress() as bar:
        task = bar.add_task(phase, total=steps, note="") if bar else None
        for epoch in range(epochs):
            start = time.monotonic()
            sums: dict[str, float] = {}
            count = 0
            net.train()
            for batch in train_batches(train, range(len(train)), batch_size=BATCH, seed=seed, epoch=epoch):
                losses = step(batch.images_BCHW, batch.labels_B, batch.ids)
                optimizer.zero_grad()
                torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                count += 1
                for key, value in losses.items():
                    sums[key] = sums.get(key, 0.0) + float(value.detach())
                if bar:
                    note = "  ".join(f"{key} {value / count:.3f}" for key, value in sums.items())
                    bar.update(task, advance=1, note=note)
            line = {"phase": phase, "epoch": epoch, **{key: round(value / count, 4) for key, value in sums.items()}}
            line |= {key: round(value, 4) for key, value in score().items()}
            line["seconds"] = round(time.monotonic() - start, 2)
            log.write(line)
    return line


def _progress() -> Any:
    """A rich progress bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        return nullcontext()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _accuracy(net: nn.Module, split: Split) -> float:
    import torch

    from wsolbench.data.loading import eval_batches

    net.eval()
    with torch.inference_mode():
        right = sum(
            int((net(batch.images_BCHW).argmax(1) == batch.labels_B).sum())
            for batch in eval_batches(split, batch_size=128)
        )
    return right / len(split)


def _crops(split: Split) -> Split:
    """The split seen through a window around each badge, jittered when augmented."""
    import torch

    from wsolbench.data.split import Split as AbstractSplit
    from wsolbench.types import Annotation, Sample

    class Crops(AbstractSplit):
        def __init__(self) -> None:
            self.ids, self.labels = split.ids, split.labels

        def sample(self, index: int, augment: torch.Generator | None) -> Sample:
            whole = split.sample(index, None)  # badges lie elsewhere in an augmented image
            x0, y0, x1, y1 = (int(value) for value in split.part_box(whole.id)[0])  # type: ignore[attr-defined]
            dx, dy = (0, 0) if augment is None else (int(v) for v in torch.randint(-3, 4, (2,), generator=augment))
            left = min(max((x0 + x1 - CROP) // 2 + dx, 0), whole.image_CHW.shape[2] - CROP)
            top = min(max((y0 + y1 - CROP) // 2 + dy, 0), whole.image_CHW.shape[1] - CROP)
            return Sample(whole.id, whole.image_CHW[:, top : top + CROP, left : left + CROP].contiguous(), whole.label)

        def annotation(self, id: str) -> Annotation:
            raise NotImplementedError("crops are trained on, not localised in")

    return Crops()
