from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from sare_core.errors import ConfigError
from sare_core.storage import sha256_file
from sare_core.weights import fetch, resolve

FILES = {"config.json": "{}", "unet/model.safetensors": "weights"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    resolve.cache_clear()
    yield
    resolve.cache_clear()


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the model hub, with the hub itself out of reach."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def cached_model(cache: Path, *files: str, ref: str = "main") -> Path:
    """owner/name at one commit, laid out as the hub's own client does."""
    snapshot = cache / "models--owner--name" / "snapshots" / COMMIT
    for file in files:
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / file).write_text(file)
    (cache / "models--owner--name" / "refs").mkdir()
    (cache / "models--owner--name" / "refs" / ref).write_text(COMMIT)
    return snapshot


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    place = folder(tmp_path / "model", FILES)
    weights = resolve(str(place))
    assert (weights.model, weights.folder, weights.on_hub) == (str(place), str(place), False)
    assert weights.digest.startswith("sha256:")
    assert weights.revision == weights.digest[: len("sha256:") + 12]
    assert fetch(weights) == str(place)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("config.json", True),
        ("unet/model.safetensors", True),
        ("vae/model.safetensors", True),  # a new file counts as a changed one does
        ("merges.txt", True),
        ("model.bin", True),
        ("README.md", False),
        ("safety_checker/model.safetensors", False),
    ],
)
def test_which_files_of_a_folder_count(tmp_path: Path, name: str, counts: bool) -> None:
    before = resolve(str(folder(tmp_path / "a", FILES))).digest
    after = resolve(str(folder(tmp_path / "b", FILES | {name: "other"}))).digest
    assert (before != after) == counts


def test_a_file_that_moves_within_the_folder_counts(tmp_path: Path) -> None:
    one = resolve(str(folder(tmp_path / "a", {"unet/model.safetensors": "weights"})))
    two = resolve(str(folder(tmp_path / "b", {"vae/model.safetensors": "weights"})))
    assert one.digest != two.digest


@pytest.mark.parametrize("model", ["models/no/such", "/no/such", "./gone", "captioner"])
def test_no_such_folder(model: str) -> None:
    with pytest.raises(ConfigError, match=r"no such model folder. Give a folder or a hub id") as error:
        resolve(model)
    assert model in str(error.value)


@pytest.mark.parametrize("model", ["owner/name", "owner/na..me"])
def test_a_hub_model_that_is_out_of_reach(hub_cache: Path, model: str) -> None:
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE") as error:
        resolve(model)
    assert str(error.value).startswith(f"{model}: no such folder, and unavailable from the model hub")


def test_a_hub_model_stands_for_its_commit(hub_cache: Path) -> None:
    snapshot = cached_model(hub_cache, "config.json", "model.safetensors")
    weights = resolve("owner/name")
    assert (weights.digest, weights.on_hub) == (f"commit:{COMMIT}", True)
    assert weights.revision == f"commit:{COMMIT[:12]}"
    assert Path(weights.folder) == Path(fetch(weights)) == snapshot


@pytest.mark.parametrize(("file", "asks_for_pickles"), [("model.safetensors", False), ("pytorch_model.bin", True)])
def test_pickles_are_fetched_only_where_there_is_nothing_else(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch, file: str, asks_for_pickles: bool
) -> None:
    snapshot, asked = cached_model(hub_cache, "config.json", file), list[str]()
    download = huggingface_hub.snapshot_download

    def noting(model: str, allow_patterns: list[str], **others: Any) -> str:
        asked.extend(allow_patterns)
        return download(model, allow_patterns=allow_patterns, **others)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", noting)
    assert Path(fetch(resolve("owner/name"))) == snapshot
    assert "*.safetensors" in asked
    assert ("*.bin" in asked) == asks_for_pickles


def test_a_named_revision(hub_cache: Path) -> None:
    cached_model(hub_cache, "config.json", ref="v2")
    assert resolve("owner/name", "v2").digest == f"commit:{COMMIT}"
    with pytest.raises(ConfigError, match="owner/name"):
        resolve("owner/name", "v3")


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
