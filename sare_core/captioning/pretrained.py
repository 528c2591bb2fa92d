"""Captioning models of transformers: loaded from a folder, whose faults are told with the cure, and at work."""

import json
import pickle
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import BatchFeature

from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError
from sare_core.models.memory import Fitting
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


class Generating:
    """A captioner that generates words by greedy or beam search, never sampled.

    text: what the model is given beside each image. answers: it gives that back first, and the caption is the rest.
    options: of `generate`.
    """

    revision = None

    def __init__(
        self,
        name: str,
        settings: CaptionSettings,
        processor: Any,
        model: Any,
        text: str | None,
        answers: bool = False,
        **options: Any,
    ) -> None:
        self.name, self.settings, self.processor, self.model = name, settings, processor, model
        self.text, self.answers, self.options = text, answers, options
        self.fitting = Fitting(
            "captioner", "Set caption.dtype=float16, fewer caption.num_beams, or caption.max_tiles for LLaVA-NeXT."
        )
        # Two threads that use one fast tokenizer may get "Already borrowed" (transformers' issue 47085).
        self.one_at_a_time = Lock()

    def caption(self, images: list[Image.Image], rows: list[dict[str, Any]]) -> list[str | None]:
        """See Captioner. Where the model says nothing, the empty caption."""
        return self.generate(self.prepare(images))

    def prepare(self, images: list[Image.Image]) -> Any:
        """See Preparing."""
        text = [self.text] * len(images) if self.text else None
        with self.one_at_a_time:
            return self.processor(images=images, text=text, padding=True, return_tensors="pt")

    def generate(self, prepared: Any) -> list[str | None]:
        """See Preparing. A batch that does not fit into memory is done in parts."""
        return list(chain.from_iterable(self.fitting(partial(self._generate, list(prepared)), *prepared.values())))

    @torch.inference_mode()
    def _generate(self, names: list[str], *columns: torch.Tensor) -> list[str | None]:
        prepared = BatchFeature(dict(zip(names, columns, strict=True)))
        tokens = self.model.generate(
            **prepared.to(self.model.device, self.model.dtype),  # casts pixels only: token ids stay whole numbers
            max_new_tokens=self.settings.max_new_tokens,
            num_beams=self.settings.num_beams,
            do_sample=False,
            **self.options,
        )
        said = tokens[:, prepared["input_ids"].shape[1] :] if self.answers else tokens
        with self.one_at_a_time:
            return [words.strip() for words in self.processor.batch_decode(said, skip_special_tokens=True)]
