"""No output is read whose bytes are not those that its record names; none is hashed in each epoch."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sare_core.engine import outputs
from sare_core.engine.outputs import checked_output
from sare_core.errors import StageError
from sare_core.store.storage import Store, sha256_file

NAME = "00003-0123abc.tar"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    path = tmp_path / "folder" / NAME
    path.parent.mkdir()
    path.write_bytes(b"samples" * 1000)
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every path that was hashed."""
    seen: list[Path] = []

    def count(path: Path) -> str:
        seen.append(path)
        return sha256_file(path)

    monkeypatch.setattr(outputs, "sha256_file", count)
    return seen


def replaced(path: Path) -> None:
    """Another file of the same size, with the modification time of the first."""
    status = path.stat()
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


def flipped(path: Path) -> None:
    with path.open("r+b") as data:
        data.seek(2000)
        data.write(b"?")


def turned_into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replaced, "not the bytes that its record names"),
        (flipped, "not the bytes that its record names"),
        (Path.unlink, "gone, though a record names it"),
        (turned_into_a_folder, "cannot be read"),
    ],
)
def test_a_damaged_output_is_told_by_name(file: Path, damage: Callable[[Path], None], message: str, once: bool) -> None:
    store, digest = Store(str(file.parent)), sha256_file(file)
    assert checked_output(store, NAME, digest, once) == file
    damage(file)
    for _ in range(2):
        with pytest.raises(StageError, match=message) as error:
            checked_output(store, NAME, digest, once)
    assert str(error.value).startswith(f"{file}: ")
    assert "`sare verify --reopen` opens its shard again; then run the stage that made it" in str(error.value)


def test_a_file_is_hashed_once_until_something_writes_to_it(file: Path, hashed: list[Path]) -> None:
    store, digest = Store(str(file.parent)), sha256_file(file)
    for _ in range(5):
        checked_output(store, NAME, digest, once=True)
    assert hashed == [file]
    file.write_bytes(file.read_bytes())
    for _ in range(5):
        checked_output(store, NAME, digest, once=True)
    assert hashed == [file, file]
    with pytest.raises(StageError):
        checked_output(store, NAME, "0" * 64, once=True)


def test_of_many_who_ask_at_once_one_hashes(file: Path, hashed: list[Path]) -> None:
    store, digest = Store(str(file.parent)), sha256_file(file)
    threads = [threading.Thread(target=checked_output, args=(store, NAME, digest, True)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hashed == [file]


def test_without_a_spool_each_look_hashes(file: Path, hashed: list[Path], tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    for _ in range(2):
        checked_output(Store(str(file.parent)), NAME, sha256_file(file), once=True)
    assert hashed == [file, file]
    flipped(file)
    with pytest.raises(StageError, match="not the bytes"):
        checked_output(Store(str(file.parent)), NAME, "0" * 64, once=True)


def test_a_copy_of_an_object_stores_file(file: Path) -> None:
    digest = sha256_file(file)
    store, name = Store("memory://outputs-of-a-stage"), f"00003-{digest[:12]}.tar"
    store.write(name, file.read_bytes())
    assert checked_output(store, name, digest).read_bytes() == file.read_bytes()
    with pytest.raises(StageError, match="its record gives another digest than its name"):
        checked_output(store, name, "0" * 64)
    shutil.rmtree(file.parents[1] / "spool")
    store.write(name, b"other bytes")
    with pytest.raises(StageError, match="does not hold what its name says"):
        checked_output(store, name, digest)
