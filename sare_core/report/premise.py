"""Whether the method can work on a data set at all, where the data set comes with what was measured of that."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from sare_core.evaluation.metrics import paper_order

FILE = "premise.csv"  # beside the images; `python -m sare_core.miniature --premise` writes such a table


# The limits that the table's rows may miss, by their names there.
WORDS = {
    "extras_fewer": "things",
    "fit_auc": "prompt",
    "kept": "x̂",
    "autoencoder_auc": "autoencoder",
    "encoder_auc": "encoder",
}


class Premise(NamedTuple):
    """rows: generator, things beside the article, how well it fits its prompt (AUC, %), what x̂ keeps (%), gates missed.
    photographs: things beside the article in photographs, and how often the captioner is right (%)."""

    photographs: tuple[float, float]
    rows: list[tuple[str, float, float, float, str]]


def premise_part(root: str) -> Premise | None:
    """Of the world and the guidance that the images are of; None where the data set does not come with its premise."""
    file = Path(root) / FILE
    if not file.is_file():
        return None
    table = pl.read_csv(file)
    (photographs,) = table.filter(pl.col("images") == "photographs").select("extras", "captioner_right").rows()
    rows = {row["images"]: row for row in table.iter_rows(named=True)}
    shown = [
        (
            name,
            row["extras"],
            row["fit_auc"],
            row["kept"],
            _in_words(row["missed"] or ""),
        )
        for name, row in ((name, rows[name]) for name in paper_order(set(rows) - {"photographs"}))
    ]
    return Premise(photographs, shown)


def _in_words(missed: str) -> str:
    return ", ".join(WORDS.get(name, name) for name in missed.split())
