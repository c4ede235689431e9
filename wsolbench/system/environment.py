"""What numbers may depend on beside the configuration: versions, device, threads, the commit of the code."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from wsolbench import distributed

PACKAGES = (
    "wsolbench",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "safetensors",
    "torchmetrics",
    "scikit-image",
)
"""What the numbers of a run depend on: networks, and what reads images and weights. `wsolbench profile` has a list of its own,
of what durations depend on. Either stands in files that exist, so neither is the other's."""


@lru_cache(maxsize=1)
def source_commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout this package runs from and whether it has changes; (None, None) if it is installed."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # a wheel inside someone's repository is not ours
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Of Python, then of those packages that are installed."""
    versions = {"python": platform.python_version()}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers may depend on besides the configuration: versions, device, threads, commit."""
    commit, dirty = source_commit()
    return {
        "versions": versions_of(PACKAGES),
        "platform": f"{sys.platform} {platform.machine()}",
        "device": f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        **({"processes": distributed.world()} if distributed.world() > 1 else {}),
        "commit": commit,
        "dirty": dirty,
    }
