"""The bench's table: in the terminal, as Markdown and as CSV."""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from sare_core.evaluation.tables import UNDEFINED, ResultTable, to_markdown


class Row(NamedTuple):
    """One measurement. rate: images/s; flops: that it does a second, 0: none to speak of; memory: the peak in
    bytes, None: not counted."""

    what: str
    dtype: str
    size: str
    batch: int
    rate: float
    flops: float
    parts: str
    memory: int | None


COLUMNS = ["what", "dtype", "size", "batch", "images/s", "TFLOP/s", "ceiling", "time %", "memory"]


def table(title: str, rows: list[Row], ceilings: dict[str, float], notes: list[str]) -> ResultTable:
    """ceilings: FLOP/s of a matrix product, by dtype."""
    cells = [
        [
            row.what,
            row.dtype,
            row.size,
            str(row.batch),
            _digits(row.rate),
            _digits(row.flops / 1e12) if row.flops else UNDEFINED,
            f"{100 * row.flops / ceilings[row.dtype]:.0f} %" if row.flops and row.dtype in ceilings else UNDEFINED,
            row.parts or UNDEFINED,
            UNDEFINED if row.memory is None else f"{row.memory / 1e9:.1f} GB",
        ]
        for row in rows
    ]
    shown = [place for place in range(len(COLUMNS)) if {line[place] for line in cells} != {UNDEFINED}]
    return ResultTable(
        title, [COLUMNS[place] for place in shown], [[line[place] for place in shown] for line in cells], notes
    )


def write(folder: Path, device: str, shown: ResultTable, rows: list[Row], head: str) -> Path:
    """`<device>.md` and `.csv`; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    (folder / f"{name}.md").write_text(f"# {device}\n\n    {head}\n\n{to_markdown([shown])}", encoding="utf-8")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Row._fields, *rows])
    (folder / f"{name}.csv").write_text(f"# {head}\n{text.getvalue()}", encoding="utf-8")
    return folder / f"{name}.md"


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
