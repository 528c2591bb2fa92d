"""Every file of a dataset read and decoded once, by several processes, with a journal for the next run.

What the index or the journal knows of a file of the same path, size and modification time is not read again; a file
that could not be read is, since the cause may be gone.
"""

import hashlib
import io
import multiprocessing
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from typing import Any

import polars as pl
from rich.console import Console

from sare_core.data.listing import locate
from sare_core.errors import ConfigError, ImageError, StageError, TransientError
from sare_core.images import decode, image_id, read_bytes
from sare_core.manifest import INDEX_SCHEMA
from sare_core.progress import bar
from sare_core.signals import check_stop, stop_cleanly
from sare_core.storage import Store

FILE = ["path", "bytes", "mtime_ns"]
_FACTS = ["sha256", "image_id", "width", "height", "format", "extension", "mode", "quality", "error"]
SCAN_SCHEMA = pl.Schema({name: INDEX_SCHEMA[name] for name in FILE + _FACTS})

JOURNAL_ROWS = 500  # what a kill can lose: seconds of work
CHUNK = 20  # files a task of a worker process
AHEAD = 4  # tasks a worker that are under way: enough to be never idle, few enough to stop soon

_File = tuple[str, int | None, int | None]
_Row = tuple[Any, ...]  # SCAN_SCHEMA


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
                frames.append(pl.read_parquet(io.BytesIO(self._store.read(name))))
            except pl.exceptions.PolarsError as error:
                raise ConfigError(f"{self._store.path(name)}: damaged ({error}). Delete it and run again.") from error
        return pl.concat(frames)

    def append(self, rows: pl.DataFrame) -> None:
        out = io.BytesIO()
        rows.write_parquet(out)
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
    unread = files.join(kept, on="path", how="anti").select(FILE).rows()
    chunks = [unread[start : start + CHUNK] for start in range(0, len(unread), CHUNK)]
    frames = [kept]
    rows: list[_Row] = []

    def save() -> None:
        frames.append(pl.DataFrame(rows, SCAN_SCHEMA, orient="row"))
        journal.append(frames[-1])
        rows.clear()

    with stop_cleanly(), bar(console, "index", len(files), done=len(kept), unit="files") as advance:
        try:
            with closing(_examined(base, chunks, workers)) as results:
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


def _examined(base: str, chunks: list[list[_File]], workers: int) -> Generator[list[_Row]]:
    """The rows of each chunk, in order."""
    workers = min(workers, len(chunks))
    if workers <= 1:
        yield from (_examine(base, chunk) for chunk in chunks)
        return
    # Spawned, since a fork of a process with threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_attend_parent)
    pending: deque[Future[list[_Row]]] = deque()
    try:
        for chunk in chunks:
            pending.append(pool.submit(_examine, base, chunk))
            if len(pending) >= AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except (BrokenProcessPool, MemoryError) as error:
        check_stop()  # a signal to the whole group ends the workers too
        raise StageError(
            "a process that read images died, most likely for want of memory. What was read is kept: "
            "run the same command again, with fewer --workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _attend_parent() -> None:
    """In a worker: Ctrl-C is the parent's to handle, and a worker whose parent was killed has nothing to wait for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _examine(base: str, files: list[_File]) -> list[_Row]:
    return [file + _facts(locate(base, file[0])) for file in files]


def _facts(path: str) -> tuple[Any, ...]:
    """What the columns _FACTS hold of one file."""
    try:
        data = read_bytes(path)
        image, info = decode(data, path)
    except TransientError as error:
        if "://" in path:  # a store that does not answer for minutes will not for the next image either
            raise
        return (*[None] * (len(_FACTS) - 1), str(error).removeprefix(f"{path}: "))
    except ImageError as error:
        return (*[None] * (len(_FACTS) - 1), str(error).removeprefix(f"{path}: "))
    digest = hashlib.sha256(data).hexdigest()
    looks = (info.width, info.height, info.format, info.extension, info.mode, info.quality)
    return (digest, image_id(image), *looks, None)
