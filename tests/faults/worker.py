"""Stages in processes that can be made to die, forked from a server that has done the imports and nothing else.

(Forking the test's own process would copy the locks of polars' and torch's threads, but not the threads.)
"""

import multiprocessing
import os
import signal
from multiprocessing.context import ForkServerProcess

# Imported here so that the server has them, and a forked worker starts at once.
import sare_core.captioning.blip
import sare_core.detectors.sare
import sare_core.diffusion.reconstructor
import sare_core.training  # noqa: F401
from sare_core import faults, ledger
from sare_core.manifest import read_index
from stages import options, train
from tests.pipeline import Pipeline

STAGES = ("captions", "reconstructions", "detector", "predictions")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.faults.worker"])


def do(pipeline: Pipeline, stage: str) -> None:
    """One stage, to its end."""
    if stage == "predictions":
        detector = train.detector_folder(pipeline.settings, read_index(pipeline.manifests, "tree"), pipeline.work)
        assert pipeline.predictions(detector).complete
    elif stage == "detector":
        pipeline.detector()
    else:
        assert getattr(pipeline, stage)().complete


def start(
    pipeline: Pipeline, stage: str, points: tuple[str, ...] = (), hit: int = 1, signum: int = 9
) -> ForkServerProcess:
    """Start a stage in a process of its own, which sends itself `signum` when it reaches `points` the `hit`-th time."""
    process = _context.Process(target=_work, args=(pipeline, stage, points, hit, signum))
    process.start()
    return process


def finish(pipeline: Pipeline, stage: str, points: tuple[str, ...] = (), hit: int = 1, signum: int = 9) -> int:
    """Run a stage as `start` does, to its end; its exit code, negative when a signal ended it."""
    process = start(pipeline, stage, points, hit, signum)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _work(pipeline: Pipeline, stage: str, points: tuple[str, ...], hit: int, signum: int) -> None:
    def hook(point: str) -> None:
        nonlocal hit
        hit -= point in points
        if hit == 0 and point in points:
            os.kill(os.getpid(), signum)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    faults.hook = hook
    ledger.COMPACT_FROM = pipeline.compact_from
    with options.exit_codes():
        do(pipeline, stage)
