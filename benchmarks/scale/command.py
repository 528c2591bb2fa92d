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


class Measured(NamedTuple):
    """seconds of wall clock; peak_mb: of the process itself, its children left aside."""

    seconds: float
    peak_mb: float
    output: str


def measure(command: list[str], **environment: str) -> Measured:
    """Run a command to its end. Raises CalledProcessError when it fails."""
    # A child of its own that reports ru_maxrss of the command: this process's own children differ in size.
    script = (
        "import resource, subprocess, sys;"
        "code = subprocess.call(sys.argv[1:]);"
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr);"
        "sys.exit(code)"
    )
    start = time.monotonic()
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, env=env)
    seconds = time.monotonic() - start
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    peak = next(line.split()[1] for line in done.stderr.splitlines() if line.startswith("peak "))
    return Measured(seconds, int(peak) / 1024, done.stdout)


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
