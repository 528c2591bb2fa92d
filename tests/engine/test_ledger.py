"""Records in one parquet say the same as the small files did, and a kill between the steps loses nothing."""

import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from sare_core.engine import faults, ledger
from sare_core.engine import folders as records
from sare_core.engine.claims import FOLDER, Claims
from sare_core.engine.folders import Folder
from sare_core.engine.ledger import SWITCH, Ledger
from sare_core.engine.owner import Owner, this_process
from sare_core.engine.record import Failure, Output, Record
from sare_core.errors import ConfigError
from sare_core.store.storage import Store
from tests.builders import shard_record

COUNT = 40
TABLE = {"shard": pl.Int32, "digest": pl.String}
DIGESTS = {shard: f"rows-of-{shard}" for shard in range(COUNT)}


class Killed(BaseException):
    pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A stage of 40 shards that are done; one lacks an image."""
    monkeypatch.setattr(ledger, "COMPACT_FROM", 5)
    folder = Folder(str(tmp_path), "it", "captions", {"stage": "captions", "version": 1}, None)
    for shard in range(COUNT):
        do(folder, shard, "abc")
    lost = [Failure(image_id="7" * 20, path="été/7.png", reason="gone")]
    do(folder, 7, "abc", ok=1, failures=lost)
    return folder


def another_process() -> Owner:
    """One that lives, on this host."""
    parent = psutil.Process(os.getppid())
    return Owner(**this_process().model_dump() | {"pid": parent.pid, "started": parent.create_time()})


def do(folder: Folder, shard: int, content: str, **changes: Any) -> None:
    output = Output(name=f"{shard:05d}-{content}.parquet", bytes=3, sha256=content * 20)
    folder.store.write(output.name, content.encode())
    folder.commit(shard_record(folder, shard, {"index": DIGESTS[shard]}, **({"output": output} | changes)))


def seen(folder: Folder) -> tuple[dict[int, str], dict[int, Record], list[Record | None]]:
    """All that anyone asks of a folder's records."""
    fresh = Ledger(Store(folder.store.url))
    states = {shard: str(state) for shard, state in folder.states(DIGESTS).items()}
    return states, fresh.records(), [fresh.record(shard) for shard in (0, 7, COUNT - 1, COUNT)]


def test_compacted_records_say_the_same(folder: Folder) -> None:
    before = seen(folder)
    entries = {shard: entry._replace(compacted=True) for shard, entry in folder.ledger.entries()[0].items()}
    assert folder.ledger.compact(range(COUNT))
    assert folder.store.names("records") == []
    assert seen(folder) == before
    assert folder.ledger.entries() == (entries, set())
    assert folder.ledger.entries([7])[0][7].failed == 1
    assert folder.ledger.records([3, 4]).keys() == {3, 4}
    assert not folder.ledger.compact(range(COUNT)), "there is nothing more to gather"


def test_a_record_is_kept_word_for_word(folder: Folder) -> None:
    words = {shard: folder.store.read(f"records/{shard:05d}.json").decode() for shard in range(COUNT)}
    folder.ledger.compact(range(COUNT))
    name = folder.ledger.file()
    assert name is not None
    table = pl.read_parquet(folder.store.local(name), glob=False)
    assert dict(table.select("shard", "record").iter_rows()) == words


def test_a_later_record_goes_before_the_parquet(folder: Folder) -> None:
    folder.ledger.compact(range(COUNT))
    do(folder, 3, "xyz")
    record = folder.record(3)
    assert record is not None
    assert record.output is not None
    assert record.output.sha256 == "xyz" * 20
    assert folder.ledger.entries()[0][3].sha256 == folder.ledger.entries([3])[0][3].sha256 == "xyz" * 20
    for shard in range(10, 20):
        do(folder, shard, "new")
    before = seen(folder)
    assert folder.ledger.compact(range(COUNT))
    assert seen(folder) == before


def test_a_cut_record_hides_the_older_one_and_stops_the_gathering(folder: Folder) -> None:
    folder.ledger.compact(range(COUNT))
    for shard in range(10):
        do(folder, shard, "new")
    folder.store.write("records/00003.json", b'{"format": 1')
    assert folder.states(DIGESTS)[3].why == "its record cannot be read"
    assert 3 not in folder.records()
    assert not folder.ledger.compact(range(COUNT))
    assert "00003.json" in folder.store.names("records")


def test_shards_that_left_the_index_are_dropped_when_their_outputs_are_gone(folder: Folder) -> None:
    """A stage that began with an older index gathers too: what it does not know of is not lost."""
    folder.ledger.compact(range(COUNT))
    for shard in range(5, 12):
        do(folder, shard, "new")
    folder.ledger.compact(range(5, COUNT))
    assert folder.records().keys() == set(range(COUNT))
    for shard in range(5):
        folder.store.delete(f"{shard:05d}-abc.parquet")
    for shard in range(5, 12):
        do(folder, shard, "newer")
    folder.ledger.compact(range(5, COUNT))
    assert folder.records().keys() == set(range(5, COUNT))


Act = Callable[[], object]


def interrupted(
    monkeypatch: pytest.MonkeyPatch, step: int, act: Act, but: Callable[..., bool] = lambda *_: False
) -> Callable[[], bool]:
    """Something else happens just before the `step`-th call to a store, those `but` aside; whether it did."""
    count, acted = 0, False

    def intercept(name: str) -> None:
        real = getattr(Store, name)

        def call(self: Store, *args: Any) -> Any:
            nonlocal count, acted
            count += not but(name, *args)
            if count == step and not acted:
                acted = True
                with monkeypatch.context() as patch:
                    for other, function in REAL.items():
                        patch.setattr(Store, other, function)
                    act()
            return real(self, *args)

        monkeypatch.setattr(Store, name, call)

    for name in REAL:
        intercept(name)
    return lambda: acted


REAL = {
    name: getattr(Store, name)
    for name in ("names", "read", "read_many", "write", "create", "delete", "delete_many", "exists")
}


@pytest.mark.parametrize("scheme", ["", "memory://"])
@pytest.mark.parametrize("claimed", [True, False])
def test_a_record_that_is_replaced_while_records_are_gathered_stays(
    scheme: str, claimed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each request of the gathering in turn; without a claim, before all but the one that removes what was
    compared a moment before."""
    monkeypatch.setattr(ledger, "COMPACT_FROM", 1)
    for step in count(1):
        folder = Folder(f"{scheme}{tmp_path}/{step}", "it", "captions", {"stage": "captions"}, None)
        do(folder, 0, "abc", status="failed", error="disk", output=None)
        do(folder, 1, "abc")
        worker = Claims(folder.store)
        worker._owner = another_process()

        def again(folder: Folder = folder, worker: Claims = worker) -> None:
            if claimed and not worker.take(0):
                return
            do(folder, 0, "xyz")
            worker.free()

        with monkeypatch.context() as patch:
            acted = interrupted(patch, step, again, lambda name, *_: not claimed and name.startswith("delete"))
            folder.ledger.compact(range(2))
        if not acted():
            assert step > 10
            return
        if claimed and folder.records()[0].status == "failed":
            again()  # it waited until the records were gathered
        assert folder.records()[0].status == "done", f"lost at step {step}"
        assert Ledger(folder.store).compact(range(2)) in (True, False)
        assert {shard: record.status for shard, record in folder.records().items()} == {0: "done", 1: "done"}


def test_of_two_who_gather_at_once_neither_loses_the_others_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one gathers a record that came after the first one read; the claim of the first has expired.

    All but between the first one's last look at records.json and its own.
    """
    monkeypatch.setattr(ledger, "COMPACT_FROM", 1)
    gathered = 0
    for step in count(1):
        folder = Folder(str(tmp_path / str(step)), "it", "captions", {"stage": "captions"}, None)
        for shard in range(3):
            do(folder, shard, "abc")

        def other(folder: Folder = folder) -> None:
            nonlocal gathered
            do(folder, 1, "xyz")
            for name in folder.store.names("claims"):
                folder.store.delete(f"claims/{name}")
            gathered += Ledger(folder.store).compact(range(3))

        with monkeypatch.context() as patch:
            acted = interrupted(patch, step, other, lambda *call: call[:2] == ("write", SWITCH))
            folder.ledger.compact(range(3))
        if not acted():
            break
        found = {shard: entry.sha256[:3] for shard, entry in folder.ledger.entries()[0].items()}
        assert found == {0: "abc", 1: "xyz", 2: "abc"}, f"lost at step {step}"
    assert gathered > 8


def test_a_shard_that_somebody_works_on_is_not_gathered(folder: Folder) -> None:
    worker = Claims(folder.store)
    worker._owner = another_process()
    assert worker.take(3)
    assert folder.ledger.compact(range(COUNT))
    assert folder.store.names("records") == ["00003.json"]
    assert folder.records().keys() == set(range(COUNT))
    worker.free()


def test_while_somebody_holds_the_folder_nothing_is_gathered(folder: Folder) -> None:
    other = Claims(folder.store)
    other._owner = another_process()
    assert other.take(FOLDER)
    assert not folder.ledger.compact(range(COUNT))
    other.free()
    assert folder.ledger.compact(range(COUNT))


@pytest.mark.parametrize("how", ["entries", "records", "states"])
def test_records_that_are_gathered_while_they_are_read_are_not_missed(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "COMPACT_FROM", 1)
    for module in (ledger, records):
        monkeypatch.setattr(module, "FEW", 1)  # folders are listed
    digests = {shard: DIGESTS[shard] for shard in range(3)}
    for step in count(1):
        folder = Folder(str(tmp_path / str(step)), "it", "captions", {"stage": "captions"}, None)
        for shard in digests:
            do(folder, shard, "abc")
        looks = {
            "entries": lambda f=folder: f.ledger.entries()[0].keys(),
            "records": lambda f=folder: f.records().keys(),
            "states": lambda f=folder: {shard for shard, state in f.states(digests).items() if state.kind == "done"},
        }
        with monkeypatch.context() as patch:
            acted = interrupted(patch, step, lambda f=folder: Ledger(f.store).compact(digests))
            assert looks[how]() == digests.keys(), f"missed at step {step}"
        if not acted():
            assert step > 3
            return


@pytest.mark.parametrize("where", ["compacted", "compacted-named"])
def test_a_kill_between_the_steps_loses_nothing(folder: Folder, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seen(folder)

    def die(point: str) -> None:
        if point == where:
            raise Killed

    monkeypatch.setattr(faults, "hook", die)
    with pytest.raises(Killed):
        folder.ledger.compact(range(COUNT))
    assert seen(folder) == before
    monkeypatch.setattr(faults, "hook", None)
    assert folder.ledger.compact(range(COUNT))
    assert seen(folder) == before
    assert folder.store.names("records") == []


def test_few_records_on_a_disk_stay_as_they_are(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "COMPACT_FROM", COUNT + 1)
    assert not folder.ledger.compact(range(COUNT))
    assert folder.ledger.file() is None


def test_completeness_is_seen_without_reading(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder.ledger.complete(range(COUNT))
    assert not folder.ledger.complete(range(COUNT + 1))
    folder.ledger.compact(range(COUNT))
    do(folder, 3, "xyz")
    assert folder.ledger.complete(range(COUNT))
    assert not folder.ledger.complete(range(COUNT + 1))
    assert folder.ledger.complete([])


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"records": 3}', b"\xff", b'{"file": "../records-0.parquet"}'])
def test_a_switch_that_cannot_be_read_is_no_empty_folder(folder: Folder, garbage: bytes) -> None:
    folder.ledger.compact(range(COUNT))
    folder.store.write("records.json", garbage)
    with pytest.raises(ConfigError, match=r"records\.json: not readable"):
        folder.states(DIGESTS)


def test_a_parquet_that_is_gone_is_told(folder: Folder) -> None:
    folder.ledger.compact(range(COUNT))
    name = json.loads(folder.store.read("records.json"))["file"]
    folder.store.delete(name)
    with pytest.raises(ConfigError, match=f"{name}: named by records.json but gone"):
        folder.states(DIGESTS)


def test_a_parquet_that_was_changed_is_told(folder: Folder) -> None:
    folder.ledger.compact(range(COUNT))
    path = folder.store.local(json.loads(folder.store.read("records.json"))["file"])
    pl.read_parquet(path, glob=False).with_columns(status=pl.lit("done")).write_parquet(path)
    for read in (lambda: folder.states(DIGESTS), folder.records, lambda: folder.record(3)):
        with pytest.raises(ConfigError, match=f"{path.name}: damaged, .* or delete records.json"):
            read()


def test_what_was_compacted_shows_what_became_stale(folder: Folder) -> None:
    """Of many shards the state is found by a join; it says what is found one by one."""
    maps = Folder(folder.work, "it", "reconstructions", {"stage": "reconstructions"}, {"captions": folder})
    for shard in range(COUNT):
        output = Output(name=f"{shard:05d}-map.tar", bytes=3, sha256=f"{shard:064x}")
        maps.store.write(output.name, b"map")
        maps.commit(
            shard_record(maps, shard, maps.inputs(DIGESTS[shard], {"captions": folder.record(shard)}), output=output)
        )
    assert {str(state) for state in maps.states(DIGESTS).values()} == {"done"}
    assert folder.ledger.compact(range(COUNT)) and maps.ledger.compact(range(COUNT))
    assert {str(state) for state in maps.states(DIGESTS).values()} == {"done"}
    assert (
        len(maps._surely_done(pl.DataFrame({"shard": list(DIGESTS), "digest": list(DIGESTS.values())}, TABLE))) == COUNT
    )
    do(folder, 3, "xyz")  # its captions changed
    maps.store.delete("00005-map.tar")
    maps.commit(shard_record(maps, 6, {"index": "x"}, status="failed", error="disk", output=None))
    changed = DIGESTS | {8: "more rows"}
    many, one_by_one = maps.states(changed), {s: maps.states({s: digest})[s] for s, digest in changed.items()}
    assert many == one_by_one
    assert {shard: state.kind for shard, state in many.items() if state.kind != "done"} == dict.fromkeys(
        (3, 5, 6, 8), "stale"
    )
    assert list(many) == list(changed)
