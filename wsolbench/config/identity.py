"""Which keys of a configuration make a run that run. Hashes (`wsolbench.runs.job`) and rows of a leaderboard go by it alike.

A key that is added when there are runs already goes to `YOUNG` (or `IDLE_IN`): their hashes hold, and they stay in their rows.
What plug-ins say of their own options is in the fields of their `Config` (`wsolbench.config.deciding`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IDLE = (
    "out",
    "root",
    "device",
    "experiment",
    "recipe",
    "checkpoint",
    "track",
)  # top-level keys that cannot change a number
STATED = ("data", "search")  # top-level keys whose consequences are in the identity, e.g. which images, not who chose
YOUNG = (  # keys that older runs do not know: their hashes hold at the default
    ("evaluate", "convention", "reference"),
    ("protocol", "fraction", None),
    ("protocol", "select_every", 1),
    ("protocol", "matrix", False),
    ("train", "dtype", "fp32"),
    ("train", "compile", False),
    ("train", "channels_last", False),
    ("train", "accumulate", 1),
    ("evaluate", "dtype", "fp32"),
    ("evaluate", "compile", False),
    ("evaluate", "channels_last", False),
)
IDLE_IN = {
    "protocol": ("pseudo_boxes",),
    "train": ("workers", "checkpoint_gradients"),
    "evaluate": ("workers", "threads", "save_every"),
}


def deciding_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, as plain values, without what cannot change a number; sections and keys may be missing.

    >>> deciding_values({"seed": 1, "out": "results", "train": {"lr": 0.1, "workers": 4}, "protocol": {"matrix": False}})
    {'seed': 1, 'train': {'lr': 0.1}, 'protocol': {}}
    """
    young = {(owner, key): default for owner, key, default in YOUNG}

    def decides(owner: str, key: str, value: Any) -> bool:
        if key in IDLE_IN.get(owner, ()):
            return False
        return (owner, key) not in young or value != young[owner, key]

    return {
        owner: {key: value for key, value in content.items() if decides(owner, key, value)}
        if isinstance(content, Mapping)
        else content
        for owner, content in config.items()
        if owner not in (*IDLE, *STATED)
    }
