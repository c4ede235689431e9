"""Draws how far methods fall from one protocol to the next, and their few-shot curves, from finished runs alone.

    python results/draw_protocols.py results            writes results/protocols.png and results/few-shot.{png,md}

The first needs runs of --protocol matrix, the second of --protocol 1shot,3shot,...,full, also with protocol.budget=epochs.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from wsolbench.leaderboard import plots
from wsolbench.leaderboard.few_shot import FEW, few_shot_points
from wsolbench.leaderboard.records import load_records
from wsolbench.leaderboard.tables.matrix import made_with
from wsolbench.record import RunRecord


def main() -> None:
    """Draw what the runs below a folder allow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    folder = parser.parse_args().results
    records = load_records(folder)
    figure = plots.protocol_steps(records)
    if figure is None:
        print("no run of --protocol matrix: protocols.png is not drawn")
    else:
        print(plots.save(figure, folder / "protocols.png"))
    figure = plots.few_shot(records)
    if figure is None:
        print("no few-shot runs: few-shot.png is not drawn")
        return
    print(plots.save(figure, folder / "few-shot.png"))
    write_few_shot(records, folder / "few-shot.md")


def write_few_shot(records: list[RunRecord], path: Path) -> None:
    """The same points as tables."""
    budgets = few_shot_points(records)
    shots = [*sorted({at for points in budgets.values() for values in points.values() for at in values if at}), 0]
    names = " | ".join([*map(str, shots[:-1]), "all"])
    lines = [
        "# Few shots",
        "",
        f"Made by `python results/draw_protocols.py {path.parent}`.",
        "",
        "GT-known@val on test, percent, mean ± sample standard deviation over seeds, by training images per class.",
        "",
    ]
    for name, points in budgets.items():
        lines += [f"## {name}", "", f"| backbone | method | seeds | {names} |", "|---|---|---:|" + "---:|" * len(shots)]
        for (method, backbone), values in sorted(points.items(), key=lambda item: item[0][::-1]):
            cells = " | ".join(_cell(values.get(at, [])) for at in shots)
            lines.append(f"| {backbone} | {method} | {max(map(len, values.values()))} | {cells} |")
        lines.append("")
    shown = [record for record in records if FEW.fullmatch(record.protocol) and record.ledger.training != "none"]
    lines.append(f"{made_with(shown)}.\n")
    path.write_text("\n".join(lines), encoding="utf-8")


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
