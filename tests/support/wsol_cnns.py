"""Inputs and weights for comparing the reference networks with wsolevaluation: drawn from seeds, never stored."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

NETWORKS = {
    name + suffix: (name, large)
    for name in ("wsol_resnet50", "wsol_vgg16", "wsol_inception_v3")
    for suffix, large in (("", False), ("_28", True))
}
CLASSES = 7
LABELS = [4, 1]
MAP_SIZE = 224
TRAIN_SIZE = 96  # of the images that gradients are compared on
SAMPLES = 48  # values kept of each gradient


def weights(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """A tensor for every key, from a generator seeded by the key; scaled so that activations keep their size.

    He-uniform for what has a fan-in, about 1 for norms' weights and variances, about 0 for biases and means.
    """
    return {key: _draw(key, shape) for key, shape in shapes.items()}


def _draw(key: str, shape: torch.Size) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(1)
    values = np.random.RandomState(zlib.crc32(key.encode())).random_sample(tuple(shape)) - 0.5
    if key in ("fc.weight", "SPG_A4.weight"):
        values *= 0.008  # maps of a few units, as trained networks have them
    elif len(shape) > 1:
        values *= 2 * np.sqrt(6 / np.prod(shape[1:]))
    elif key.endswith(("running_var", "weight")):
        # The last norm of a residual branch adds to a running sum: kept small, or the sum grows with depth.
        values = (1 + values) * (0.3 if ".bn3." in key and key.endswith("weight") else 1)
    else:
        values *= 0.2
    return torch.from_numpy(values.astype(np.float32))


def images(size: int) -> Tensor:
    """Two images [2, 3, size, size] that have large and small structures."""
    random = np.random.RandomState(size)
    coarse = torch.from_numpy(random.standard_normal((2, 3, 7, 7)).astype(np.float32))
    fine = torch.from_numpy(random.standard_normal((2, 3, size, size)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, size, mode="nearest") + 0.5 * fine


def watched(names: list[str]) -> list[str]:
    """Sixteen parameters spread over the network, the first and the last two among them."""
    chosen = {round(i) for i in np.linspace(0, len(names) - 2, 15)} | {len(names) - 1}
    return [names[i] for i in sorted(chosen)]


def sample(gradient: Tensor) -> np.ndarray:
    """Evenly spread values of a gradient, and its length and largest value at the end."""
    flat = gradient.detach().double().flatten().numpy()
    spread = flat[np.unique(np.linspace(0, len(flat) - 1, SAMPLES).round().astype(int))]
    return np.concatenate([spread, [np.linalg.norm(flat), np.abs(flat).max()]])
