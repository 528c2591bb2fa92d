"""What `sare` says, and with what exit code, where a command is wrong or a file is not what it should be."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch

from sare_core.config import known_keys
from sare_core.engine.folders import Folder, Output
from sare_core.engine.manifest import read_index, write_index
from sare_core.engine.selection import chosen_shards
from sare_core.engine.shardfiles import TarWriter
from sare_core.errors import ConfigError, StageError
from sare_core.store.storage import sha256_file
from stages import options
from stages.app import app
from tests.builders import index_frame, index_row, shard_record

Sare = Callable[..., tuple[int, str]]
ABOUT = {"root": "/data", "layout": "folder", "shard_size": 2, "holdout": 0.1, "next_shard": 1}


@pytest.fixture
def sare(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sare:
    """`sare("status", "-d", "it")`: its exit code, and all that it printed."""
    monkeypatch.setenv("SARE_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SARE_MANIFESTS", str(tmp_path / "manifests"))
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end, options.exit_codes():
            app(arguments)
        told = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, told.out + told.err

    return run


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Folder]:
    """Captions of two data sets, one shard each; the stage has done them."""
    made = {}
    for name in ("it", "other"):
        rows = [index_row(number, 0, dataset=name) for number in (0, 1)]
        index = write_index(str(tmp_path / "manifests"), name, index_frame(*rows), {"dataset": name, **ABOUT})
        made[name] = folder = Folder(str(tmp_path / "work"), name, "captions", {"stage": "captions"}, None)
        folder.describe(preset="mini")
        writer = TarWriter(tmp_path / "spooled.tar")
        for row in rows:
            writer.write({"__key__": row["image_id"], "json": b"{}"})
        writer.close()
        digest, size = sha256_file(tmp_path / "spooled.tar"), (tmp_path / "spooled.tar").stat().st_size
        output = Output(name=f"00000-{digest[:12]}.tar", bytes=size, sha256=digest)
        folder.store.put(tmp_path / "spooled.tar", output.name)
        folder.commit(shard_record(folder, 0, {"index": index.digests[0]}, output=output))
    return made


@pytest.mark.parametrize("command", ["status", "verify", "gc"])
def test_a_data_set_that_nobody_knows(sare: Sare, folders: dict[str, Folder], tmp_path: Path, command: str) -> None:
    code, told = sare(command, "-d", "nope")
    assert code == 2
    assert f"{tmp_path}/work: has no dataset 'nope'. It has: it, other." in told.replace("\n", " ")
    code, told = sare(command, "-d", "../it")
    assert code == 2
    assert "lower-case letters" in told


@pytest.mark.parametrize("command", ["status", "verify", "gc"])
def test_a_work_folder_that_is_not_there(sare: Sare, folders: dict[str, Folder], tmp_path: Path, command: str) -> None:
    code, told = sare(command, "--work", str(tmp_path / "nowhere"))
    assert code == 2
    assert f"{tmp_path}/nowhere: no such folder" in told
    (tmp_path / "file").touch()
    assert sare(command, "--work", str(tmp_path / "file"))[0] == 2
    assert not (tmp_path / "nowhere").exists()


def test_a_data_set_that_is_indexed_and_no_more(sare: Sare, folders: dict[str, Folder]) -> None:
    shutil.rmtree(Path(folders["other"].store.url).parents[1])
    code, told = sare("status", "-d", "other")
    assert code == 0
    assert "nothing has been computed yet" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--work="),
        ("verify", "--manifests="),
        ("gc", "--delete", "--work="),
        ("caption", "-d", "it", "--work="),
        ("index", "--layout", "folder", "--name", "it", "--root="),
        ("report", "-d", "it", "--out="),
        ("study", "-d", "it", "--out="),
        ("figures", "4", "-d", "it", "--out="),
        ("mini", "--models="),
        ("mini", "--images="),
        ("detect", "x.png", "--detector", "it", "--csv="),
        ("calibrate", "--detector", "it", "--reals="),
    ],
)
def test_an_empty_path_is_refused(sare: Sare, arguments: tuple[str, ...]) -> None:
    code, told = sare(*arguments)
    assert code == 2
    assert "empty" in told


def without_index(manifests: Path) -> None:
    (manifests / "it" / "index.json").unlink()


def with_a_broken_index(manifests: Path) -> None:
    (manifests / "it" / "index.json").write_text("[]")


def with_a_broken_table(manifests: Path) -> None:
    for path in (manifests / "it").glob("shards-*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("damage", [without_index, with_a_broken_index, with_a_broken_table])
@pytest.mark.parametrize("command", ["status", "verify", "gc"])
def test_a_broken_index_hides_no_other_data_set(
    sare: Sare, folders: dict[str, Folder], tmp_path: Path, command: str, damage: Callable[[Path], None]
) -> None:
    for folder in folders.values():
        folder.store.write("00000-0123456789ab.tar", b"left by a kill")
        for path in Path(folder.store.url).rglob("*"):
            os.utime(path, (0, 0))  # gc leaves alone what was written, or could have been named, in the last hour
    damage(tmp_path / "manifests")
    code, told = sare(command)
    assert code == 1
    assert str(tmp_path / "manifests" / "it") in told
    shown = {"status": "\nother", "verify": "1 folders checked", "gc": f"{folders['other'].store.url}/00000-0123"}
    assert shown[command] in told


def test_verify_reads_indexes_back(sare: Sare, folders: dict[str, Folder], tmp_path: Path) -> None:
    """Labels are flipped in one, under the name that it had; outputs of the other one are read back."""
    assert sare("verify") == (0, "2 folders checked: all as recorded\n")
    [path] = (tmp_path / "manifests" / "it").glob("images-*.parquet")
    pl.read_parquet(path).with_columns(label=1 - pl.col("label")).write_parquet(path)
    code, told = sare("verify")
    assert code == 1
    assert f"{path}: its content is not what its name and digests promise" in told
    assert "1 folders checked: 1 integrity errors" in told


@pytest.mark.parametrize("command", ["status", "gc"])
def test_a_broken_checkpoint_hides_no_other_folder(sare: Sare, folders: dict[str, Folder], command: str) -> None:
    work = folders["it"].work
    detector = Folder(work, "it", "detectors", {"stage": "detectors", "settings": {"epochs": 2}}, None)
    detector.describe(preset="mini")
    detector.store.write("last.json", json.dumps({"step": -5}).encode())
    code, told = sare(command)
    assert code == 1
    assert f"{detector.store.url}/last.json: not a whole checkpoint record" in told
    assert "other" in told if command == "status" else "files, " in told


@pytest.mark.parametrize("shards", ["0-999999999999", "0,5-888888888888888888"])
def test_a_range_of_any_length_is_answered_at_once(sare: Sare, folders: dict[str, Folder], shards: str) -> None:
    index = read_index(f"{folders['it'].work}/../manifests", "it")
    with pytest.raises(ConfigError, match=r"'it' has no shard [15] for this stage; it has 0"):
        chosen_shards(index, ["test"], None, shards)
    assert chosen_shards(index, ["test"], None, "0, 0-0") == [0]


def code_of(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int | str | None, str]:
    with pytest.raises(SystemExit) as end, options.exit_codes():
        raise error
    return end.value.code, capsys.readouterr().err


def test_an_error_of_the_machine_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = code_of(OSError(errno.EIO, "Input/output error", "/data/x.tar"), capsys)
    assert code == 1
    assert told == "error: /data/x.tar: Input/output error (errno 5). Fix that and run the same command again.\n"
    assert "ulimit -n" in code_of(OSError(errno.EMFILE, "Too many open files"), capsys)[1]


def test_a_device_without_memory_is_one_line_that_names_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 3 GiB.\nSee more.")
    code, told = code_of(error, capsys)
    assert code == 1
    assert told.startswith("error: CUDA out of memory. Set less at once") and told.count("\n") == 1
    sections = {"caption": "batch_size", "reconstruct": "batch_size", "train": "micro_batch_size"}
    known = known_keys()
    for section, name in (sections | {"evaluate": "batch_size"}).items():
        assert f"{section}.{name}" in told and f"{section}.{name}" in known
    with pytest.raises(RuntimeError, match="another"), options.exit_codes():
        raise RuntimeError("another")


class Broken(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, place: int) -> int:
        raise StageError("WORK/00003-abc.tar: not the bytes that its record names. Do this, then that.")


def test_an_error_of_a_loaders_worker_is_told_without_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, options.exit_codes():
        next(iter(torch.utils.data.DataLoader(Broken(), num_workers=1)))
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert told == "error: WORK/00003-abc.tar: not the bytes that its record names. Do this, then that.\n"
