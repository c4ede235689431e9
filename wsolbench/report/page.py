"""The page: one template, one style sheet, one script, every text escaped by Jinja2."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from wsolbench import __version__
from wsolbench.leaderboard.standings import Group
from wsolbench.leaderboard.tables.board import document
from wsolbench.leaderboard.tables.matrix import matrix_document
from wsolbench.leaderboard.tables.sheets import Document, Field, Signs
from wsolbench.record import RunRecord
from wsolbench.report.figures import draw
from wsolbench.report.gallery import ERRORS, NONE, Gallery

SIGNS = Signs(best="Bold:", second="Underlined:")
_NUMBER = re.compile(r"-?[\d,]*\.?\d+(?:e[-+]?\d+)?")


def render(
    groups: Sequence[Group], runs: Mapping[Path, RunRecord], galleries: Sequence[Gallery], command: str = ""
) -> str:
    """The whole page as text.

    A policy in its head forbids every connection, and every script but its own by its hash: a class that is called
    "<script>" could do nothing even if it were not escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("wsolbench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _text("page.js")
    policy = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    matrix = matrix_document(runs.values())
    board = document(groups)
    return environment.get_template("page.html.j2").render(
        title=_title(groups),
        version=__version__,
        command=command,
        runs=len(runs),
        commits=sorted({str(record.provenance.get("commit"))[:10] for record in runs.values()}),
        tables=_tables(board, groups),
        legend=" ".join(board.legend(SIGNS)),
        matrix=_tables(matrix, ()),
        matrix_legend=" ".join(matrix.legend(SIGNS)) if matrix.sheets else "",
        drawings=draw(groups, runs),
        galleries=galleries,
        axes=_axes(groups),
        signs=SIGNS,
        style=_text("page.css"),
        script=script,
        policy=policy,
        outcome=outcome,
    )


def _text(name: str) -> str:
    return files("wsolbench.report").joinpath(name).read_text(encoding="utf-8")


def _title(groups: Sequence[Group]) -> str:
    return "wsolbench: " + ", ".join(dict.fromkeys(group.dataset for group in groups))


def _axes(groups: Sequence[Group]) -> dict[str, list[str]]:
    """What can be filtered by."""
    return {
        "method": sorted({row.method for group in groups for row in group.rows}),
        "protocol": list(dict.fromkeys(group.protocol for group in groups)),
        "backbone": sorted({row.backbone for group in groups for row in group.rows} - {"-"}),
    }


def _tables(shown: Document, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The sheets of a document with what the page sorts and filters by beside each row."""
    tables = []
    for number, sheet in enumerate(shown.sheets):
        group = groups[number] if groups else None
        lines = []
        for at, line in enumerate(sheet.lines):
            about = {"method": group.rows[at].method if group else line.fields[0].text}
            about["backbone"] = (group.backbone if group else sheet.title.split(" | ")[1]).removeprefix("-")
            about["protocol"] = group.protocol if group else ""
            fields = [(field, sort_value(field)) for field in line.fields]
            lines.append({"about": about, "fields": fields, "muted": line.muted})
        tables.append({"title": sheet.title, "heads": sheet.heads, "lines": lines, "notes": sheet.notes})
    return tables


def sort_value(field: Field) -> str:
    """What a field is sorted by: a number where it begins with one, millions spelled out, else "" for its text.

    >>> sort_value(Field("0.56 M")), sort_value(Field("1,024", "± 3")), sort_value(Field("sat"))
    ('560000.0', '1024.0', '')
    """
    found = _NUMBER.match(field.text)
    if found is None:
        return ""
    return str(float(found[0].replace(",", "")) * (1e6 if field.text.endswith(" M") else 1))


def outcome(gallery: Gallery, number: int, at: int) -> str:
    """What an entry made of an image, in words."""
    entry = gallery.entries[number]
    iou, code, prediction = int(entry.iou_n[at]), int(entry.error_n[at]), int(entry.prediction_n[at])
    value = gallery.pictures.values.get((number, at)) if gallery.pictures else None
    if not gallery.has_boxes:
        parts = [] if value is None else [f"IoU {value:.2f}†"]
    else:
        parts = ["no box" if iou == NONE else f"IoU {iou / 100:.2f}"]
    parts += [ERRORS[code]] if code != NONE else []
    if prediction >= 0 and prediction != int(gallery.labels[at]):
        parts.append(f"class: {gallery.class_name(prediction)}")
    return ", ".join(parts)
