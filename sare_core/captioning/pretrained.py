"""Loads a captioning model from a folder, and says what is wrong with the folder and what to do about it."""

import json
from pathlib import Path
from typing import Any

from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError
from sare_core.models.weights import require_whole

_CURE = "Fetch the whole model again, or name another folder in caption.model."


def checked_folder(weights_dir: str | None, captioner: str, model_type: str) -> str:
    """`weights_dir`, if it holds a whole model of `model_type` (as its config.json spells it).

    Weights in safetensors, or pytorch_model.bin: the hub's blip-image-captioning-base has no other.

    Raises ConfigError: no folder given, a file is missing or damaged, config.json is of another type.
    """
    if weights_dir is None:
        raise ConfigError(f"caption.model: captioner {captioner} needs a model; give its folder or hub id.")
    folder = Path(weights_dir)
    for names in (
        ("config.json",),
        ("preprocessor_config.json", "processor_config.json"),
        ("tokenizer.json", "vocab.txt", "tokenizer.model"),
        ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"),
    ):
        if not any((folder / name).is_file() for name in names):
            raise ConfigError(f"{folder}: holds no {' or '.join(names)}. {_CURE}")
    require_whole(folder)
    config = json.loads((folder / "config.json").read_text())
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != model_type:
        raise ConfigError(f"{folder}: a model of type {found!r}, but captioner {captioner} needs {model_type!r}.")
    return str(folder)


def load_model(model_class: Any, folder: str, settings: CaptionSettings, device: str) -> Any:
    """A transformers model of `model_class` in evaluation mode, in the settings' dtype, on `device`.

    A pytorch_model.bin is read as tensors only: one that holds code is refused, not run.
    Raises ConfigError: the weights are damaged, or lack some, which transformers would fill at random.
    """
    import pickle

    import torch
    from safetensors import SafetensorError

    try:
        model, loading = model_class.from_pretrained(
            folder,
            local_files_only=True,
            dtype=getattr(torch, settings.dtype),
            output_loading_info=True,
        )
    except (SafetensorError, pickle.UnpicklingError, OSError, RuntimeError) as error:
        raise ConfigError(f"{folder}: its weights cannot be read ({error}). {_CURE}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ConfigError(f"{folder}: the weights lack {len(missing)} tensors, such as {missing[0]}. {_CURE}")
    return model.to(device).eval()
