"""Captions of the user's own, from a parquet or CSV file."""

import hashlib
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError

_UNREADABLE = "\ufffd"  # what polars puts in place of bytes that are not UTF-8


def load(settings: CaptionSettings, weights_dir: str | None, device: str) -> "Table":
    """Read settings.table: column caption, and image_id or path (as in the index; image_id if both are there).

    Raises ConfigError: no table is named or there, not readable, a column is missing or not text, or one key has two
    different captions.
    """
    if settings.table is None:
        raise ConfigError("caption.table: captioner table needs a .parquet or .csv file.")
    path = Path(settings.table)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; caption.table names it.")
    table = _read(path)
    key = next((name for name in ("image_id", "path") if name in table.columns), None)
    if key is None or "caption" not in table.columns:
        raise ConfigError(
            f"{path}: needs the columns caption, and image_id or path; it has {', '.join(table.columns)}."
        )
    for column in (key, "caption"):
        if table[column].dtype != pl.String:
            raise ConfigError(f"{path}: column {column} is {table[column].dtype}, not text.")
    table = table.select(key, "caption").unique().drop_nulls(key)
    twice = table.filter(pl.col(key).is_duplicated())[key].unique().sort()
    if len(twice):
        raise ConfigError(f"{path}: {len(twice)} images have more than one caption, such as {key} {twice[0]!r}.")
    captions = {k: c for k, c in table.iter_rows() if c is not None and _UNREADABLE not in c}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Table(key, captions, f"sha256:{digest[:12]}")


class Table:
    """Looks captions up. None: not in the table, null there, or not UTF-8 (in a CSV file)."""

    name = "table"

    def __init__(self, key: str, captions: dict[str, str], revision: str) -> None:
        self.key, self.captions, self.revision = key, captions, revision

    def caption(self, images: list[Image.Image], rows: list[dict[str, Any]]) -> list[str | None]:
        """See Captioner."""
        return [self.captions.get(row[self.key]) for row in rows]


def _read(path: Path) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path, glob=False)
        if path.suffix == ".csv":
            return pl.read_csv(path, glob=False, infer_schema=False, encoding="utf8-lossy")
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"{path}: not readable as a table: {error}") from error
    raise ConfigError(f"{path}: caption.table is a .parquet or .csv file.")
