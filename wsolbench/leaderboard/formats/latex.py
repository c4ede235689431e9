"""LaTeX: one booktabs table per sheet; best in bold, second underlined, nothing but `\\usepackage{booktabs}` needed."""

from __future__ import annotations

import re

from wsolbench.leaderboard.tables.sheets import Document, Field, Head, Line, Sheet, Signs

SIGNS = Signs(best="Bold:", second="Underlined:")

_FLOATS = 15  # as many as LaTeX holds back at a time; tables of one document may have no text between them

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$", "≈": r"$\approx$", "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$", "†": r"$\dagger$",
    "‡": r"$\ddagger$", "·": r"$\cdot$", "–": "--", "—": "---", "−": "$-$",
}  # fmt: skip
_SPECIAL = re.compile("|".join(map(re.escape, _ESCAPES)))


def escape(text: str) -> str:
    """Plain text as LaTeX; line ends become spaces.

    >>> escape("gradcam-pkg:A_b 100 % & more")
    'gradcam-pkg:A\\\\_b 100 \\\\% \\\\& more'
    """
    return _SPECIAL.sub(lambda found: _ESCAPES[found.group()], " ".join(text.split()))


def to_latex(document: Document) -> str:
    """A document as LaTeX tables, to be included in a paper."""
    lines = [f"% {document.title}; needs \\usepackage{{booktabs}}"]
    if document.command:
        lines.append(f"% made by: {' '.join(document.command.split())}")
    if not document.sheets:
        return "\n".join([*lines, f"% {document.empty}"]) + "\n"
    for number, sheet in enumerate(document.sheets):
        if number and number % _FLOATS == 0:
            lines += ["", r"\clearpage"]
        lines += ["", *_sheet(sheet)]
    return "\n".join([*lines, "", *(f"% {line}" for line in document.legend(SIGNS))]) + "\n"


def _sheet(sheet: Sheet) -> list[str]:
    alignment = "".join("l" if head.kind == "text" else "r" for head in sheet.heads)
    groups = [list(group) for group in _grouped(sheet.lines) if group]
    body = [_line(line) for line in groups[0]] if groups else []
    for group in groups[1:]:  # rows for reference stand apart
        body += [r"\midrule", *map(_line, group)]
    return [
        r"\begin{table}[t]",
        r"\centering",
        r"\small",
        rf"\caption{{{escape(sheet.title.replace(' | ', ', '))}.}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(map(_head, sheet.heads)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        *(f"% {' '.join(note.split())}." for note in sheet.notes),
    ]


def _grouped(lines: tuple[Line, ...]) -> tuple[list[Line], list[Line]]:
    return [line for line in lines if not line.muted], [line for line in lines if line.muted]


def _line(line: Line) -> str:
    text = " & ".join(map(_field, line.fields)) + r" \\"
    return f"{{}}{text}" if text.startswith(("[", "*")) else text  # else \\ of the line before would read it


def _head(head: Head) -> str:
    return escape(str(head))


def _field(field: Field) -> str:
    text = "--" if field.text == "-" else escape(field.text)
    if "best" in field.marks:
        text = rf"\textbf{{{text}}}"
    elif "second" in field.marks:
        text = rf"\underline{{{text}}}"
    tied = r"$^{\approx}$" if "tied" in field.marks else ""
    detail = rf" {{\scriptsize {escape(field.detail)}}}" if field.detail else ""
    return f"{text}{tied}{detail}"
