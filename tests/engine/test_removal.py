"""`sare rm`: what it removes, what it refuses, and what a kill in the middle leaves."""

import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sare_core.engine import ledger
from sare_core.engine.audit import folders
from sare_core.engine.checkpoints import Checkpoint
from sare_core.engine.claims import Claims
from sare_core.engine.folders import Folder, Output
from sare_core.engine.removal import find, made_from, remove
from sare_core.errors import ConfigError, StageError
from sare_core.store.storage import Store
from stages.app import app
from tests.builders import shard_record
from tests.engine.test_ledger import another_process

DIGESTS = {0: "rows", 1: "rows", 2: "rows"}


def made(work: str, dataset: str, stage: str, upstream: Folder | None = None, **made_by: Any) -> Folder:
    """A folder of three shards; the first two records are gathered in a parquet."""
    before = {upstream.stage: upstream} if upstream else {}
    folder = Folder(work, dataset, stage, {"stage": stage, **made_by}, before)
    folder.describe(preset="mini", splits=["test"])
    for shard in DIGESTS:
        output = Output(name=f"{shard:05d}-0123456789ab.tar", bytes=3, sha256="5" * 64)
        folder.store.write(output.name, b"abc")
        inputs = folder.inputs("rows", {role: each.record(shard) for role, each in before.items()})
        folder.commit(shard_record(folder, shard, inputs, output=output))
        if shard == 1:
            folder.ledger.compact(DIGESTS)
    folder.store.write("metrics.csv", b"1")
    return folder


@pytest.fixture(params=["", "memory://"])
def work(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ledger, "COMPACT_FROM", 1)
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    return f"{request.param}{tmp_path}/work"


@pytest.fixture
def chain(work: str) -> list[Folder]:
    """Captions, two kinds of reconstructions, a detector of the first, and another dataset's predictions by it."""
    captions = made(work, "it", "captions")
    maps, other = (made(work, "it", "reconstructions", captions, strength=strength) for strength in (0.5, 0.7))
    detector = Folder(work, "it", "detectors", {"stage": "detectors"}, {"reconstructions": maps})
    detector.describe()
    facts: dict[str, Any] = {"step": 1, "epoch": 1, "finished": True, "history": [], "about": {}}
    for name in ("last", "best"):
        file = f"{name}-0123456789ab.safetensors"
        detector.store.write(file, b"w")
        text = Checkpoint(file=file, sha256="d" * 64, **facts).model_dump_json()
        detector.store.write(f"{name}.json", text.encode())
    detector.store.write("sare/events.out.tfevents.1", b"curve")
    far = made(work, "far", "predictions", made(work, "far", "reconstructions"), checkpoint="d" * 16)
    return [captions, maps, other, detector, far]


def sare(*arguments: str, answer: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(app, ["rm", *arguments], input=answer)
    if isinstance(result.exception, ConfigError | StageError):
        return 2 if isinstance(result.exception, ConfigError) else 1, str(result.exception)
    return result.exit_code, result.output


def left(work: str) -> set[tuple[str, str]]:
    broken: list[str] = []
    found = {(folder.dataset, folder.fingerprint) for folder in folders(work, broken=broken)}
    assert broken == []
    return found


def names(*some: Folder) -> set[tuple[str, str]]:
    return {(folder.dataset, folder.fingerprint) for folder in some}


def test_a_folder_goes_and_nothing_else(work: str, chain: list[Folder]) -> None:
    other, before = chain[2], Store(work).sizes()
    code, said = sare(other.fingerprint, "--work", work, answer="y\n")
    assert code == 0
    assert f"{other.store.url}\n  reconstructions of it, preset mini, last run 20" in said
    assert "Remove this folder? [y/N]" in said
    assert "; 8 files, 0.0 MB" in said
    assert other.store.names() == other.store.folders() == []
    assert other.fingerprint not in Store(work).folders("it/reconstructions")
    assert Store(work).sizes().keys() == {path for path in before if other.fingerprint not in path}


def test_it_asks_first(work: str, chain: list[Folder]) -> None:
    for answer in ("n\n", "\n", ""):
        code, _ = sare(chain[2].fingerprint, "--work", work, answer=answer)
        assert code == 1
    assert names(*chain) < left(work)


def test_a_path_names_a_folder_without_work(work: str, chain: list[Folder], monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = sare(chain[2].store.url + "/", "--yes")
    assert (code, said.splitlines()[-1]) == (0, "removed: 1 folder")
    if Store(work).on_disk:
        monkeypatch.chdir(f"{work}/far")
        assert sare(f"predictions/{chain[4].fingerprint}", "--yes")[0] == 0
        assert names(chain[4], chain[2]) & left(work) == set()


def test_what_was_made_from_it_is_not_lost_unasked(work: str, chain: list[Folder]) -> None:
    captions, maps, _, detector, far = chain
    before = left(work)
    for folder, hangs_on_it in ((captions, chain[1:]), (maps, [detector, far]), (detector, [far])):
        code, said = sare(folder.fingerprint, "--work", work, "--yes", "-d", "it")
        assert code == 2
        assert "made from what you name. Say --downstream" in said
        assert all(other.store.url in said for other in hangs_on_it)
        assert left(work) == before
    code, said = sare(maps.fingerprint, "--work", work, "--yes", "--downstream", "--dataset", "it")
    assert (code, said.splitlines()[-1]) == (0, "removed: 3 folders")
    assert left(work) == before - names(maps, detector, far)


def test_all_at_once_in_any_order(work: str, chain: list[Folder]) -> None:
    captions, maps, other, detector, far = chain
    asked = [folder.fingerprint for folder in (captions, far, maps, other, detector)]
    code, said = sare(*asked, "--work", work, "--yes")
    assert (code, said.splitlines()[-1]) == (0, "removed: 5 folders")
    assert names(*chain) & left(work) == set()


def test_a_folder_in_use_stays(work: str, chain: list[Folder]) -> None:
    other = chain[2]
    worker = Claims(other.store)
    worker._owner = another_process()
    assert worker.take(1)
    code, said = sare(other.fingerprint, "--work", work, "--yes")
    assert code == 1
    assert f"{other.store.url}: in use by {os.uname().nodename}, process {os.getppid()}. Stop it" in said
    assert len(other.records()) == 3
    worker.free()
    assert sare(other.fingerprint, "--work", work, "--yes")[0] == 0


@pytest.mark.parametrize(
    "asked", ["0123456789ab", "it", "{work}/it", "{work}/it/captions", "{work}/it/captions/x", "/"]
)
def test_nothing_else_can_be_named(work: str, chain: list[Folder], asked: str) -> None:
    before = Store(work).sizes()
    code, said = sare(asked.format(work=work), "--work", work, "--yes")
    assert code == 2
    assert "no folder of a stage in" in said
    assert Store(work).sizes() == before


def test_a_name_in_two_datasets_wants_a_path(work: str, chain: list[Folder]) -> None:
    twin = made(work, "far", "captions")
    assert twin.fingerprint == chain[0].fingerprint
    code, said = sare(twin.fingerprint, "--work", work, "--yes")
    assert code == 2
    assert twin.store.url in said and chain[0].store.url in said
    assert sare(twin.fingerprint, "--work", work, "--yes", "-d", "far")[0] == 0
    assert len(chain[0].records()) == 3


def test_a_link_is_left_to_its_maker(work: str, chain: list[Folder], tmp_path: Path) -> None:
    if not Store(work).on_disk:
        pytest.skip("a link is a disk's")
    place = Path(chain[2].store.url)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    code, said = sare(chain[2].fingerprint, "--work", work, "--yes")
    assert code == 2
    assert "a symbolic link" in said
    assert len(chain[2].records()) == 3


class Killed(BaseException):
    pass


@pytest.mark.parametrize("which", [2, 3])
def test_a_kill_leaves_less_done_and_another_rm_ends_it(
    which: int, work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each removal in turn: what counts as done then is still there whole."""
    chain_of: Callable[[str], list[Folder]] = chain.__wrapped__  # type: ignore[attr-defined]
    for step in count(1):
        here, calls = f"{work}/{step}", 0
        folder = chain_of(here)[which]
        target = find(folder.fingerprint, here)
        for hanging in made_from(target):
            remove(hanging)

        def die(self: Store, *args: Any, real: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:  # noqa: B023
                raise Killed
            return real(self, *args)

        with monkeypatch.context() as patch:
            for name in ("delete", "delete_many", "delete_folder"):
                real = getattr(Store, name)
                patch.setattr(Store, name, lambda self, *args, real=real: die(self, *args, real=real))
            try:
                remove(target)
                assert step > 6
                return
            except Killed:
                folder.store.delete("claims/folder.json")  # of a process that is dead
        states = folder.states(DIGESTS) if which == 2 else {}
        assert all(state.kind in ("done", "open") for state in states.values()), (step, states)
        last, best = (folder.store.exists(f"{name}.json") for name in ("last", "best"))
        assert best or not last, "train would refuse to go on"
        remove(find(folder.fingerprint, here))
        assert folder.store.names() == folder.store.folders() == []


def test_a_stage_that_begins_meanwhile_keeps_its_description(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has described the folder, and waits for its claim; without about.json nobody would know what it makes then."""
    folder, delete = made(work, "it", "captions"), Store.delete_folder

    def begin(store: Store, name: str) -> None:
        delete(store, name)
        if name == "records":
            folder.describe(preset="mini", splits=["test"], note="begun again")

    monkeypatch.setattr(Store, "delete_folder", begin)
    remove(find(folder.fingerprint, work))
    assert folder.store.names() == ["about.json"]
    assert json.loads(folder.store.read("about.json"))["note"] == "begun again"
