import json
from pathlib import Path
from typing import Any

import pytest

from sare_core.engine.folders import Failure, Folder, Output
from sare_core.errors import ConfigError
from tests.builders import shard_record

DIGESTS = {0: "rows-of-0", 1: "rows-of-1"}


@pytest.fixture
def captions(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path), "it", "captions", {"stage": "captions", "version": 1}, None)


@pytest.fixture
def maps(tmp_path: Path, captions: Folder) -> Folder:
    return Folder(
        str(tmp_path), "it", "reconstructions", {"stage": "reconstructions", "é": "ü"}, {"captions": captions}
    )


def do(folder: Folder, shard: int, content: str = "abc", **changes: Any) -> None:
    """What a stage leaves when it has done a shard."""
    before = {role: each.record(shard) for role, each in folder.upstream.items()}
    output = Output(name=f"{shard:05d}-{content}.tar", bytes=3, sha256=content * 20)
    folder.store.write(output.name, content.encode())
    changes = {"output": output} | changes
    folder.commit(shard_record(folder, shard, folder.inputs(DIGESTS[shard], before), **changes))


def states(folder: Folder, digests: dict[int, str] = DIGESTS) -> list[str]:
    return [str(state) for state in folder.states(digests).values()]


def test_shards_go_from_open_to_done(captions: Folder, maps: Folder) -> None:
    assert states(captions) == ["open", "open"]
    assert states(maps) == ["open (waits for captions)"] * 2
    do(captions, 0)
    assert states(captions) == ["done", "open"]
    assert states(maps) == ["open", "open (waits for captions)"]
    do(maps, 0)
    assert states(maps) == ["done", "open (waits for captions)"]
    assert maps.states({1: "rows-of-1"}).keys() == {1}


def test_a_folder_opens_before_those_that_it_is_made_from_are_there(maps: Folder) -> None:
    maps.describe()
    opened = Folder.open(maps.work, "it", "reconstructions", maps.fingerprint)
    assert states(opened) == ["open (waits for captions)"] * 2
    assert opened.upstream["captions"].store.url == maps.upstream["captions"].store.url


def test_changed_rows_make_a_shard_stale(captions: Folder, maps: Folder) -> None:
    for folder in (captions, maps):
        do(folder, 0)
        do(folder, 1)
    new = DIGESTS | {1: "more-rows-of-1"}
    assert states(captions, new) == ["done", "stale (rows of the index changed (rows-of- → more-row))"]
    assert states(maps, new)[0] == "done"
    assert maps.states(new)[1].kind == "stale"


def test_changed_captions_make_a_shard_stale(captions: Folder, maps: Folder) -> None:
    do(captions, 0)
    do(maps, 0)
    do(captions, 0, "xyz")
    assert states(captions)[0] == "done"
    assert states(maps)[0] == "stale (captions changed (abcabcab → xyzxyzxy))"
    do(maps, 0)
    assert states(maps)[0] == "done"


def test_captions_that_went_away_make_a_shard_stale(captions: Folder, maps: Folder) -> None:
    do(captions, 0)
    do(maps, 0)
    captions.store.delete("00000-abc.tar")
    assert states(captions)[0] == "stale (its output is gone)"
    assert states(maps)[0] == "stale (waits for captions)"
    captions.store.delete("records/00000.json")
    assert maps.states(DIGESTS)[0].kind == "stale"


def test_a_failed_shard_says_why(captions: Folder, maps: Folder) -> None:
    do(captions, 0)
    do(maps, 0, status="failed", error="9 of 10 images failed", output=None)
    assert states(maps)[0] == "failed (9 of 10 images failed)"
    do(captions, 0, status="failed", error="disk", output=None)
    assert states(maps)[0].startswith("stale (captions changed (abcabcab → none)")


def test_a_record_without_its_output(captions: Folder) -> None:
    do(captions, 0)
    captions.store.delete("00000-abc.tar")
    assert states(captions)[0] == "stale (its output is gone)"


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_cut_record_counts_as_none_and_is_told(captions: Folder, part: float) -> None:
    do(captions, 0)
    do(captions, 1)
    path = captions.store.local("records/00000.json")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    assert states(captions) == ["stale (its record cannot be read)", "done"]
    assert captions.records().keys() == {1}
    with pytest.raises(ConfigError, match=r"records/00000\.json: not a whole record; delete it") as error:
        captions.record(0)
    assert captions.store.url in str(error.value)


@pytest.mark.parametrize("garbage", [b"\xff\xfe\x00", b"\x00" * 50, b"[]", b"{}"])
def test_a_record_that_is_none(captions: Folder, garbage: bytes) -> None:
    captions.store.write("records/00000.json", garbage)
    assert states(captions)[0] == "stale (its record cannot be read)"


def test_a_folder_keeps_the_names_of_its_runs(captions: Folder) -> None:
    assert captions.describe(preset="presets/mini.yaml") == "mini", "a run without a name has the preset's"
    assert captions.runs() == ["mini"]
    assert captions.describe("a", preset="mini") == "a"
    assert captions.describe("b", preset="mini") == "b"
    assert captions.describe(preset="mini") == "b", "the same command without a name keeps it"
    assert captions.describe("a", preset="mini") == "a"
    assert captions.runs() == ["b", "a"]
    before = captions.fingerprint
    assert Folder.open(captions.work, captions.dataset, captions.stage, before).runs() == ["b", "a"]
    captions.store.write("about.json", b"{")
    assert captions.describe(preset="mini") == "mini", "a broken description is written anew"


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "../up", "x" * 41, "a\nb", "[red]"])
def test_names_that_would_break_a_table_are_refused(captions: Folder, name: str) -> None:
    with pytest.raises(ConfigError, match="--run"):
        captions.describe(name, preset="mini")


def test_a_record_of_fields_that_are_not_known(captions: Folder) -> None:
    do(captions, 0)
    record = json.loads(captions.store.read("records/00000.json"))
    captions.store.write("records/00000.json", json.dumps(record | {"more": 1}).encode())
    with pytest.raises(ConfigError, match="not a whole record"):
        captions.record(0)


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": 1e300},
        {"inputs": {}},
        {"inputs": {"index": "two words"}},
        {"format": 99},
        {"images": -1},
        {"images": 10**30},
        {"shard": -1},
        {"output": {"name": "../00000-abc.tar", "bytes": 3, "sha256": "abc"}},
        {"output": {"name": "/00000-abc.tar", "bytes": 3, "sha256": "abc"}},
        {"output": {"name": "00000-abc.tar/../../victim.tar", "bytes": 3, "sha256": "abc"}},
        {"output": {"name": "00001-abc.tar", "bytes": 3, "sha256": "abc"}},  # another shard's
        {"output": {"name": "about.json", "bytes": 3, "sha256": "abc"}},
    ],
)
def test_a_record_that_says_what_it_may_not(captions: Folder, changes: dict[str, Any]) -> None:
    do(captions, 0)
    record = json.loads(captions.store.read("records/00000.json"))
    captions.store.write("records/00000.json", json.dumps(record | changes).encode())
    assert states(captions)[0] == "stale (its record cannot be read)"
    assert captions.records() == {}
    with pytest.raises(ConfigError, match=r"records/00000\.json: not a whole record; delete it"):
        captions.record(0)


@pytest.mark.parametrize(
    "changes",
    [
        {"preset": 7},
        {"train_subsets": 5},
        {"splits": "test"},
        {"made_by": []},
        {"upstream": {"dataset": "../other", "stage": "captions", "name": "0" * 12}},
        {"upstream": {"dataset": "it", "stage": "../captions", "name": "0" * 12}},
        {"upstream": {"dataset": "it", "stage": "captions", "name": "../../captions"}},
        {"upstream": {"dataset": "it", "stage": "predictions", "name": "0" * 12}},
    ],
)
def test_a_description_that_says_what_it_may_not(
    maps: Folder, captions: Folder, tmp_path: Path, changes: dict[str, Any]
) -> None:
    captions.describe()
    maps.describe()
    maps.store.write("about.json", json.dumps(json.loads(maps.store.read("about.json")) | changes).encode())
    with pytest.raises(ConfigError, match=r"about\.json: missing or unreadable; run the stage again"):
        Folder.open(str(tmp_path), "it", "reconstructions", maps.fingerprint)


def test_a_folder_that_is_made_from_itself(maps: Folder, captions: Folder, tmp_path: Path) -> None:
    captions.describe()
    itself = {"dataset": "it", "stage": "captions", "name": captions.fingerprint}
    captions.store.write(
        "about.json", json.dumps(json.loads(captions.store.read("about.json")) | {"upstream": itself}).encode()
    )
    with pytest.raises(ConfigError, match=r"about\.json: missing or unreadable"):
        Folder.open(str(tmp_path), "it", "captions", captions.fingerprint)


def test_other_files_are_no_records(captions: Folder) -> None:
    do(captions, 0)
    for name in (".00001.json.host.7.tmp", "notes.json", "00001"):
        captions.store.write(f"records/{name}", b"?")
    assert captions.records().keys() == {0}
    assert states(captions) == ["done", "open"]


def test_what_is_committed_is_read(captions: Folder) -> None:
    failures = [Failure(image_id="1" * 20, path="été/1.png", reason='not "an image"')]
    record = shard_record(captions, 3, {"index": "x"}, failures=failures, ok=1)
    captions.commit(record)
    assert captions.record(3) == record
    assert captions.record(4) is None
    assert captions.store.names("records") == ["00003.json"]


def test_a_folder_is_opened_from_its_description(maps: Folder, captions: Folder, tmp_path: Path) -> None:
    captions.describe(preset="mini")
    maps.describe(preset="mini", shards=2)
    do(captions, 0)
    opened = Folder.open(str(tmp_path), "it", "reconstructions", maps.fingerprint)
    assert opened.made_by == maps.made_by
    assert json.loads(opened.store.read("about.json"))["shards"] == 2
    assert opened.upstream["captions"].store.url == captions.store.url
    assert states(opened) == states(maps)


def test_a_description_that_is_not_the_folders(maps: Folder, captions: Folder, tmp_path: Path) -> None:
    captions.describe()
    maps.describe()
    about = json.loads(maps.store.read("about.json"))
    maps.store.write("about.json", json.dumps(about | {"made_by": {"stage": "other"}}).encode())
    with pytest.raises(ConfigError, match="does not describe this folder"):
        Folder.open(str(tmp_path), "it", "reconstructions", maps.fingerprint)


def test_a_description_cut_anywhere(maps: Folder, captions: Folder, tmp_path: Path) -> None:
    captions.describe()
    maps.describe()
    whole = maps.store.read("about.json")
    assert whole.decode() != whole.decode("latin-1")  # a cut can fall into a character
    for end in range(len(whole)):
        maps.store.local("about.json").write_bytes(whole[:end])
        with pytest.raises(ConfigError, match=r"about\.json: missing or unreadable; run the stage again"):
            Folder.open(str(tmp_path), "it", "reconstructions", maps.fingerprint)
    maps.store.delete("about.json")
    with pytest.raises(ConfigError, match="missing or unreadable"):
        Folder.open(str(tmp_path), "it", "reconstructions", maps.fingerprint)
