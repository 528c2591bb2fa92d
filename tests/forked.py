"""Processes that start at once and may be killed, forked from a server that has done the imports and nothing else.

Forking the test's own process would copy the locks of polars' and torch's threads, but not the threads.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.forked_imports"])


class Done(NamedTuple):
    """What a command left. A negative code is that of the signal that ended it."""

    returncode: int
    stdout: str
    stderr: str


class Command:
    """`sare …` in a process of its own, with the given environment; started as soon as it is made.

    before: called in that process first; it has to be picklable.

    Its arguments, output, exit code and signals are those of a process that a shell starts; only the imports, which
    take seconds, are done already.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        folder: Path,
        before: Callable[[], object] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.iterdir()))
        self._said = folder / f"{number}.out", folder / f"{number}.err"
        for path in self._said:
            path.touch()
        arguments = ["sare", *arguments]
        self._process: ForkServerProcess = context.Process(
            target=_sare, args=(arguments, environment, before, str(Path.cwd()), *map(str, self._said))
        )
        self._process.start()

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signum)

    def wait(self, seconds: float = 1200) -> Done:
        """To its end. Raises AssertionError when it does not come."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"it still runs after {seconds} seconds")
        out, err = (path.read_text() for path in self._said)
        return Done(self._process.exitcode, out, err)


def _sare(
    arguments: list[str], environment: dict[str, str], before: Callable[[], object] | None, cwd: str, out: str, err: str
) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from sare_core.engine.terminal import console
    from stages import app

    if columns := environment.get("COLUMNS"):
        console.width = int(columns)  # rich reads it when the console is made
    if before:
        before()
    sys.argv = arguments
    app.main()
