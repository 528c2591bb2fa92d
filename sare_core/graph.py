"""The one declaration of the pipeline: which folder each stage writes, what made it, and what it is made from.

    captions ─► reconstructions ─► detectors ─► predictions

Run, status, retry, submit, plan, study and report all ask here; nobody else derives a folder's name.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from sare_core.captioning import captioner_code
from sare_core.captioning import stage as captioning
from sare_core.captioning.captions import weights_of as caption_weights
from sare_core.config import Settings, load_settings, validated
from sare_core.config.stored import changed
from sare_core.detectors import code_version, detector_class, named_encoders
from sare_core.detectors.folder import DetectorFolder, find_detector, open_detector, start_of
from sare_core.detectors.parts import map_role, maps_to_score
from sare_core.engine.about import read_about
from sare_core.engine.checkpoints import Checkpoint, digest_of
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index, has_index, read_index
from sare_core.engine.selection import chosen_shards
from sare_core.errors import ConfigError
from sare_core.evaluation.predict import PredictStage
from sare_core.models.weights import Weights, resolve
from sare_core.reconstruction import method_of
from sare_core.reconstruction import stage as reconstruction
from sare_core.store.storage import Store

ALL_SPLITS = ("train", "val", "test")
DETECTORS, DETECTORS_VERSION = "detectors", 1  # raise a version when the same settings come to give other weights
PREDICTIONS, PREDICTIONS_VERSION = "predictions", 1  # … when the same checkpoint comes to give other logits


class Graph:
    """The folders of a dataset under some settings. Raises ConfigError where a model is unavailable.

    work: the work folder; None where images are in memory: then hub models are taken at their newest commit.
    """

    def __init__(self, settings: Settings, dataset: str, work: str | None) -> None:
        self.settings, self.dataset, self.work = settings, dataset, work

    def _folder(
        self, stage: str, made_by: dict[str, Any], upstream: dict[str, Folder], models: dict[str, Weights]
    ) -> Folder:
        made_by = {"stage": stage, **made_by, "weights": {role: model.digest for role, model in models.items()}}
        made_by |= {role: folder.fingerprint for role, folder in upstream.items()}
        names = {role: model.model for role, model in models.items()}
        settings = self.settings.model_dump(mode="json")
        return Folder(self.work or ".", self.dataset, stage, made_by, upstream, names, settings)

    @cached_property
    def captions(self) -> Folder:
        """View, caption settings and weights decide, nothing else."""
        caption = self.settings.caption
        made_by = {
            "version": captioning.VERSION,
            "view": self.settings.view,
            "settings": caption.fingerprint_fields() | ({"code": code} if (code := captioner_code(caption)) else {}),
        }
        return self._folder(captioning.NAME, made_by, {}, caption_weights(caption, self.work))

    @cached_property
    def reconstructions(self) -> Folder:
        """Their settings, weights and seed, and the captions' folder where the method reads captions."""
        reconstruct = self.settings.reconstruct
        method = method_of(reconstruct)
        captions = {captioning.NAME: self.captions} if method.needs_captions else {}
        made_by = {
            "version": reconstruction.VERSION,
            "view": self.settings.view,
            "seed": self.settings.seed,
            "settings": method.fingerprint_fields(reconstruct),
        }
        models = reconstruction.weights_of(reconstruct, self.work)
        return self._folder(reconstruction.NAME, made_by, captions, models)

    @cached_property
    def maps(self) -> dict[str, Folder]:
        """The reconstructions that the detector reads, by the role that they play for it."""
        return {
            map_role(name): Graph(changed(self.settings, changes), self.dataset, self.work).reconstructions
            for name, changes in detector_class(self.settings.detector.detector).maps.items()
        }

    @property
    def maps_to_score(self) -> dict[str, Folder]:
        """Those of them that are read to score an image."""
        return self.maps if maps_to_score(detector_class(self.settings.detector.detector)) else {}

    @cached_property
    def encoders(self) -> dict[str, Weights]:
        """The pretrained encoders that the detector reads, by role."""
        return {role: resolve(*named, self.work) for role, named in named_encoders(self.settings.detector).items()}

    @cached_property
    def code(self) -> str | None:
        """Of a detector of somebody's own the digest of its source."""
        return code_version(self.settings.detector.detector)

    @cached_property
    def start(self) -> DetectorFolder | None:
        """The trained detector that the training starts from. Raises ConfigError: none, or it has other encoders."""
        if (start := start_of(self.settings.detector, self.work or "work")) is None:
            return None
        for role, digest in start.about.made_by["weights"].items():
            if role in self.encoders and self.encoders[role].digest != digest:
                raise ConfigError(
                    f"detector.start_from={start.store.url}: was trained with other weights of its {role} ({digest})."
                )
        return start

    @property
    def detector_fields(self) -> dict[str, Any]:
        """What a fingerprint hashes of the detector: its settings, and of a foreign class its source."""
        return self.settings.detector.fingerprint_fields() | ({"code": self.code} if self.code else {})

    def check(self, detector: DetectorFolder) -> None:
        """Raises ConfigError: with these settings images would be scored otherwise than as the detector learnt them."""
        detector.require_same(self.code, self.encoders, self.maps_to_score)

    @cached_property
    def variants(self) -> "list[Graph]":
        """The settings of each map that the detector reads; these, where it reads none."""
        maps = detector_class(self.settings.detector.detector).maps.values()
        return [Graph(changed(self.settings, changes), self.dataset, self.work) for changes in maps] or [self]

    def detectors(self, inputs: list[str]) -> Folder:
        """The folder of a detector: settings, encoders, and the bytes of the shards that it is trained on."""
        made_by = {
            "version": DETECTORS_VERSION,
            "settings": self.settings.train.fingerprint_fields(),
            "detector": self.detector_fields,
            "inputs": digest_of(inputs)[:16],
        }
        made_by |= {} if self.maps else {"view": self.settings.view}  # else the reconstructions say it
        made_by |= {"start_from": self.start.best.sha256[:16]} if self.start else {}
        return self._folder(DETECTORS, made_by, self.maps, self.encoders)

    def predictions(self, best: Checkpoint) -> Folder:
        """The folder of predictions: the checkpoint's bytes, how the images are viewed, and the reconstructions."""
        made_by = {
            "version": PREDICTIONS_VERSION,
            "settings": self.settings.evaluate.fingerprint_fields(),
            "detector": self.detector_fields,
            "checkpoint": best.sha256[:16],
        }
        made_by |= {} if self.maps_to_score else {"view": self.settings.view}
        return self._folder(PREDICTIONS, made_by, self.maps_to_score, self.encoders)

    def caption_stages(self, index: Index) -> list[captioning.CaptionStage]:
        """Of the captions under which the maps are made; of these settings', where that is without captions."""
        graphs = [each for each in self.variants if method_of(each.settings.reconstruct).needs_captions] or [self]
        return list({graph.captions.fingerprint: graph.caption(index) for graph in graphs}.values())

    def reconstruct_stages(self, index: Index) -> list[reconstruction.ReconstructStage]:
        """Of the maps that the detector reads; of these settings', where it reads none."""
        return list({graph.reconstructions.fingerprint: graph.reconstruct(index) for graph in self.variants}.values())

    def caption(self, index: Index) -> captioning.CaptionStage:
        return captioning.CaptionStage(self.settings.caption, self.settings.view, index, self.captions)

    def reconstruct(self, index: Index) -> reconstruction.ReconstructStage:
        settings = self.settings
        return reconstruction.ReconstructStage(
            settings.reconstruct, settings.view, settings.seed, index, self.reconstructions
        )

    def predict(self, index: Index, detector: DetectorFolder) -> PredictStage:
        return PredictStage(self.settings, index, self.predictions(detector.best), self.encoders, detector)

    def shards(self, index: Index, splits: Sequence[str] = ALL_SPLITS, wanted: str | None = None) -> list[int]:
        """The shards that these settings work on, or those that are `wanted` of them: see `chosen_shards`."""
        return chosen_shards(index, splits, self.settings.train_subsets, wanted)

    def trained_shards(self, index: Index) -> tuple[list[int], list[int]]:
        """The shards that a detector is trained on, and those held out."""
        return self.shards(index, ["train"]), self.shards(index, ["val"])

    def training_data(self, index: Index) -> tuple[Any, Any]:
        """The training images, and those held out. Raises StageError: not reconstructed; ConfigError: of one class."""
        from sare_core.training.samples import Samples

        settings, dataset = self.settings, index.about["dataset"]
        trained = set(index.select(["train", "val"])["subset"])
        if odd := sorted(set(settings.train_subsets or ()) - trained) if trained else []:
            raise ConfigError(
                f"train_subsets names {', '.join(odd)}, but the training data of {dataset!r} are of "
                f"{', '.join(sorted(trained))}. Name some of these, or set train_subsets=null to take them all."
            )
        parts = [
            Samples(self.maps, index, shards, settings.detector, settings.view, augment, settings.train.seed)
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

    def trained_detector(self, source: Index, preset: str) -> DetectorFolder:
        """The detector that these settings name, whatever has become of its training images; of several the latest.

        Raises ConfigError or StageError: there is none that is trained to its end, or nothing yet to train it on.
        """
        arguments = f"--dataset {self.dataset} --preset {preset} (with the same --set)"
        try:
            return find_detector(self.detectors([]), arguments)
        except ConfigError:
            self.training_data(source)  # what lacks for a training is the better thing to hear of
            raise

    def tested_shards(self, index: Index, wanted: str | None = None) -> list[int]:
        """The shards of the test split, or those that are `wanted` of them. Raises ConfigError: there are none."""
        shards = self.shards(index, ["test"], wanted)
        if not shards:
            raise ConfigError(f"{index.about['dataset']!r} has no test split. `sare index` prints what it has.")
        return shards


def run_settings(
    index: Index, preset: str | None, overrides: list[str] | None, detector: str | None, view: str | None, work: str
) -> Settings:
    """The settings of a run: a preset's, or those that a detector brings; with another view where one is given.

    detector: its path, URL or fingerprint. Raises ConfigError: no such preset, setting or detector.
    """
    if detector is None:
        settings = load_settings(preset or "mini", overrides, index.about["layout"])
    elif preset is not None:
        raise ConfigError("--detector brings its own settings: leave --preset out. --set can change how it is run.")
    else:
        settings = open_detector(detector, work).settings(overrides)
    return changed(settings, {"view": view}) if view else settings


def on_reconstructions(settings: Settings, name: str, dataset: str, work: str) -> Settings:
    """The settings with all that made some reconstructions: view, seed, caption and reconstruct.

    name: their fingerprint, as `sare ls` shows it. Raises ConfigError: there are none, or their models have changed.
    """
    store = Store(work).at(f"{dataset}/{reconstruction.NAME}/{name}")
    try:
        about = read_about(store)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(
            f"--reconstructions {name}: no such reconstructions of {dataset!r} in {work}. See: sare ls."
        ) from error
    if about.settings is None:
        raise ConfigError(
            f"{store.url}: made by sare 0.1, which kept no settings there. Run `sare reconstruct` with the same "
            "settings once more: it computes nothing and writes them."
        )
    made_with = {key: about.settings[key] for key in ("view", "seed", "caption", "reconstruct")}
    found = validated(settings.model_dump(mode="json") | made_with)
    if Graph(found, dataset, work).reconstructions.fingerprint != name:
        raise ConfigError(f"{store.url}: its models or tables are not what they were when it was made.")
    return found


class Scoring(NamedTuple):
    """What a command scores images with. source: of the dataset that the detector was trained on, where at hand."""

    settings: Settings
    detector: DetectorFolder
    source: Index | None


def scoring(
    index: Index,
    manifests: str,
    trained_on: str | None,
    preset: str | None,
    overrides: list[str] | None,
    reference: str | None,
    view: str | None,
    work: str,
) -> Scoring:
    """The detector of a path, URL or fingerprint, `reference`, or of a preset and a dataset, by default the index's.

    Raises ConfigError or StageError: there is none; or as `run_settings`.
    """
    if reference is not None and trained_on is not None:
        raise ConfigError("--detector names one detector, --trained-on another dataset's: leave one of them out.")
    if reference is not None:
        settings = run_settings(index, preset, overrides, reference, view, work)
        detector = open_detector(reference, work)
        name = detector.about.dataset
        return Scoring(settings, detector, read_index(manifests, name) if name and has_index(manifests, name) else None)
    source = read_index(manifests, trained_on or index.about["dataset"])
    trained_with = run_settings(source, preset, overrides, None, None, work)  # whatever the view of the test images
    detector = Graph(trained_with, source.about["dataset"], work).trained_detector(source, preset or "mini")
    return Scoring(run_settings(source, preset, overrides, None, view, work), detector, source)
