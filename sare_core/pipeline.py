"""The method on images in memory, in Python: image → caption → x̂ → SARE map → logit.

    import sare_core

    detector = sare_core.Detector.from_pretrained("work/genimage/detectors/0123456789ab")
    detector("photo.jpg")                        # [{"label": "real", "score": 0.97}, {"label": "fake", "score": 0.03}]
    detector.explain("photo.jpg")                # logit, caption, x̂ and maps

    pipeline = sare_core.Pipeline.from_preset("paper", device="cuda:0")
    captions = pipeline.caption(images)
    mapped = pipeline.reconstruct(images, captions)[0]        # mapped.reconstruction, mapped.sare

The parts are those that the stages work with, so an image gets the score here that `sare evaluate` gives it.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from PIL import Image

from sare_core.captioning.captions import Captions
from sare_core.captioning.captions import weights_of as caption_weights
from sare_core.config import Settings, listed, load_settings
from sare_core.config.stored import changed
from sare_core.detectors import detector_class
from sare_core.detectors.card import is_own_card, model_card
from sare_core.detectors.folder import DetectorFolder, copy_to, open_detector
from sare_core.detectors.parts import maps_to_score, needs_to_score
from sare_core.detectors.trained import TrainedDetector
from sare_core.engine.checkpoints import load_tensors
from sare_core.engine.flow import in_batches
from sare_core.errors import ConfigError
from sare_core.graph import Graph
from sare_core.images.decoding import image_id, to_rgb
from sare_core.images.several import OneImage, decoded, each_of, good, opened
from sare_core.images.views import apply_view
from sare_core.models.device import Device, usable
from sare_core.models.weights import fetch
from sare_core.reconstruction import method_of
from sare_core.reconstruction.mapper import Mapped, Mapper
from sare_core.reconstruction.stage import weights_of as reconstruction_weights
from sare_core.store.storage import Store

Images = OneImage | Sequence[OneImage]
Step = Literal["captioning", "reconstructing", "scoring"]


class Explanation(NamedTuple):
    """What led to a score: the caption, x̂ of (H, W, 3) uint8, each SARE map by its name, likewise, and the logit."""

    logit: float
    caption: str
    reconstruction: np.ndarray | None
    maps: dict[str, np.ndarray]


class Pipeline:
    """Captioner and diffusion model of some settings, loaded when they are first asked.

    settings: see `sare_core.load_settings`. device: as torch names it; None: the first GPU, or the CPU. work: a work
    folder, whose locked commits hub models are taken at; None: the newest.
    Raises ConfigError where the device, or later a model, is not to be found or not usable.
    """

    def __init__(self, settings: Settings, device: Device = None, work: str | None = None) -> None:
        self.settings, self.work, self.device = settings, work, usable(device)
        self._captions: Captions | None = None
        self._mapper: Mapper | None = None

    @classmethod
    def from_preset(cls, preset: str | Path, overrides: str | Iterable[str] = (), device: Device = None) -> "Pipeline":
        """Of a preset or a settings file, with `section.key=value` overrides. Raises ConfigError."""
        return cls(load_settings(str(preset), overrides), device)

    def view(self, image: Image.Image) -> Image.Image:
        """The RGB image as the settings look at it (`view`). Raises ImageError."""
        rgb = to_rgb(image)
        return apply_view(rgb, self.settings.view, image_id(rgb))

    @property
    def needs_captions(self) -> bool:
        """Whether the reconstruction reads captions."""
        return method_of(self.settings.reconstruct).needs_captions

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One caption an image, cut to what the text encoder takes (paper 3.2). Raises ImageError: one has none."""
        images = decoded(images)
        settings = self.settings.caption
        if self._captions is None:
            self._captions = Captions(settings, caption_weights(settings, self.work), self.device)
        found: list[str] = []
        for batch in in_batches(images, settings.batch_size):
            rows = [{"image_id": image_id(image), "path": ""} for image in batch]
            views = each_of(self.view, batch, len(found), len(images))
            said = self._captions.say(self._captions.prepare(views, rows))
            texts = [good(each, place, len(images)) for place, each in enumerate(said, len(found))]
            found += [self._captions.cut(text).text for text in texts]
        return found

    def reconstruct(
        self, images: Sequence[Image.Image], captions: Sequence[str], ids: Sequence[str] | None = None
    ) -> list[Mapped]:
        """x̂ and SARE map of each image under its caption, in order (paper 3.2, equations 1 to 4).

        ids: what seeds each image's noise; None: its pixels, as in the stages.
        Raises ImageError: one cannot be reconstructed; ValueError: not as many captions or ids as images.
        """
        images = decoded(images)
        if len(captions) != len(images):
            raise ValueError(f"{len(images)} images, but {len(captions)} captions")
        if ids is not None and len(ids) != len(images):
            raise ValueError(f"{len(images)} images, but {len(ids)} ids")
        settings = self.settings.reconstruct
        if self._mapper is None:
            weights = reconstruction_weights(settings, self.work)
            self._mapper = Mapper.load(settings, self.settings.seed, fetch(weights["model"]), self.device)
        pixels = [self._mapper.fit(image) for image in each_of(self.view, images)]
        ids = [image_id(image) for image in images] if ids is None else ids
        found: dict[int, Mapped] = {}
        for shape in {each.shape for each in pixels}:
            places = [place for place, each in enumerate(pixels) if each.shape == shape]
            for batch in in_batches(places, settings.batch_size):
                results = self._mapper.maps(
                    [pixels[place] for place in batch],
                    [captions[place] for place in batch],
                    [ids[place] for place in batch],
                )
                found |= {place: good(each, place, len(images)) for place, each in zip(batch, results, strict=True)}
        return [found[place] for place in range(len(images))]


class Detector:
    """A trained detector with all that it needs: its encoders, and for its maps a captioner and a diffusion model.

    Threads may share one; their calls go through the models one after the other.
    """

    def __init__(
        self, folder: DetectorFolder, settings: Settings, device: Device = None, work: str | None = None
    ) -> None:
        self.folder, self.settings = folder, settings
        self.kind = detector_class(settings.detector.detector)
        self._one_at_a_time = Lock()
        graph = Graph(settings, folder.about.dataset or "images", work)
        graph.check(folder)
        self.scoring = graph.predictions(folder.best).fingerprint  # of all that decides a score
        self.pipelines: dict[str, Pipeline] = {}
        for name, changes in maps_to_score(self.kind).items():
            self.pipelines[name] = Pipeline(changed(settings, changes), device, work)
        first = next(iter(self.pipelines.values()), None)
        for other in self.pipelines.values():
            if first is not None and other.settings.reconstruct == first.settings.reconstruct:
                other.reconstruct = first.reconstruct  # type: ignore[method-assign]  # one diffusion model for all
        self._looks = first or Pipeline(settings, device, work)
        self.scorer = TrainedDetector(
            settings.detector,
            {role: fetch(weights) for role, weights in graph.encoders.items()},
            load_tensors(folder.store, folder.best),
            self._looks.device,
            settings.evaluate.dtype,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        device: Device = None,
        work: str | os.PathLike[str] | None = None,
        view: str | None = None,
        overrides: str | Iterable[str] = (),
    ) -> "Detector":
        """A detector from its folder, at any path or URL; or by its fingerprint, from the work folder `work`.

        device: as torch names it; None: the first GPU, or the CPU. view: how images are viewed before all else, e.g.
        jpeg:70; None: as in training. overrides: one or several `section.key=value` of what does not make another
        detector, such as the place of a model: reconstruct.model=/models/sd.
        Raises ConfigError: no trained detector there, a model that it names is not to be found or another one, no such
        device here.
        """
        work = None if work is None else os.fspath(work)
        folder = open_detector(_named(path), work or "work")
        settings = folder.settings(listed(overrides))
        return cls(folder, changed(settings, {"view": view}) if view else settings, device, work)

    def __call__(self, images: Images, top_k: int | None = None) -> list[Any]:
        """What one image is, or a list of that for a list: images of Pillow, paths or URLs. A list is one pass.

        As transformers' image-classification pipeline has it: [{"label": "fake", "score": 0.8}, {"label": "real", …}],
        the label with the higher score first. Scores are those of their labels, in [0, 1], and sum to 1: the sigmoid of
        the logit is the score of "fake". How sure one can be of a label is another matter, and takes calibration.
        top_k: so many of both labels at most, from 1; None: both.
        Raises ImageError: one cannot be worked on, with its place in a list; ConfigError: top_k is no such number.
        """
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ConfigError(f"top_k={top_k!r}: give 1 or 2, or leave it out.")
        found: Any = self.explain(images)
        if isinstance(found, Explanation):
            return _labelled(found.logit)[:top_k]
        return [_labelled(each.logit)[:top_k] for each in found]

    @overload  # a string is a sequence of strings, too, but comes first
    def explain(self, images: OneImage, *, tell: Callable[[Step], object] = ...) -> Explanation: ...  # type: ignore[overload-overlap]
    @overload
    def explain(
        self, images: Sequence[OneImage], ids: Sequence[str] | None = None, tell: Callable[[Step], object] = ...
    ) -> list[Explanation]: ...
    def explain(
        self,
        images: Images,
        ids: Sequence[str] | None = None,
        tell: Callable[[Step], object] = lambda step: None,
    ) -> Explanation | list[Explanation]:
        """What leads to an image's score; of a list, in order. Raises ImageError: one cannot be worked on.

        images: of Pillow, paths or URLs. ids: of a list, see `Pipeline.reconstruct`; another id is another draw of the
        noise. tell: is told what begins.
        """
        one = isinstance(images, Image.Image | str | os.PathLike)
        given: Any = [images] if one else images
        several = decoded(each_of(opened, list(given)))
        with self._one_at_a_time:
            found = self._explain(several, ids, tell)
        return found[0] if one else found

    def _explain(
        self, images: Sequence[Image.Image], ids: Sequence[str] | None, tell: Callable[[Step], object]
    ) -> list[Explanation]:
        captions, mapped = [""] * len(images), dict[str, list[Mapped]]()
        for place, (name, pipeline) in enumerate(self.pipelines.items()):
            said = [""] * len(images)  # as the stages do
            if pipeline.needs_captions:
                tell("captioning")
                said = pipeline.caption(images)
            captions = said if place == 0 else captions
            tell("reconstructing")
            mapped[name] = pipeline.reconstruct(images, said, ids)
        tell("scoring")
        samples = []
        for place, image in enumerate(each_of(self._looks.view, images)):
            parts: dict[str, Any] = {"image": image, "caption": captions[place]}
            for name, maps in mapped.items():
                parts.setdefault("reconstruction", Image.fromarray(maps[place].reconstruction))
                parts[name] = Image.fromarray(maps[place].sare)
            samples.append(self.scorer.prepare({k: v for k, v in parts.items() if k in self._wanted}))
        logits: list[float] = []
        for batch in in_batches(samples, self.settings.evaluate.batch_size):
            logits += self.scorer.logits(list(batch)).tolist()
        return [
            Explanation(
                logit,
                captions[place],
                next((maps[place].reconstruction for maps in mapped.values()), None),
                {name: maps[place].sare for name, maps in mapped.items()},
            )
            for place, logit in enumerate(logits)
        ]

    def save_pretrained(self, folder: str | os.PathLike[str], name: str | None = None) -> None:
        """The detector as a folder that `from_pretrained` takes: settings, weights, calibrations, and a model card.

        folder: path or URL, made if it is not there. name: by which the card calls it; None: the folder's.
        Models of the encoders, the captioner and diffusion are named there, not copied. A README.md that is not a card
        as sare wrote it is kept, with a warning. Raises ConfigError: nothing can be written.
        """
        store = Store(_named(folder))
        copy_to(self.folder, store)
        if store.exists("README.md") and not is_own_card(store.read("README.md")):
            _warn_kept(store.path("README.md"))
            return
        place = store.url if "://" in store.url else str(Path(store.url).resolve())
        store.write("README.md", model_card(self.folder, self.scoring, name or place.rpartition("/")[2]).encode())

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, api: Any = None) -> str:
        """Put what `save_pretrained` writes onto the model hub as owner/name; returns the commit's address.

        private: see `huggingface_hub.create_repo`. api: a `huggingface_hub.HfApi`; None: the usual one, with the token
        that `hf auth login` stored. A README.md there that is not a card as sare wrote it is kept, with a warning.
        Raises whatever the hub's client raises.
        """
        from huggingface_hub import HfApi

        hub = api or HfApi()
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id)
            hub.create_repo(repo_id, private=private, exist_ok=True)
            if hub.file_exists(repo_id, "README.md"):
                there = Path(hub.hf_hub_download(repo_id, "README.md"))
                if not is_own_card(there.read_bytes()):
                    _warn_kept(f"{repo_id}: README.md")
                    Path(folder, "README.md").unlink()
            commit = hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a sare detector")
        return str(commit.commit_url)

    @property
    def _wanted(self) -> set[str]:
        needs = needs_to_score(self.kind)
        return set(needs - {"sare"}) | (set(maps_to_score(self.kind)) if "sare" in needs else set())


def _named(folder: str | os.PathLike[str]) -> str:
    if not (path := os.fspath(folder)):
        raise ConfigError("the name of the folder is empty. For the current folder say `.`.")
    return path


def _warn_kept(readme: str) -> None:
    told = f"{readme}: is not a model card as sare wrote it, and is kept. For the card, remove or rename it first."
    warnings.warn(told, stacklevel=3)


def _labelled(logit: float) -> list[dict[str, Any]]:
    score = 1 / (1 + float(np.exp(-logit)))
    both: list[dict[str, Any]] = [{"label": "real", "score": 1 - score}, {"label": "fake", "score": score}]
    return sorted(both, key=lambda each: each["score"], reverse=True)
