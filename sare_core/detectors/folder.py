"""A trained detector as it lies in a folder that needs nothing beside it: settings, provenance, history, weights.

    about.json                      what made it, in full: settings, encoders by name and digest, training data
    best.json, best-….safetensors   the epoch that the held-out images chose, and its weights

A copy of these three at any path or URL is the detector.
"""

import re
from dataclasses import dataclass
from typing import Any

from sare_core.config import Settings
from sare_core.config.stored import read_settings
from sare_core.engine.about import About, Upstream, read_about
from sare_core.engine.checkpoints import Checkpoint, read_checkpoint
from sare_core.engine.fingerprint import differences
from sare_core.engine.folders import Folder
from sare_core.engine.ledger import Ledger
from sare_core.errors import ConfigError
from sare_core.models.weights import Weights
from sare_core.store.storage import Store


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

    def folder(self) -> Folder:
        """As the engine sees it, wherever it lies."""
        folder = Folder(self.store.url, self.about.dataset, "detectors", self.about.made_by, models=self.about.models)
        folder.store, folder.ledger = self.store, Ledger(self.store)
        return folder

    def require_maps(self, maps: dict[str, Folder]) -> None:
        """Raises ConfigError: the maps to be scored are made otherwise than those of its training, view aside."""
        for role, folder in maps.items():
            trained, now = self.about.upstream[role], Upstream.model_validate(folder.origin())
            told = differences(_without_view(trained), _without_view(now))
            if told and trained.made_by:
                raise ConfigError(
                    f"{self.store.url}: was trained on maps made otherwise: {'; '.join(told[:5])}. Leave --set of "
                    "these out, or name the models that it was trained with."
                )

    def require_encoders(self, encoders: dict[str, Weights]) -> None:
        """Raises ConfigError: an encoder's weights are not those that the detector was trained with."""
        for role, digest in self.about.made_by["weights"].items():
            if (encoder := encoders.get(role)) is None or encoder.digest != digest:
                found = encoder and f"{encoder.model} has {encoder.digest}"
                raise ConfigError(
                    f"{self.store.url}: was trained with other weights of its {role} ({digest}; {found}). Name the "
                    f"right ones: --set detector.{role}=…"
                )


def open_detector(reference: str, work: str) -> DetectorFolder:
    """The detector at a path or URL, or in the work folder under a fingerprint that `sare ls` shows.

    Raises ConfigError: there is none, or it is not trained to its end.
    """
    store = Store(reference)
    if re.fullmatch(r"[0-9a-f]{12}", reference):
        places = [f"{name}/detectors/{reference}" for name in Store(work).folders()]
        found = [place for place in places if Store(work).exists(f"{place}/about.json")]
        if not found:
            raise ConfigError(f"--detector {reference}: no such detector in {work}. `sare ls` shows what there is.")
        store = Store(work).at(found[0])
    detector = _read(store)
    if detector is None:
        raise ConfigError(f"{store.url}: holds no trained detector (about.json, best.json and the file it names).")
    return detector


def find_detector(folder: Folder, arguments: str) -> DetectorFolder:
    """The trained detector whose settings, encoders and reconstructions are those of `folder`; of several the latest.

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
        if _without_inputs(about.made_by) == wanted:
            last = read_checkpoint(store, "last")
            begun = begun or last is not None
            if last is not None and last.finished and (detector := _read(store)):
                found.append(detector)
    if not found:
        state = "is trained only in part" if begun else "is not trained"
        raise ConfigError(f"{stage.url}: the detector of these settings {state}. Run: sare train {arguments}.")
    return max(found, key=lambda detector: detector.about.described)


def trained(folder: Folder) -> Checkpoint | None:
    """The best checkpoint of a detector whose training has come to its end."""
    best, last = read_checkpoint(folder.store, "best"), read_checkpoint(folder.store, "last")
    return best if last is not None and last.finished and best is not None else None


def _read(store: Store) -> DetectorFolder | None:
    try:
        about = read_about(store)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{store.path('about.json')}: does not describe a detector.") from error
    best = read_checkpoint(store, "best")
    return DetectorFolder(store, about, best) if best is not None and store.exists(best.file) else None


def _without_view(made: Upstream) -> dict[str, Any]:
    """What made a folder and the folders before, without their views and fingerprints."""
    own = {key: value for key, value in made.made_by.items() if key not in ("view", *made.upstream)}
    return own | {role: _without_view(before) for role, before in made.upstream.items()}


def _without_inputs(made_by: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in made_by.items() if key != "inputs"}
