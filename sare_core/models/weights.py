"""Which weights a model's name stands for: a local folder by its bytes, a hub model by its commit."""

import hashlib
import json
import shlex
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sare_core.errors import ConfigError
from sare_core.models.pins import locked_commit
from sare_core.store.storage import sha256_file

_SMALL = ["*.json", "*.txt", "*.model", "*.jinja"]  # configurations and tokenizers
# Copies of the same weights in other formats and precisions, and the safety checker, which is never loaded.
_NEVER = [
    "*.fp16.*",
    "*.non_ema.*",
    "*.msgpack",
    "*.h5",
    "*.ckpt",
    "*.onnx*",
    "safety_checker/*",
    "flax_*",
    "*.gguf",
    "*pruned*",
]
CURE = "Fetch the whole model again, or name another folder."
_HASHED = {".safetensors", ".json", ".txt", ".bin", ".model", ".jinja"}


@dataclass(frozen=True)
class Weights:
    """model: as the setting names it. digest: `sha256:…` of a local folder's files, or `commit:…` of a hub model."""

    model: str
    digest: str
    folder: str  # holds configuration and tokenizer; for a hub model the weights come with `fetch`
    on_hub: bool

    @property
    def revision(self) -> str:
        """Short form for tables: the digest's kind and first digits."""
        kind, _, value = self.digest.partition(":")
        return f"{kind}:{value[:12]}"


@lru_cache
def resolve(model: str, revision: str | None = None, work: str | None = None) -> Weights:
    """What `model` stands for. work: the work folder, whose locked commit a hub model is taken at (models/pins.py);
    None: what the hub has now.

    Raises ConfigError: neither a folder here nor a model of the hub (or its cache).
    """
    folder = Path(model)
    if folder.is_dir():
        return Weights(model, f"sha256:{_folder_digest(folder)}", str(folder), on_hub=False)
    if folder.is_file() and folder.suffix in {".safetensors", ".ckpt"}:
        raise ConfigError(
            f"{model}: a single-file checkpoint, but a folder in diffusers' layout is needed. Convert it once (needs "
            f"the model hub for configurations), then name {folder.with_suffix('')} in its place:\n{_converter(folder)}"
        )
    if not is_hub_id(model):
        raise ConfigError(
            f"{model}: no such model folder. Give a folder or a hub id (owner/name); "
            "`sare mini` unpacks the miniature models under models/mini."
        )
    commit = revision
    if work is not None:
        commit = locked_commit(work, model, revision, lambda: _snapshot(model, revision, _SMALL).name)
    snapshot = _snapshot(model, commit, _SMALL)
    return Weights(model, f"commit:{snapshot.name}", str(snapshot), on_hub=True)


def is_hub_id(model: str) -> bool:
    """Whether a name that is no folder here can be one of the model hub's."""
    return model.count("/") == 1 and not Path(model).is_absolute() and not model.startswith(".")


def _converter(file: Path) -> str:
    source, target = json.dumps(str(file)), json.dumps(str(file.with_suffix("")))
    code = f"from diffusers import StableDiffusionPipeline as P; P.from_single_file({source}).save_pretrained({target})"
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


def fetch(weights: Weights) -> str:
    """The local folder with the weights themselves, downloaded at the resolved commit if need be."""
    hide_loading_bars()
    if not weights.on_hub:
        return weights.folder
    commit = weights.digest.removeprefix("commit:")
    snapshot = _snapshot(weights.model, commit, [*_SMALL, "*.safetensors"])
    if not any(snapshot.rglob("*.safetensors")):  # older models have pickles only; loaders read them weights-only
        snapshot = _snapshot(weights.model, commit, [*_SMALL, "*.bin"])
    return str(snapshot)


def require_whole(folder: str | Path) -> None:
    """Look at each file of a model folder: a loader says badly what is wrong with one, or fills up what is missing.

    Reads all JSON, and of weights the headers, which tell their length. Pickles are not opened.
    Raises ConfigError: a file is cut, empty or of another kind, or an index names weights that are not there.
    """
    from safetensors import SafetensorError, safe_open

    for path in sorted(Path(folder).rglob("*")):
        if "safety_checker" in path.relative_to(folder).parts:
            continue
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):
                    pass
            elif path.suffix == ".json":
                values = json.loads(path.read_text(encoding="utf-8"))
                if path.name.endswith(".safetensors.index.json"):
                    _require_shards(path, values)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise ConfigError(f"{path}: cut or damaged ({str(error)[:200]}). {CURE}") from error


def require_tokenizer(folder: Path) -> None:
    """Raises ConfigError unless the folder holds the words of a CLIP tokenizer."""
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise ConfigError(f"{folder}: holds neither tokenizer.json nor {name}. {CURE}")


def _require_shards(index: Path, values: Any) -> None:
    for name in sorted(set(values["weight_map"].values())):
        if not (index.parent / name).is_file():
            raise ConfigError(f"{index.parent}: holds no {name}, which {index.name} names. {CURE}")


def hide_loading_bars() -> None:
    """A bar for each model's tensors would run through the stage's own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _snapshot(model: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns, ignore_patterns=_NEVER))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {revision}" if revision else ""
        raise ConfigError(
            f"{model}: no such folder, and unavailable from the model hub{at} ({type(error).__name__}). "
            "Check the name and the network (or HF_HUB_OFFLINE), or give a local folder."
        ) from error


def _folder_digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix in _HASHED and path.is_file() and "safety_checker" not in name.parts:
            total.update(f"{name.as_posix()}:{sha256_file(path)}\n".encode())
    return total.hexdigest()
