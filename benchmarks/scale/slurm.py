"""64 tasks at once on a real Slurm: which part of a task's time is the model's, when the model only sleeps."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from benchmarks.bars import Row
from benchmarks.scale.made_up import DATASET, make_index
from benchmarks.scale.sleeper import SleepStage, folder_of
from sare_core.engine.manifest import read_index
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import run

TASKS, SHARDS_PER_TASK, SECONDS = 64, 4, 100.0  # of sleep a shard


def rows(folder: Path) -> Iterator[Row]:
    from tests.slurm.cluster import running

    manifests, work, logs = (str(folder / name) for name in ("manifests", "work", "logs"))
    make_index(manifests, TASKS * SHARDS_PER_TASK, 4)
    Path(logs).mkdir(parents=True, exist_ok=True)
    with running(folder / "slurm", TASKS) as cluster:
        task = f"{sys.executable} -m benchmarks.scale.slurm {manifests} {work}"
        command = [
            "sbatch",
            "--parsable",
            "--wait",
            f"--array=0-{TASKS - 1}",
            f"--output={logs}/%a.txt",
            "--wrap",
            task,
        ]
        env = os.environ | cluster.environment | {"OMP_NUM_THREADS": "1"}
        start = time.monotonic()
        code = subprocess.run(command, env=env, stdout=subprocess.DEVNULL).returncode
        wall = time.monotonic() - start
    index = read_index(manifests, DATASET)
    done = sum(state.kind == "done" for state in folder_of(work).states(index.digests).values())
    figures = [tuple(map(float, path.read_text().split()[-2:])) for path in Path(logs).glob("*.txt")]
    slept, spent = (sum(part) for part in zip(*figures, strict=True))
    yield Row(
        f"efficiency of {TASKS} Slurm tasks: time of the model / time of the loop",
        f"{SHARDS_PER_TASK} shards of {SECONDS:.0f} s each; {done} of {TASKS * SHARDS_PER_TASK} shards done",
        f"{100 * slept / spent:.1f} %",
        "≥ 95 %",
        slept / spent >= 0.95 and code == 0 and done == TASKS * SHARDS_PER_TASK,
    )
    ideal = SHARDS_PER_TASK * SECONDS
    yield Row(
        "the same from sbatch to the end of the last task, process starts on this machine's cores included",
        f"{wall:.0f} s of wall clock, {os.cpu_count()} cores",
        f"{100 * ideal / wall:.1f} %",
        "–",
        True,
    )


def main(manifests: str, work: str) -> None:
    """One task: its range of shards. Prints the seconds that the model slept, and those of the whole loop."""
    index, task = read_index(manifests, DATASET), int(os.environ["SLURM_ARRAY_TASK_ID"])
    stage = SleepStage(folder_of(work), SECONDS)
    start = time.monotonic()
    outcome = run(stage, index, list(range(task * SHARDS_PER_TASK, (task + 1) * SHARDS_PER_TASK)), Console(quiet=True))
    print(stage.slept, time.monotonic() - start)
    sys.exit(0 if outcome.complete else 1)


if __name__ == "__main__":
    Rank.device = lambda self: "cpu"  # type: ignore[method-assign]
    main(*sys.argv[1:])
