"""`wsolbench pretrain`: the embedded backbones, as their shipped weights were made."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsolbench.cli.parser import Verb
from wsolbench.config.overrides import names_in
from wsolbench.errors import UsageError, unknown
from wsolbench.system.preflight import check_writable


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add = parser.add_argument
    add("--backbone", metavar="NAME", help="see 'wsolbench list backbones' (default: all embedded)")
    add("--seed", type=int, metavar="N", help="default: the one the shipped weights were made with")
    add("--scale", default=1.0, type=float, metavar="X", help="share of the full schedule (default: 1)")
    add("--out", default="backbones", metavar="DIR", help="default: backbones")


def pretrain(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Train and write the weights."""
    if not arguments.scale > 0:
        raise UsageError(f"--scale {arguments.scale}: expected a number above 0")
    check_writable(Path(arguments.out))
    from wsolbench.backbones.embedded import list_backbones
    from wsolbench.backbones.pretrain import pretrain as train

    names = names_in(arguments.backbone) or list_backbones()
    for name in names:
        if name not in list_backbones():
            raise unknown("embedded backbone", name, list_backbones())
    for name in names:
        summary = train(name, Path(arguments.out), seed=arguments.seed, scale=arguments.scale)
        print(name, *(f"{key}={value}" for key, value in summary.items()))
    return 0


VERB = Verb(
    "pretrain",
    "Train the embedded backbones as their shipped weights were trained.",
    "wsolbench pretrain --backbone badges_cnn --scale 0.05 --out backbones",
    add_flags,
    pretrain,
)
