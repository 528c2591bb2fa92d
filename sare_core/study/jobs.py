"""Commands run side by side, a few at a time: each stage of each variant is a process of its own."""

import os
import shlex
import subprocess
import tempfile
import time
from collections import deque
from typing import IO, NamedTuple

from rich.console import Console

from sare_core.engine.signals import check_stop, stop_cleanly
from sare_core.errors import StageError


class Job(NamedTuple):
    """A command, `python -m stages.NAME …`, and what to call it."""

    name: str
    command: list[str]

    @property
    def typed(self) -> str:
        """The same as one types it."""
        return shlex.join(["sare", self.command[2].removeprefix("stages."), *self.command[3:]])


class _Running(NamedTuple):
    job: Job
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    started: float


def run_jobs(jobs: list[Job], at_once: int, console: Console) -> None:
    """Run all, `at_once` at a time, with one thread each; say when one ends. A stop signal is passed on to them.

    Raises StageError, with the last lines of its output, when a job fails; the others are stopped then.
    """
    waiting, running = deque(jobs), list[_Running]()
    with stop_cleanly():
        try:
            while waiting or running:
                check_stop()
                while waiting and len(running) < at_once:
                    running.append(_start(waiting.popleft()))
                time.sleep(0.1)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    _finish(one, console, f"{len(jobs) - len(waiting) - len(running)}/{len(jobs)}")
        finally:
            for one in running:
                one.process.terminate()
            for one in running:
                one.process.wait()
                one.output.close()


def _start(job: Job) -> _Running:
    output = tempfile.TemporaryFile()  # noqa: SIM115 — closed when the process has ended
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(job.command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    return _Running(job, process, output, time.monotonic())


def _finish(one: _Running, console: Console, count: str) -> None:
    one.output.seek(0)
    lines = one.output.read().decode(errors="replace").strip().splitlines()
    one.output.close()
    if one.process.returncode:
        said = "\n".join(lines[-12:])
        raise StageError(f"{one.job.name} ended with exit code {one.process.returncode}:\n{said}")
    console.print(f"[{count}] {one.job.name}: {time.monotonic() - one.started:.0f} s")
