"""GitHub markdown: every column, one table per sheet, captions below."""

from __future__ import annotations

from wsolbench.leaderboard.tables.sheets import Document, Field, Sheet, Signs

SIGNS = Signs(best="**Bold**:")


def to_markdown(document: Document) -> str:
    """A document as GitHub markdown."""
    lines = [f"# {document.title}", ""]
    if document.command:
        lines += ["Made by:", "", "```", document.command, "```", ""]
    if not document.sheets:
        return "\n".join([*lines, document.empty]) + "\n"
    lines += [" ".join(document.legend(SIGNS)), ""]
    for sheet in document.sheets:
        lines += _sheet(sheet)
    return "\n".join(lines)


def _sheet(sheet: Sheet) -> list[str]:
    heads = " | ".join(_escaped(str(head)) for head in sheet.heads)
    lines = [f"## {sheet.title.replace(' | ', ' · ')}", ""]
    lines += [
        f"| {heads} |",
        "|" + "|".join("---" if column == 0 else "---:" for column in range(len(sheet.heads))) + "|",
    ]
    lines += ["| " + " | ".join(map(_field, line.fields)) + " |" for line in sheet.lines]
    first, *others = sheet.notes or ("",)
    return [*lines, "", *([f"{first}."] if first else []), *(f"\n{note}." for note in others), ""]


def _field(field: Field) -> str:
    text = _escaped(field.text)
    if "best" in field.marks:
        text = f"**{text}**"
    return f"{text}{SIGNS.tied if 'tied' in field.marks else ''} {field.detail}".strip()


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
