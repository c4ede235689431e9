"""Names and weight files of the backbones that ship with the package; imports neither torch nor timm."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"
SEEDS = {"badges_cnn": 0, "badges_vit.s0": 0, "badges_vit.s1": 1}  # the pretraining seed of each


def list_backbones() -> list[str]:
    """Names of the embedded backbones, sorted. Any timm name works beside them.

    >>> list_backbones()
    ['badges_cnn', 'badges_vit.s0', 'badges_vit.s1']
    """
    return sorted(SEEDS)


def weights_file(name: str) -> Path:
    """Where the weights of an embedded backbone lie."""
    return WEIGHTS / f"{name}.safetensors"


@cache
def weights_sha256(name: str) -> str | None:
    """SHA-256 of an embedded backbone's weights; None for any other backbone, whose weights are not in the package."""
    if name not in SEEDS or not weights_file(name).is_file():
        return None
    return hashlib.sha256(weights_file(name).read_bytes()).hexdigest()
