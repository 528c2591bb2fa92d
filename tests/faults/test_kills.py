"""Kill -9 at every named point and at random moments of every stage; the next run ends with the very same bytes.

Each point's hit is asserted: a point that is never reached proves nothing.
"""

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sare_core.engine.faults import POINTS
from sare_core.engine.manifest import read_index
from tests.faults.soak import kill_at_random
from tests.faults.whole import check_whole
from tests.faults.worker import STAGES, finish
from tests.pipeline import Pipeline, outputs

SHARD_POINTS = ("claimed", "sample-written", "spooled", "verified", "output-put", "record-put")
FOLDER_POINTS = ("compacted", "compacted-named")
CHECKPOINT_POINTS = ("checkpoint-put", "checkpoint-named")
KILLED = -signal.SIGKILL


def test_a_kill_at_every_point_of_every_stage(begin: Callable[[str], Pipeline], undisturbed: dict[str, bytes]) -> None:
    assert {*SHARD_POINTS, *FOLDER_POINTS, *CHECKPOINT_POINTS} == set(POINTS)
    pipeline = begin("killed")
    pipeline.compact_from = 1
    for stage in STAGES:
        for point in CHECKPOINT_POINTS if stage == "detector" else SHARD_POINTS + FOLDER_POINTS:
            before = {name: data for name, data in outputs(pipeline.work).items() if "/detectors/" not in name}
            hit = 2 if point in ("sample-written", "checkpoint-put") else 1
            assert finish(pipeline, stage, (point,), hit) == KILLED, f"{stage}: {point} was not reached"
            after = outputs(pipeline.work)
            assert {name: after.get(name) for name in before} == before, "what was done is not touched"
        assert finish(pipeline, stage) == 0
    check_whole(pipeline, undisturbed)


def test_only_the_shard_in_flight_is_done_again(begin: Callable[[str], Pipeline]) -> None:
    pipeline = begin("redone")
    shards = pipeline.shards()
    sizes = read_index(pipeline.manifests, "tree").shards["images"].to_list()
    assert len(shards) >= 4
    assert finish(pipeline, "captions", ("sample-written",), hit=sizes[0] + sizes[1] + 1) == KILLED
    outcome = pipeline.captions()
    assert outcome.before == shards[:2]
    assert outcome.done == shards[2:]


def test_fifty_kills_at_random_moments(begin: Callable[[str], Pipeline], undisturbed: dict[str, bytes]) -> None:
    pipeline = begin("random")
    pipeline.compact_from = 1
    assert kill_at_random(pipeline, kills=50, rng=random.Random(0)) >= 50
    check_whole(pipeline, undisturbed)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("stage", "point", "hit"), [("reconstructions", "sample-written", 5), ("detector", "checkpoint-named", 2)]
)
def test_a_signal_stops_cleanly(
    signum: int,
    stage: str,
    point: str,
    hit: int,
    begin: Callable[[str], Pipeline],
    undisturbed: dict[str, bytes],
) -> None:
    pipeline, place = begin("stopped"), STAGES.index(stage)
    assert [finish(pipeline, before) for before in STAGES[:place]] == [0] * place
    assert finish(pipeline, stage, (point,), hit, signum) == 128 + signum
    assert not list(Path(pipeline.work).rglob("claims/*.json")), "the claim is given up"
    assert not list(Path(pipeline.work).rglob("*.tmp"))
    assert [finish(pipeline, later) for later in STAGES[place:]] == [0] * (4 - place)
    check_whole(pipeline, undisturbed)
