"""The progress of all long work: how much, how fast, how long still. A bar in a terminal, else plain lines."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from threading import Lock

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from sare_core.engine.terminal import printable

INTERVAL = 60.0  # seconds between two lines of a log, at least


@contextmanager
def bar(
    console: Console, title: str, total: int, shown: bool = True, done: int = 0, unit: str = "images"
) -> Iterator[Callable[..., None]]:
    """The progress over `total` units, of which `done` were done before. Yields `advance(count, note="")`.

    In a terminal it is a bar. In a file, a pipe or a Slurm log it is a line at the start, one at the end, and one a
    minute between (INTERVAL), each written at once. shown: False prints nothing. Threads may call `advance`.
    """
    progress, lock = (_live if _is_live(console) else _lines)(console, printable(title), total, done, unit), Lock()
    with progress if shown else nullcontext(lambda count, note="": None) as show:

        def advance(count: int, note: str = "") -> None:
            with lock:
                show(count, note)

        yield advance


def _is_live(console: Console) -> bool:
    """A terminal, and not merely told to use colours in a log."""
    return console.is_interactive and console.file.isatty()


class _Rate:
    """Units of this run, and how many a second, since its first second of work: models are loaded before it."""

    def __init__(self) -> None:
        self._start, self._begun, self.count = time.monotonic(), 0.0, 0
        self._base = 0.0, 0  # seconds and units from where the rate is counted

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def add(self, count: int) -> None:
        self.count += count
        self._begun = self._begun or self.seconds
        if self.seconds - self._begun < 1:  # a batch comes at once, and its time lies before
            self._base = self.seconds, self.count

    def __call__(self) -> float:
        since, before = self._base if self.count > self._base[1] else (0.0, 0)
        return (self.count - before) / max(self.seconds - since, 1e-9)


class _Note(ProgressColumn):
    """What a stage says beside the numbers, on one line: the first to be shortened where there is no room."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


@contextmanager
def _live(console: Console, title: str, total: int, done: int, unit: str) -> Iterator[Callable[..., None]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        TextColumn(f"{{task.completed:,}}/{{task.total:,}} {unit}", markup=False),
        TextColumn("{task.fields[rate]:.1f}/s", markup=False),
        TextColumn("ETA", markup=False),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        _Note(),
    )
    with Progress(*columns, console=console) as progress:
        task, rate = progress.add_task(title, total=total, completed=done, rate=0.0, note=""), _Rate()

        def advance(count: int, note: str = "") -> None:
            rate.add(count)
            progress.update(task, completed=done + rate.count, rate=rate(), note=printable(note))

        yield advance


@contextmanager
def _lines(console: Console, title: str, total: int, done: int, unit: str) -> Iterator[Callable[..., None]]:
    rate, last = _Rate(), 0.0  # seconds from the start to the line before

    def line(*said: str) -> None:
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        parts = [f"{done + rate.count:,} of {total:,} {unit}", *filter(None, said)]
        console.print(f"{now} {title}: {', '.join(parts)}", soft_wrap=True)

    def advance(count: int, note: str = "") -> None:
        nonlocal last
        rate.add(count)
        if rate.seconds - last < INTERVAL:
            return
        last = rate.seconds
        eta = f"ETA {_time((total - done - rate.count) / rate())}" if rate.count else ""
        line(f"{rate():.1f}/s", eta, printable(note))

    line()
    try:
        yield advance
    finally:
        line(f"{rate():.1f}/s", f"took {_time(rate.seconds)}")


@contextmanager
def spinner(console: Console, title: str) -> Iterator[None]:
    """Shows that work of unknown length goes on, and for how long."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not _is_live(console)) as progress:
        progress.add_task(title, total=None)
        yield


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
