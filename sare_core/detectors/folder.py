"""A trained detector as it lies in a folder that needs nothing beside it: settings, provenance, history, weights.

    about.json                      what made it, in full: settings, encoders by name and digest, training data
    best.json, best-….safetensors   the epoch that the held-out images chose, its weights, the history of all epochs

A copy of these three at any path or URL is the detector. Beside them may lie `calibrations/`, its thresholds for images
of some kind (sare_core/detection/calibration.py).
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sare_core.config import Settings
from sare_core.config.detectors import DetectorSettings
from sare_core.config.stored import read_settings
from sare_core.engine.about import About, Upstream, read_about
from sare_core.engine.checkpoints import Checkpoint, read_checkpoint
from sare_core.engine.fingerprint import differences
from sare_core.engine.folders import Folder
from sare_core.engine.ledger import Ledger
from sare_core.errors import ConfigError
from sare_core.models.weights import Weights, fetch, is_hub_id, resolve
from sare_core.store.storage import Store

CALIBRATIONS = "calibrations"  # the folder for what sare_core.detection makes


class _Name(BaseModel):
    detector: str


class _Settings(BaseModel):
    detector: _Name


class _Provenance(BaseModel):
    """What about.json says of a detector at least."""

    weights: dict[str, str]
    detector: dict[str, Any]
    settings: _Settings | None


@dataclass(frozen=True)
class DetectorFolder:
    """A detector that is trained to its end. settings: of its training; None of one that version 0.1 trained."""

    store: Store
    about: About
    best: Checkpoint

    def settings(self, overrides: list[str] | None = None) -> Settings:
        """Its own settings, which say how an image is captioned, reconstructed, viewed and scored.

        overrides: `section.key=value`, of what does not make another detector: places of models, how to evaluate.
        Raises ConfigError: there are none in its folder, or not of this version; an override makes another detector.
        """
        if self.about.settings is None:
            raise ConfigError(
                f"{self.store.url}: trained by sare 0.1, which kept no settings there. Run the same `sare train` once "
                "more: while its maps are there it computes nothing and writes them."
            )
        values = dict(self.about.settings)
        module, own, _ = values["detector"]["detector"].partition(":")
        code = [*values.pop("plugins", []), *([module] if own else [])]
        trusted = {override.partition("=")[2] for override in overrides or [] if override.startswith("plugins")}
        if code and not trusted.issuperset(code):  # a folder may not say what code runs
            raise ConfigError(
                f"{self.store.url}: a detector of somebody's own code. If you trust it, name its module: "
                + " ".join(f"--plugin {each}" for each in code)
            )
        models = {f"detector.{role}" for role in self.about.models}
        for override in overrides or []:
            key = override.partition("=")[0].strip()
            if key.startswith(("detector.", "train.")) and key not in models:
                raise ConfigError(f"--set {override}: {self.store.url} is trained already; that would be another one.")
        return read_settings(values, self.store.path("about.json"), overrides)

    @property
    def threshold(self) -> float | None:
        """The logit above which the held-out training images would call an image fake; None: not known."""
        return self.best.entry().get("threshold")

    def reference(self, work: str) -> str:
        """How --detector names it with this work folder: by its fingerprint if it lies there, else by its place."""
        folder = self.folder()
        inside = Store(work).at(f"{folder.dataset}/{folder.stage}/{folder.fingerprint}").url == self.store.url
        return folder.fingerprint if inside else self.store.url

    def folder(self) -> Folder:
        """As the engine sees it, wherever it lies."""
        folder = Folder(self.store.url, self.about.dataset, "detectors", self.about.made_by, models=self.about.models)
        folder.store, folder.ledger = self.store, Ledger(self.store)
        return folder

    def require_same(self, code: str | None, encoders: dict[str, Weights], maps: dict[str, Folder]) -> None:
        """Raises ConfigError: something that scores are made with is not what it was in training.

        code: the digest of the detector's own source, None of sare's detectors. maps: by role; views may differ.
        """
        self._require_code(code)
        self._require_encoders(encoders)
        self.require_maps(maps)

    def _require_code(self, code: str | None) -> None:
        trained = self.about.made_by["detector"].get("code")
        if code != trained:
            raise ConfigError(
                f"{self.store.url}: the code of its detector is not that of its training ({trained}, now {code}). "
                "Use the file that it was trained with, or train again."
            )

    def require_maps(self, maps: dict[str, Folder]) -> None:
        """Raises ConfigError: the maps to be scored are made otherwise than those of its training, view aside."""
        for role, folder in maps.items():
            if (trained := self.about.upstream.get(role)) is None:
                raise ConfigError(f"{self.store.path('about.json')}: does not say what its {role} were made by.")
            told = differences(_without_view(trained), _without_view(Upstream.model_validate(folder.origin())))
            if told and trained.made_by:
                raise ConfigError(
                    f"{self.store.url}: was trained on maps made otherwise: {'; '.join(told[:5])}. Leave --set of "
                    "these out, or name the models that it was trained with."
                )

    def _require_encoders(self, encoders: dict[str, Weights]) -> None:
        for role, digest in self.about.made_by["weights"].items():
            if (encoder := encoders.get(role)) is None or encoder.digest != digest:
                found = encoder and f"{encoder.model} has {encoder.digest}"
                raise ConfigError(
                    f"{self.store.url}: was trained with other weights of its {role} ({digest}; {found}). Name the "
                    f"right ones: --set detector.{role}=…"
                )


def open_detector(reference: str | os.PathLike[str], work: str) -> DetectorFolder:
    """The detector at a path or URL; in the work folder under a fingerprint that `sare ls` shows, or the latest of a
    run by its name; or on the model hub as owner/name or owner/name@revision.

    Raises ConfigError: there is none, or it is not trained to its end.
    """
    reference = os.fspath(reference)
    store = Store(reference)
    if re.fullmatch(r"[0-9a-f]{12}", reference):
        places = [f"{name}/detectors/{reference}" for name in Store(work).folders()]
        found = [place for place in places if Store(work).exists(f"{place}/about.json")]
        if not found:
            raise ConfigError(f"{reference}: no such detector in {work}. `sare ls` shows what there is.")
        store = Store(work).at(found[0])
    elif "://" not in reference and not Path(reference).exists():
        if is_hub_id(reference):
            model, _, revision = reference.partition("@")
            store = Store(fetch(resolve(model, revision or None)))
        elif of_run := _of_run(Store(work), reference):
            return max(of_run, key=lambda detector: detector.about.described)
    detector = _read(store)
    if detector is None:
        raise ConfigError(f"{store.url}: holds no trained detector (about.json, best.json and the file it names).")
    if not detector.best.finished and not _ended(store):
        raise ConfigError(
            f"{store.url}: its training has not come to its end. Run the same `sare train` again: it goes on where it "
            "was, or writes into best.json that it is done. Then copy the folder again, if this is a copy."
        )
    return detector


def copy_to(detector: DetectorFolder, store: Store) -> None:
    """Put what makes the detector, and its calibrations, into another folder. Raises ConfigError: it cannot be written.

    best.json names the weights, so that it comes last.
    """
    about, best = (detector.store.read(f"{name}.json") for name in ("about", "best"))
    store.write(detector.best.file, detector.store.read(detector.best.file))
    for name, data in calibrations(detector).items():
        store.write(name, data)
    store.write("about.json", about)
    store.write("best.json", best)


def calibrations(detector: DetectorFolder) -> dict[str, bytes]:
    """What `sare calibrate` left in the detector's folder: file by name."""
    names = [f"{CALIBRATIONS}/{name}" for name in detector.store.names(CALIBRATIONS) if name.endswith(".json")]
    return {name: detector.store.read(name) for name in names}


def _of_run(work: Store, run: str) -> list[DetectorFolder]:
    """The detectors in a work folder that a run of this name trained to their end."""
    found = []
    for name in work.folders():
        for place in work.folders(f"{name}/detectors"):
            with suppress(ConfigError):  # a damaged one beside them
                found.append(_read(work.at(f"{name}/detectors/{place}")))
    return [each for each in found if each and run in each.about.runs and (each.best.finished or _ended(each.store))]


def start_of(settings: DetectorSettings, work: str) -> DetectorFolder | None:
    """The trained detector that a training starts from, where the settings name one. Raises ConfigError: as above."""
    reference = getattr(settings, "start_from", None)
    return None if reference is None else open_detector(reference, work)


def find_detector(folder: Folder, arguments: str) -> DetectorFolder:
    """The trained detector whose settings, encoders, reconstructions and training subsets are those of `folder`; of
    several, whose images differ all the same, the latest.

    arguments: of the command that trains it, for the message. Raises ConfigError: there is none.
    """
    stage = Store(folder.work).at(f"{folder.dataset}/{folder.stage}")
    wanted, found, begun = _without_inputs(folder.made_by), [], False
    for name in stage.folders():
        store = stage.at(name)
        try:
            about = read_about(store)
        except (FileNotFoundError, ValueError):
            continue
        if _without_inputs(about.made_by) == wanted and _subsets(about.settings) in (None, _subsets(folder.settings)):
            detector = _read(store)
            begun = begun or read_checkpoint(store, "last") is not None
            if detector is not None and (detector.best.finished or _ended(store)):
                found.append(detector)
    if not found:
        state = "is trained only in part" if begun else "is not trained"
        raise ConfigError(f"{stage.url}: the detector of these settings {state}. Run: sare train {arguments}.")
    return max(found, key=lambda detector: detector.about.described)


def trained(folder: Folder) -> Checkpoint | None:
    """The best checkpoint of a detector whose training has come to its end."""
    best = read_checkpoint(folder.store, "best")
    return best if best is not None and (best.finished or _ended(folder.store)) else None


def finish(folder: Folder) -> Checkpoint | None:
    """Write into best.json that the training has come to its end, and the history of all its epochs. Returns it.

    So a copy without last.json tells a whole training from a part of one. None: there is no best checkpoint, or the
    training has not ended.
    """
    best, last = read_checkpoint(folder.store, "best"), read_checkpoint(folder.store, "last")
    if best is None or best.finished or last is None or not last.finished:
        return best if best is not None and best.finished else None
    best = best.model_copy(update={"finished": True, "history": last.history})
    folder.store.write("best.json", best.model_dump_json(indent=1).encode())
    return best


def _ended(store: Store) -> bool:
    last = read_checkpoint(store, "last")
    return last is not None and last.finished


def _read(store: Store) -> DetectorFolder | None:
    try:
        about = read_about(store)
        if (best := read_checkpoint(store, "best")) is None or not store.exists(best.file):
            return None
        _Provenance.model_validate({**about.made_by, "settings": about.settings})
    except FileNotFoundError:
        return None
    except ValueError as error:  # pydantic's is one
        raise ConfigError(f"{store.path('about.json')}: does not describe a detector.") from error
    return DetectorFolder(store, about, best)


def _without_view(made: Upstream) -> dict[str, Any]:
    """What made a folder and the folders before, without their views and fingerprints."""
    own = {key: value for key, value in made.made_by.items() if key not in ("view", *made.upstream)}
    return own | {role: _without_view(before) for role, before in made.upstream.items()}


def _subsets(settings: dict[str, Any] | None) -> list[str] | str | None:
    """The subsets that a training takes, which of a detector's fingerprint only the images themselves tell; None of
    version 0.1, which kept no settings."""
    if settings is None:
        return None
    return "all" if settings["train_subsets"] is None else sorted(settings["train_subsets"])


def _without_inputs(made_by: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in made_by.items() if key != "inputs"}
