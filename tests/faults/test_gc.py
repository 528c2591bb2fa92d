"""`gc --delete` beside running stages, for real and again and again: nothing that a record names is lost.

Before a shard is done, its file lies there already, from a run that was killed long ago: until the stage puts the same
bytes under the same name, it is an orphan that gc may remove.
"""

import hashlib
import sys
import time
from contextlib import suppress
from pathlib import Path

from sare_core.engine import ledger
from sare_core.engine.claims import Claims
from sare_core.engine.folders import Folder, Output
from sare_core.engine.garbage import orphaned_files, remove_orphans
from sare_core.engine.manifest import read_index, write_index
from sare_core.errors import ConfigError
from tests.builders import ABOUT, index_frame, index_row, shard_record
from tests.forked import context

STAGES, SHARDS, ROUNDS, GATHERINGS = 2, 50, 4, 20


def folder_in(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "work"), "it", "captions", {"stage": "captions"}, None)


def output(shard: int, done: int) -> tuple[Output, bytes]:
    """What a shard holds when it is done for the `done`-th time."""
    data = f"{shard} {done}".encode()
    digest = hashlib.sha256(data).hexdigest()
    return Output(name=f"{shard:05d}-{digest[:12]}.tar", bytes=len(data), sha256=digest), data


def stage(tmp_path: Path, rank: int) -> None:
    """All shards of a rank, each several times as if its images had changed; records are gathered in between."""
    ledger.COMPACT_FROM = 1
    index, folder = read_index(str(tmp_path / "manifests"), "it"), folder_in(tmp_path)
    mine, gathered = Claims(folder.store), 0
    work = [(shard, done) for done in range(ROUNDS) for shard in range(rank, SHARDS, STAGES)]
    for number, (shard, done) in enumerate(work, 1):
        made, data = output(shard, done)
        folder.store.local(made.name).write_bytes(data)
        while not mine.take(shard):
            time.sleep(0.001)  # gc or a gathering holds the folder
        folder.store.write(made.name, data)
        time.sleep(0.001)
        folder.commit(shard_record(folder, shard, {"index": index.digests[shard]}, output=made))
        mine.free()
        while gathered < GATHERINGS // STAGES * number // len(work):
            gathered += folder.ledger.compact(index.digests)


def collect(tmp_path: Path) -> None:
    """Until there is a file `stop`; exits with 0 if it removed anything.

    Without the hour's grace: claims alone have to keep a file that a stage or a gathering is about to name.
    """
    index, folder, removed = read_index(str(tmp_path / "manifests"), "it"), folder_in(tmp_path), 0
    while not (tmp_path / "stop").exists():
        started = time.monotonic()
        with suppress(ConfigError):  # the records that it read were gathered anew, and the other gc removed them
            found = [name for name in orphaned_files(folder, index, grace=0) if not name.endswith(".tmp")]
            removed += bool(found) and remove_orphans(folder, index, found, grace=0)
        time.sleep(time.monotonic() - started)  # the folder is left to the stages for as long, on any machine
    sys.exit(0 if removed > ROUNDS else 1)


def test_gc_beside_running_stages_loses_nothing(tmp_path: Path) -> None:
    rows = [index_row(shard, shard) for shard in range(SHARDS)]
    index = write_index(str(tmp_path / "manifests"), "it", index_frame(*rows), ABOUT)
    folder = folder_in(tmp_path)
    folder.describe()
    stages = [context.Process(target=stage, args=(tmp_path, rank)) for rank in range(STAGES)]
    collectors = [context.Process(target=collect, args=(tmp_path,)) for _ in range(2)]
    for process in stages + collectors:
        process.start()
    for process in stages:
        process.join()
    (tmp_path / "stop").touch()
    for process in collectors:
        process.join()
    assert [process.exitcode for process in stages + collectors] == [0, 0, 0, 0]

    last = {shard: output(shard, ROUNDS - 1) for shard in range(SHARDS)}
    assert {shard: record.output for shard, record in folder.records().items()} == {s: o for s, (o, _) in last.items()}
    assert {state.kind for state in folder.states(index.digests).values()} == {"done"}
    assert all(folder.store.read(made.name) == data for made, data in last.values())
    assert remove_orphans(folder, index, set(orphaned_files(folder, index, grace=0)), grace=0)
    assert len([name for name in folder.store.names() if name.endswith(".tar")]) == SHARDS
