"""Every file of a dataset read and decoded once, by processes of their own, with a journal for the next run.

What the index or the journal knows of a file of the same path, size and modification time is not read again; a file
that could not be read is, since the cause may be gone.
"""

import io
import re
from contextlib import closing

import polars as pl
from rich.console import Console

from sare_core.engine.manifest import INDEX_SCHEMA
from sare_core.engine.progress import bar
from sare_core.engine.signals import check_stop, stop_cleanly
from sare_core.errors import ConfigError
from sare_core.index.examine import FACTS, Row, examined
from sare_core.store.storage import Store

FILE = ["path", "bytes", "mtime_ns"]
# What millions of rows share is held once: a string of their own would take each of them 16 bytes or more.
_SHARED = ("dataset", "subset", "split", "format", "extension", "mode")
HELD_SCHEMA = pl.Schema({**INDEX_SCHEMA, **dict.fromkeys(_SHARED, pl.Categorical())})
SCAN_SCHEMA = pl.Schema({name: HELD_SCHEMA[name] for name in (*FILE, *FACTS)})

JOURNAL_ROWS = 500  # what a kill can lose: seconds of work


class Journal:
    """What was read since the last commit, as numbered parquet files; and what the index has no row for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = 1 + max((int(name.removesuffix(".parquet")) for name in self._names()), default=-1)

    def _names(self) -> list[str]:
        """Whole files of the journal; a kill can leave a temporary beside them."""
        return [name for name in self._store.names() if re.fullmatch(r"\d+\.parquet", name)]

    def read(self) -> pl.DataFrame:
        """All rows, as SCAN_SCHEMA. Raises ConfigError: a file of the journal is damaged."""
        frames = [SCAN_SCHEMA.to_frame()]
        for name in self._names():
            try:
                frames.append(pl.read_parquet(io.BytesIO(self._store.read(name))).cast(SCAN_SCHEMA))
            except pl.exceptions.PolarsError as error:
                raise ConfigError(f"{self._store.path(name)}: damaged ({error}). Delete it and run again.") from error
        return pl.concat(frames)

    def append(self, rows: pl.DataFrame) -> None:
        out = io.BytesIO()
        rows.cast({name: INDEX_SCHEMA[name] for name in rows.columns}).write_parquet(out)
        self._store.write(f"{self._next:05d}.parquet", out.getvalue())
        self._next += 1

    def replace(self, rows: pl.DataFrame) -> None:
        """Keep these rows and no others."""
        before = self._store.names()
        if len(rows):
            self.append(rows)
        for name in before:
            self._store.delete(name)


def scan(
    files: pl.DataFrame, base: str, known: pl.DataFrame, journal: Journal, workers: int, console: Console
) -> tuple[pl.DataFrame, int]:
    """SCAN_SCHEMA of each of the files (columns FILE, one row a path), and how many of them were read for it.

    `known` is SCAN_SCHEMA. Raises Stopped on SIGTERM or SIGINT, with all that was read in the journal; StageError when
    a worker process dies.
    """
    known = known.filter(pl.col("error").is_null()).unique(FILE, keep="first", maintain_order=True)
    kept = files.join(known, on=FILE, how="inner").select(SCAN_SCHEMA.names())
    unread = files.join(kept, on="path", how="anti").select(FILE)
    frames = [kept]
    rows: list[Row] = []

    def save() -> None:
        frames.append(pl.DataFrame(rows, SCAN_SCHEMA, orient="row"))
        journal.append(frames[-1])
        rows.clear()

    with stop_cleanly(), bar(console, "index", len(files), done=len(kept), unit="files") as advance:
        try:
            with closing(examined(base, unread.iter_rows(), workers)) as results:
                for result in results:
                    rows += result
                    advance(len(result))
                    if len(rows) >= JOURNAL_ROWS:
                        save()
                    check_stop()
        finally:
            if rows:
                save()
    return pl.concat(frames), len(unread)
