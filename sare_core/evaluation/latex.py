"""Tables as LaTeX that pdflatex sets with booktabs alone: every character is ASCII or a command."""

import re
import unicodedata
from collections.abc import Sequence

from sare_core.engine.terminal import printable
from sare_core.evaluation.tables import ResultTable, marked_rows

_COMMANDS = {
    **{character: f"\\{character}" for character in "{}&%$#_"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "|": r"\textbar{}",  # these three are other characters in the fonts that LaTeX begins with
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "—": "---",
    "’": "'",
    "…": r"\ldots{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\to$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "²": r"\textsuperscript{2}",
    "Δ": r"$\Delta$",
}
_ACCENTS = dict(zip("\u0300\u0301\u0302\u0303\u0304\u0307\u0308\u030a\u030c\u0327", "`'^~=.\"rvc", strict=True))


def to_latex(tables: Sequence[ResultTable]) -> str:
    r"""The tables as LaTeX's table environments, their notes below them; they need \usepackage{booktabs}."""
    parts = []
    for table in tables:
        rows = marked_rows(table, _latex, r"\textbf{{{}}}", r"\underline{{{}}}")
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\toprule",
            " & ".join(map(_latex, table.columns)) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            *[r"\par\smallskip\raggedright\footnotesize"] * bool(table.notes),
            *(rf"{_latex(note)}\par" for note in table.notes),
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _latex(text: str) -> str:
    """Text for LaTeX: names from a dataset may hold anything. What has no command is shown by its number, [U+4E2D]."""
    found = list[str]()
    for character in unicodedata.normalize("NFD", re.sub(r"\s", " ", printable(text))):
        if character in _ACCENTS and found:
            found[-1] = rf"\{_ACCENTS[character]}{{{found[-1]}}}"
        elif character in _COMMANDS:
            found.append(_COMMANDS[character])
        else:
            found.append(character if character.isascii() else f"[U+{ord(character):04X}]")
    return re.sub(r"^[\[*]", r"{\g<0>}", "".join(found))  # or the command before it would take it for an option
