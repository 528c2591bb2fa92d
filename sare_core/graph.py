"""The one declaration of the pipeline: which folder each stage writes, what made it, and what it is made from.

    captions ─► reconstructions ─► detectors ─► predictions

Run, status, retry, submit, plan, study and report all ask here; nobody else derives a folder's name.
"""

from functools import cached_property
from typing import Any

from sare_core.captioning import stage as captioning
from sare_core.config import Settings
from sare_core.detectors import code_version, detector_class
from sare_core.engine.checkpoints import Checkpoint, digest_of, read_checkpoint
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.selection import chosen_shards
from sare_core.errors import ConfigError
from sare_core.models.weights import Weights, resolve
from sare_core.reconstruction import method_of
from sare_core.reconstruction import stage as reconstruction

ALL_SPLITS = ("train", "val", "test")
DETECTORS, DETECTORS_VERSION = "detectors", 1  # raise a version when the same settings come to give other weights
PREDICTIONS, PREDICTIONS_VERSION = "predictions", 1  # … when the same checkpoint comes to give other logits


class Graph:
    """The folders of a dataset under some settings. Raises ConfigError where a model is unavailable."""

    def __init__(self, settings: Settings, dataset: str, work: str) -> None:
        self.settings, self.dataset, self.work = settings, dataset, work

    @cached_property
    def captions(self) -> Folder:
        """View, caption settings and weights decide, nothing else."""
        caption = self.settings.caption
        made_by = {
            "stage": captioning.NAME,
            "version": captioning.VERSION,
            "view": self.settings.view,
            "settings": caption.fingerprint_fields(),
            "weights": digests(captioning.weights_of(caption, self.work)),
        }
        return Folder(self.work, self.dataset, captioning.NAME, made_by, upstream=None)

    @cached_property
    def reconstructions(self) -> Folder:
        """Their settings, weights and seed, and the captions' folder where the method reads captions."""
        reconstruct = self.settings.reconstruct
        method = method_of(reconstruct)
        captions = self.captions if method.needs_captions else None
        made_by = {
            "stage": reconstruction.NAME,
            "version": reconstruction.VERSION,
            "view": self.settings.view,
            "seed": self.settings.seed,
            "settings": method.fingerprint_fields(reconstruct),
            "weights": digests(reconstruction.weights_of(reconstruct, self.work)),
        } | ({"captions": captions.fingerprint} if captions else {})
        return Folder(self.work, self.dataset, reconstruction.NAME, made_by, upstream=captions)

    @cached_property
    def encoders(self) -> dict[str, Weights]:
        """The pretrained encoders that the detector reads, by role."""
        detector = self.settings.detector
        named = {
            "image_encoder": (detector.image_encoder, detector.image_encoder_revision),
            "semantic_encoder": (detector.semantic_encoder, detector.semantic_encoder_revision),
        }
        return {role: resolve(*named[role], self.work) for role in detector_class(detector.detector).encoders}

    @cached_property
    def detector_fields(self) -> dict[str, Any]:
        """What a fingerprint hashes of the detector: its settings, and of an own class its source."""
        code = code_version(self.settings.detector.detector)
        return self.settings.detector.fingerprint_fields() | ({"code": code} if code else {})

    def detectors(self, inputs: list[str]) -> Folder:
        """The folder of a detector: settings, encoders, and the bytes of the shards that it is trained on."""
        made_by = {
            "stage": DETECTORS,
            "version": DETECTORS_VERSION,
            "settings": self.settings.train.fingerprint_fields(),
            "detector": self.detector_fields,
            "weights": digests(self.encoders),
            "reconstructions": self.reconstructions.fingerprint,
            "inputs": digest_of(inputs)[:16],
        }
        return Folder(self.work, self.dataset, DETECTORS, made_by, upstream=self.reconstructions)

    def predictions(self, checkpoint: Checkpoint) -> Folder:
        """The folder of predictions: the checkpoint's bytes, and the reconstructions that they are made from."""
        made_by = {
            "stage": PREDICTIONS,
            "version": PREDICTIONS_VERSION,
            "settings": self.settings.evaluate.fingerprint_fields(),
            "detector": self.detector_fields,
            "weights": digests(self.encoders),
            "checkpoint": checkpoint.sha256[:16],
            "reconstructions": self.reconstructions.fingerprint,
        }
        return Folder(self.work, self.dataset, PREDICTIONS, made_by, upstream=self.reconstructions)

    def caption(self, index: Index) -> captioning.CaptionStage:
        return captioning.CaptionStage(self.settings.caption, self.settings.view, index, self.captions)

    def reconstruct(self, index: Index) -> reconstruction.ReconstructStage:
        settings = self.settings
        return reconstruction.ReconstructStage(
            settings.reconstruct, settings.view, settings.seed, index, self.reconstructions
        )

    def trained_shards(self, index: Index) -> tuple[list[int], list[int]]:
        """The shards that a detector is trained on, and those held out."""
        train, val = (chosen_shards(index, [split], self.settings.train_subsets, None) for split in ("train", "val"))
        return train, val

    def training_data(self, index: Index) -> tuple[Any, Any]:
        """The training images, and those held out. Raises StageError: not reconstructed; ConfigError: of one class."""
        from sare_core.training.samples import Pairs

        settings, dataset = self.settings, index.about["dataset"]
        trained = set(index.select(["train", "val"])["subset"])
        if odd := sorted(set(settings.train_subsets or ()) - trained) if trained else []:
            raise ConfigError(
                f"train_subsets names {', '.join(odd)}, but the training data of {dataset!r} are of "
                f"{', '.join(sorted(trained))}. Name some of these, or set train_subsets=null to take them all."
            )
        parts = [
            Pairs(self.reconstructions, index, shards, settings.detector, settings.view, augment, settings.train.seed)
            for shards, augment in zip(self.trained_shards(index), (settings.train.augment, None), strict=True)
        ]
        if set(parts[0].labels.tolist()) != {0, 1}:
            raise ConfigError(
                f"{dataset!r} has no training split with both real and fake images "
                f"(subsets: {', '.join(settings.train_subsets or ['all'])}). `sare index` prints what it has. "
                "To score images with a detector of another dataset: sare evaluate --trained-on NAME."
            )
        return parts[0], parts[1]

    def detector_of(self, index: Index) -> Folder:
        """Where the detector for these settings and this index lies, trained or not."""
        train_part, val_part = self.training_data(index)
        return self.detectors(train_part.inputs + val_part.inputs)

    def trained_detector(self, index: Index, preset: str) -> tuple[Folder, Checkpoint]:
        """The detector's folder and its best checkpoint. Raises ConfigError unless it is trained to its end."""
        detector = self.detector_of(index)
        if (best := trained(detector)) is None:
            state = "is trained only in part" if read_checkpoint(detector.store, "last") else "is not trained"
            raise ConfigError(
                f"{detector.store.url}: the detector {state}. Run: sare train --dataset {self.dataset} "
                f"--preset {preset} (with the same --set)."
            )
        return detector, best

    def tested_shards(self, index: Index, wanted: str | None = None) -> list[int]:
        """The shards of the test split, or those that are `wanted` of them. Raises ConfigError: there are none."""
        shards = chosen_shards(index, ["test"], self.settings.train_subsets, wanted)
        if not shards:
            raise ConfigError(f"{index.about['dataset']!r} has no test split. `sare index` prints what it has.")
        return shards


def digests(weights: dict[str, Weights]) -> dict[str, str]:
    return {role: each.digest for role, each in weights.items()}


def trained(folder: Folder) -> Checkpoint | None:
    """The best checkpoint of a detector whose training has come to its end."""
    best, last = read_checkpoint(folder.store, "best"), read_checkpoint(folder.store, "last")
    return best if last is not None and last.finished and best is not None else None
