"""Kills at random moments, any number of them. `make soak` makes a thousand and writes down what came of it."""

import os
import platform
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.worker import STAGES, finish, start
from tests.pipeline import Pipeline


def kill_at_random(pipeline: Pipeline, kills: int, rng: random.Random) -> int:
    """Run all stages to their end, and kill them on the way at random moments; how many kills hit a running process.

    A stage that gets done is made undone in part (its newest record goes), so that there is always work to kill.
    """
    hit, share = 0, kills // len(STAGES) + 1
    for stage in STAGES:
        assert finish(pipeline, stage) == 0
        for _ in range(share):
            undo(pipeline, stage)
            span = 0.5
            while True:
                process = start(pipeline, stage)
                time.sleep(rng.uniform(0.0, span))
                process.kill()
                process.join()
                if process.exitcode == -9:
                    hit += 1
                    break
                assert process.exitcode == 0, f"{stage} ended with {process.exitcode}"
                undo(pipeline, stage)
                span *= 0.8  # it was done before the kill came
        assert finish(pipeline, stage) == 0
    return hit


def undo(pipeline: Pipeline, stage: str) -> None:
    """Take away what says that a stage is done: the last shard's record, or all of a training's."""
    folder = {"detector": "detectors"}.get(stage, stage)
    for found in Path(pipeline.work).rglob(f"{folder}/*/about.json"):
        place = found.parent
        for name in ("last.json", "best.json", "records.json"):
            (place / name).unlink(missing_ok=True)
        for record in sorted(place.glob("records/*.json"))[-1:]:
            record.unlink()


def main(kills: int) -> None:
    from sare_core.config import load_settings
    from tests.conftest import STANDIN, standin_overrides
    from tests.faults.whole import SMALL, check_whole
    from tests.pipeline import outputs
    from tests.standins import build_models
    from tests.trees import genimage_tree

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = load_settings(STANDIN, [*standin_overrides(build_models(folder / "models")), *SMALL])
        tree = genimage_tree(folder / "tree", per_cell=10, subsets=["sdv1.4"])
        whole, killed = (Pipeline(settings, str(folder / "manifests"), str(folder / name)) for name in ("a", "b"))
        whole.index(tree)
        assert [finish(whole, stage) for stage in STAGES] == [0, 0, 0, 0]
        killed.compact_from = 1
        start_time = time.monotonic()
        hit = kill_at_random(killed, kills, random.Random())
        check_whole(killed, outputs(whole.work))
        took = time.monotonic() - start_time
    where = f"{os.cpu_count()} cores, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    text = (
        f"# soak\n\n`python -m tests.faults.soak {kills}` on {where}, {took / 60:.0f} minutes.\n\n"
        "| kills made | survived with equal bytes |\n|---|---|\n"
        f"| {hit:,}, at random moments of captions, reconstructions, training and predictions | all |\n"
    )
    (Path(__file__).parents[2] / "benchmarks" / "scale" / "soak.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
