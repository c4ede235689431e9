"""Puts the short table between the TABLE marks of README.md, read from results/leaderboard.csv.

python results/readme_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
METHODS = ("sat", "tscam", "cam", "gradcam", "attention", "center-gaussian", "center-box", "full-image")
COLUMNS = {
    "GT-known@val": "GT-known@val",
    "Top-1 Loc@val": "Top-1 Loc@val",
    "MaxBoxAccV2†": "MaxBoxAccV2 (test-oracle)",
    "Top-1 Cls": "Top-1 Cls",
}


def main() -> None:
    """Rewrite the README."""
    table = pd.read_csv(HERE / "leaderboard.csv")
    table = table[(table.protocol == "full") & table.method.isin(METHODS)]
    table = table.sort_values(["backbone", "GT-known@val mean"], ascending=[False, False])
    lines = [f"| backbone | method | {' | '.join(COLUMNS)} |", "|---|---|" + "---:|" * len(COLUMNS)]
    for _, row in table.iterrows():
        cells = []
        for column in COLUMNS.values():
            mean, spread = 100 * row[f"{column} mean"], 100 * row[f"{column} std"]
            spread = float("nan") if row.deterministic else spread
            cells.append("-" if pd.isna(mean) else f"{mean:.1f}" + ("" if pd.isna(spread) else f" ± {spread:.1f}"))
        lines.append(f"| {row.backbone} | {row.method} | {' | '.join(cells)} |")
    readme = HERE.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    marks = re.compile(r"(<!-- TABLE -->\n).*?(\n?<!-- /TABLE -->)", re.DOTALL)
    assert marks.search(text), "README.md has no TABLE marks"
    readme.write_text(
        marks.sub(lambda found: found[1] + "\n".join(lines) + "\n<!-- /TABLE -->", text), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
