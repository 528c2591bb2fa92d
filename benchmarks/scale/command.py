"""Runs `sare` as a user does, and measures it: seconds of wall clock, megabytes at the peak."""

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.conftest import STANDIN, standin_overrides
from tests.standins import build_models

SARE = [sys.executable, "-m", "stages.app"]
IMPORT = [sys.executable, "-c", "import stages.app"]


# Runs a command as a child of its own, since this process's other children differ in size, and says what it took.
_WATCH = """
import re, resource, subprocess, sys, threading, time
child, anonymous = subprocess.Popen(sys.argv[1:]), [0]
def look():
    while True:
        try:
            with open(f"/proc/{child.pid}/status") as status:
                anonymous.append(int(re.search(r"RssAnon:\\s+(\\d+)", status.read())[1]))
        except (OSError, TypeError):
            return
        time.sleep(0.02)
threading.Thread(target=look, daemon=True).start()
code = child.wait()
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, max(anonymous), file=sys.stderr)
sys.exit(code)
"""


class Measured(NamedTuple):
    """seconds of wall clock; peak_mb: of the process itself, its children left aside; anonymous_mb: of that, what is
    no file's, looked at 50 times a second.

    Pages of libraries count in the first as the kernel maps them in, many megabytes at some moment or other.
    """

    seconds: float
    peak_mb: float
    anonymous_mb: float
    output: str


def measure(command: list[str], **environment: str) -> Measured:
    """Run a command to its end. Raises CalledProcessError when it fails."""
    start = time.monotonic()
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    done = subprocess.run([sys.executable, "-c", _WATCH, *command], capture_output=True, text=True, env=env)
    seconds = time.monotonic() - start
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    _, peak, anonymous = next(line for line in done.stderr.splitlines() if line.startswith("peak ")).split()
    return Measured(seconds, int(peak) / 1024, int(anonymous) / 1024, done.stdout)


def median_seconds(command: list[str], times: int = 5, **environment: str) -> float:
    return statistics.median(measure(command, **environment).seconds for _ in range(times))


class Standins(NamedTuple):
    """Settings of models with random weights, as `sare` takes them on the command line."""

    preset: str
    sets: list[str]

    def options(self, dataset: str, work: str, manifests: str) -> list[str]:
        given = ["--dataset", dataset, "--preset", self.preset, "--work", work, "--manifests", manifests]
        return given + [part for item in self.sets for part in ("--set", item)]


def standins(folder: Path, *sets: str) -> Standins:
    """Build the models in a folder, if they are not there."""
    models = folder / "models"
    if not models.exists():
        models.mkdir(parents=True)
        build_models(models)
    return Standins(STANDIN, [*standin_overrides(models), "train_subsets=null", *sets])


def own_peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
