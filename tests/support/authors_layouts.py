"""Names and shapes of the authors' checkpoints, and random weights and images that any machine makes alike.

Golden numbers in `tests/golden/` were computed by the authors' code from these weights; the streams of numpy's
`RandomState` are frozen, so tests can make the same weights again.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from wsolbench.types import Batch

Shapes = dict[str, tuple[int, ...]]

WIDTHS = {"tiny": 192, "small": 384, "base": 768}


def vit_shapes(layout: str, width: int, num_classes: int) -> Shapes:
    """DeiT of 12 blocks with 16 x 16 patches, as `layout` releases it: "sat" (155 tensors), "tscam" (152) or "plain"."""
    block = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,),
    }
    shapes: Shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 197, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        **{f"blocks.{i}.{name}": shape for i in range(12) for name, shape in block.items()},
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (num_classes, width) if layout == "plain" else (num_classes, width, 3, 3),
        "head.bias": (num_classes,),
    }
    if layout == "sat":
        shapes |= {"loc_token": (1, 1, width), "loc_embed": (1, 1, width), "weight": (1, 1, 3, 3)}
    return shapes


def without_memory(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of these shapes that hold nothing."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def random_weights(shapes: Shapes) -> dict[str, Tensor]:
    """Weights that keep activations of order one, so that attention is far from uniform; seeded by name."""
    return {name: _random(name, shape) for name, shape in shapes.items()}


def _random(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) < 2:  # biases, norms
        values *= np.float32(0.1)
        if name.endswith("running_var"):
            values = np.abs(values) + np.float32(0.5)
        elif "weight" in name:
            # The last norm before a residual sum is small, or features would grow from block to block.
            values += np.float32(0.2 if name.endswith("bn3.weight") else 1)
    elif name.endswith(("_token", "_embed")):
        values *= np.float32(0.5)
    else:
        values *= np.float32(1 / np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(values)


def random_batch(images: int, num_classes: int) -> Batch:
    """Images of 224 x 224 pixels with labels."""
    generator = np.random.RandomState(images)
    values = generator.standard_normal((images, 3, 224, 224)).astype(np.float32)
    labels = generator.randint(num_classes, size=images)
    return Batch([str(i) for i in range(images)], torch.from_numpy(values), torch.from_numpy(labels).long())


def gradient_summary(gradient: Tensor) -> np.ndarray:
    """Its norm, and 63 of its values evenly spread.

    Places come from whole numbers: torch.linspace counts in float32, and without AVX it finds others.
    """
    flat = gradient.detach().double().flatten()
    picked = flat[[round(i * (len(flat) - 1) / 62) for i in range(63)]]
    return torch.cat([flat.norm()[None], picked]).numpy()
