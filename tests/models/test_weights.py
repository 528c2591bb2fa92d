import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diffusers
import huggingface_hub
import pytest

from sare_core.errors import ConfigError
from sare_core.models.weights import fetch, resolve
from sare_core.store.storage import sha256_file
from tests.hub import COMMIT, empty_hub, publish

FILES = {"config.json": "{}", "unet/model.safetensors": "weights"}


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    resolve.cache_clear()
    yield
    resolve.cache_clear()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_hub(tmp_path / "cache", monkeypatch)


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
def test_a_hub_model_that_is_out_of_reach(hub: Path, model: str) -> None:
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE") as error:
        resolve(model)
    assert str(error.value).startswith(f"{model}: no such folder, and unavailable from the model hub")


def test_a_hub_model_stands_for_its_commit(hub: Path) -> None:
    snapshot = publish(hub, "owner/name", {"config.json": "{}", "model.safetensors": "weights"})
    weights = resolve("owner/name")
    assert (weights.digest, weights.on_hub) == (f"commit:{COMMIT}", True)
    assert weights.revision == f"commit:{COMMIT[:12]}"
    assert Path(weights.folder) == Path(fetch(weights)) == snapshot


@pytest.mark.parametrize(("file", "asks_for_pickles"), [("model.safetensors", False), ("pytorch_model.bin", True)])
def test_pickles_are_fetched_only_where_there_is_nothing_else(
    hub: Path, monkeypatch: pytest.MonkeyPatch, file: str, asks_for_pickles: bool
) -> None:
    snapshot, asked = publish(hub, "owner/name", {"config.json": "{}", file: "weights"}), list[str]()
    download = huggingface_hub.snapshot_download

    def noting(model: str, allow_patterns: list[str], **others: Any) -> str:
        asked.extend(allow_patterns)
        return download(model, allow_patterns=allow_patterns, **others)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", noting)
    assert Path(fetch(resolve("owner/name"))) == snapshot
    assert "*.safetensors" in asked
    assert ("*.bin" in asked) == asks_for_pickles


def test_a_named_revision(hub: Path) -> None:
    publish(hub, "owner/name", {"config.json": "{}"}, ref="v2")
    assert resolve("owner/name", "v2").digest == f"commit:{COMMIT}"
    with pytest.raises(ConfigError, match="owner/name"):
        resolve("owner/name", "v3")


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_checkpoint_is_refused_with_the_command_that_converts_it(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"it's v1.5{suffix}"
    file.touch()
    with pytest.raises(ConfigError, match="single-file checkpoint") as error:
        resolve(str(file))
    message, _, command = str(error.value).partition("\n")
    assert f"name {tmp_path}/it's v1.5 in its place" in message
    python, option, code = shlex.split(command)
    assert (python, option) == (sys.executable, "-c")
    with patch.object(diffusers.StableDiffusionPipeline, "from_single_file") as convert:
        exec(code, {})
    convert.assert_called_once_with(str(file))
    convert.return_value.save_pretrained.assert_called_once_with(str(file.with_suffix("")))


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
