"""Comparisons as tables, and ties as marks in the tables they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsolbench.leaderboard.comparison import Comparison
from wsolbench.leaderboard.standings import Group
from wsolbench.leaderboard.tables.board import Spread, document, label_of, legend
from wsolbench.leaderboard.tables.sheets import Document, Field, Head, Line, Sheet, Signs

_HEADS = (
    Head("first", kind="text"),
    Head("second", kind="text"),
    Head("metric", kind="text"),
    Head("seeds", kind="text"),
    Head("images", kind="cost", key="images"),
    Head("difference"),
    Head("p", kind="cost", key="p"),
    Head("p (Holm)", kind="cost"),
    Head("verdict", kind="text"),
)

_LEGEND = (
    "difference: first minus second, in points, with the 95 % interval of that one difference; seeds: those both ran.",
    (
        "p: paired test over test images and seeds (Obuchowski and Rockette 1995, Hillis 2007: seeds as readers, images as "
        "cases); an oracle chooses its threshold anew in each resample of the images."
    ),
    "p (Holm): corrected for all pairs of the table; tie: 0.05 or more.",
)
_ONE_SEED = "One seed: the test knows of the images only, and says nothing of training again."


@dataclass(frozen=True)
class Compared:
    """The comparisons of one group."""

    group: Group
    pairs: tuple[Comparison, ...]


def comparison_document(found: Sequence[Compared], spread: Spread = "std") -> Document:
    """The tables of the groups with their ties marked, each followed by its comparisons; as tidy rows the comparisons."""
    board = document([each.group for each in found], spread)
    pairs = [pair for each in found for pair in each.pairs]
    extra = [*_LEGEND, *([_ONE_SEED] if any(len(pair.seeds) == 1 for pair in pairs) else [])] if pairs else []

    def told(signs: Signs) -> list[str]:
        return [*legend([each.group for each in found], signs, spread, tested=True), *extra]

    sheets = [sheet for each, table in zip(found, board.sheets, strict=True) for sheet in (table, _sheet(each))]
    return replace(
        board,
        title="Comparisons",
        sheets=tuple(sheet for sheet in sheets if sheet.lines),
        legend=told,
        records=[_tidy(each.group, pair) for each in found for pair in each.pairs],
        dispensable=(*board.dispensable, "images", "p"),
    )


def _sheet(compared: Compared) -> Sheet:
    lines, problems = [], []
    for pair in compared.pairs:
        names = Field(label_of(pair.first)), Field(label_of(pair.second)), Field(pair.title)
        detail, p, adjusted = "", "-", "-"
        if pair.result is not None and pair.adjusted is not None:
            detail = f"[{100 * pair.result.low:+.1f}, {100 * pair.result.high:+.1f}]"
            p, adjusted = _p(pair.result.p), _p(pair.adjusted)
        if pair.problem:
            problems.append(f"{label_of(pair.first)}, {label_of(pair.second)}: not tested ({pair.problem})")
        lines.append(
            Line(
                (
                    *names,
                    Field(" ".join(map(str, pair.seeds)) or ("fixed" if pair.result else "-")),
                    Field(str(pair.images) if pair.images else "-"),
                    Field(f"{100 * pair.difference:+.1f}", detail),
                    Field(p),
                    Field(adjusted),
                    Field(verdict(pair)),
                )
            )
        )
    tested = sum(pair.result is not None for pair in compared.pairs)
    count = f"{tested} pair{'s' * (tested != 1)} tested"
    return Sheet(f"{compared.group.title} | comparisons", _HEADS, tuple(lines), (count, *_unique(problems)))


def verdict(pair: Comparison) -> str:
    """What the test says, in a word or two."""
    if pair.result is None:
        return "not tested"
    if not pair.significant:
        return "tie"
    return f"{(pair.first if pair.difference > 0 else pair.second).label} higher"


def _p(p: float) -> str:
    return "<.001" if p < 0.001 else f"{p:.3f}"


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _tidy(group: Group, pair: Comparison) -> dict[str, Any]:
    result = pair.result
    return {
        "dataset": group.dataset,
        "backbone": group.backbone,
        "protocol": group.protocol,
        "first": pair.first.label,
        "second": pair.second.label,
        "metric": pair.title,
        "seeds": " ".join(map(str, pair.seeds)),
        "images": pair.images or None,
        "difference": pair.difference,
        "low": None if result is None else result.low,
        "high": None if result is None else result.high,
        "df": None if result is None else result.df,
        "p": None if result is None else result.p,
        "p_holm": pair.adjusted,
        "significant": None if result is None else pair.significant,
        "problem": pair.problem or None,
    }
