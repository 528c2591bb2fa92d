"""The progress bar of all long work: how much, how fast, how long still."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def bar(
    console: Console, title: str, total: int, shown: bool = True, done: int = 0, unit: str = "images"
) -> Iterator[Callable[..., None]]:
    """A bar over `total` units, of which `done` were done before. Yields `advance(count, note="")`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "  {task.fields[rate]:.1f}/s  {task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not shown) as progress:
        task = progress.add_task(title, total=total, completed=done, rate=0.0, note="")
        start, count = time.monotonic(), 0

        def advance(more: int, note: str = "") -> None:
            nonlocal count
            count += more
            rate = count / max(time.monotonic() - start, 1e-9)
            progress.update(task, completed=done + count, rate=rate, note=note)

        yield advance


@contextmanager
def spinner(console: Console, title: str) -> Iterator[None]:
    """Shows that work of unknown length goes on, and for how long."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(title, total=None)
        yield
