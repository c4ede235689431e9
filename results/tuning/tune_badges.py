"""Tries settings on the val split of `badges` alone: what stands where test stood is val, so no test number is ever seen.

    python results/tuning/tune_badges.py sat badges_vit.s0 train.lr=5e-4,1e-3 sat.area=0.2

Appends one row per setting and seed to results/tuning/badges.csv: MaxBoxAccV2, GT-known, accuracy, all on val.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from wsolbench.config.compose import expand
from wsolbench.data.split import Split
from wsolbench.launch.here import run_all
from wsolbench_datasets.badges.dataset import Badges

HERE = Path(__file__).parent
COLUMNS = ("MaxBoxAccV2", "MaxBoxAccV2@.5", "GT-known@val", "Top-1 Cls")

real_split = Badges.split


def val_for_test(self: Badges, name: str) -> Split:
    """Hand out val where test is asked for."""
    return real_split(self, "val" if name == "test" else name)


def main() -> None:
    """Run method, backbone, overrides from the command line."""
    method, backbone, *overrides = sys.argv[1:]
    Badges.split = val_for_test  # type: ignore[method-assign]
    configs = expand([method], backbone=backbone, overrides=overrides, out=str(HERE / "runs"))
    outcomes = run_all(configs)
    table = HERE / "badges.csv"
    fresh = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(
                ("method", "backbone", "seed", "settings", *(f"{name} (val)" for name in COLUMNS), "seconds")
            )
        for config, outcome in zip(configs, outcomes, strict=True):
            if outcome.record is None:
                continue
            cells = {cell.column: cell.value for cell in outcome.record.cells}
            train, own = config.train, {key: value for key, value in config.method.items() if key != "name"}
            settings = (
                f"lr={train.lr:g} head_lr_scale={train.head_lr_scale:g} epochs={train.epochs} {own or ''}".strip()
            )
            values = [f"{100 * cells[name]:.1f}" if name in cells else "-" for name in COLUMNS]
            row = (
                method,
                config.backbone,
                config.seed,
                settings,
                *values,
                f"{outcome.record.cost['train_seconds']:.0f}",
            )
            writer.writerow(row)
            print(*row)


if __name__ == "__main__":
    main()
