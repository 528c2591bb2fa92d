"""Two runners over all shards at once: how many shards are computed twice."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from benchmarks.bars import Row
from benchmarks.scale.made_up import DATASET, make_index
from benchmarks.scale.sleeper import SleepStage, folder_of
from sare_core.engine.manifest import read_index
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import run

SECONDS = 0.02  # of sleep a batch


def rows(folder: Path, shards: int = 200) -> Iterator[Row]:
    manifests, work = str(folder / "manifests"), str(folder / "work")
    index = make_index(manifests, shards, 4)
    command = [sys.executable, "-m", "benchmarks.scale.race", manifests, work]
    runners = [subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) for _ in range(2)]
    codes = [runner.wait() for runner in runners]
    made = folder_of(work)
    counts = Counter(Path(made.store.url, "computed.txt").read_text().split())
    done = sum(state.kind == "done" for state in made.states(index.digests).values())
    twice = sum(count - 1 for count in counts.values())
    yield Row(
        "shards computed twice by two racing runners",
        f"{shards} shards on disk; {done} done, exit codes {codes}",
        f"{twice}",
        "≤ 4",
        twice <= 4 and done == shards and codes == [0, 0],
    )


def main(manifests: str, work: str) -> None:
    index = read_index(manifests, DATASET)
    stage = SleepStage(folder_of(work), seconds=SECONDS, log=True)
    outcome = run(stage, index, index.shards["shard"].to_list(), Console(quiet=True))
    sys.exit(0 if outcome.complete else 1)


if __name__ == "__main__":
    Rank.device = lambda self: "cpu"  # type: ignore[method-assign]
    main(*sys.argv[1:])
