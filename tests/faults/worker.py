"""Stages in processes that can be made to die."""

import os
import signal
from multiprocessing.context import ForkServerProcess

from sare_core.engine import faults, ledger
from sare_core.engine.manifest import read_index
from stages import options
from tests.forked import context
from tests.pipeline import Pipeline

STAGES = ("captions", "reconstructions", "detector", "predictions")


def do(pipeline: Pipeline, stage: str) -> None:
    """One stage, to its end."""
    if stage == "predictions":
        detector = pipeline.graph.detector_of(read_index(pipeline.manifests, "tree"))
        assert pipeline.predictions(detector).complete
    elif stage == "detector":
        pipeline.detector()
    else:
        assert getattr(pipeline, stage)().complete


def start(
    pipeline: Pipeline, stage: str, points: tuple[str, ...] = (), hit: int = 1, signum: int = 9
) -> ForkServerProcess:
    """Start a stage in a process of its own, which sends itself `signum` when it reaches `points` the `hit`-th time."""
    process = context.Process(target=_work, args=(pipeline, stage, points, hit, signum))
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
