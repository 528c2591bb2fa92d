"""Which detectors stand side by side: predictions that lie in the work folder, and what is missing for others.

Runs that differ in train.seed alone are one detector, whose numbers are means over its seeds.
"""

import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from sare_core.detectors import detector_class
from sare_core.detectors.folder import DetectorFolder, open_detector
from sare_core.engine.about import About
from sare_core.engine.fingerprint import differences
from sare_core.engine.folders import Folder, places
from sare_core.engine.manifest import Index, has_index, read_index
from sare_core.errors import ConfigError
from sare_core.evaluation.intervals import Run
from sare_core.evaluation.results import read_outputs


class Prediction(NamedTuple):
    """A folder of predictions of one dataset, and the detector that made them, where it is still there."""

    folder: Folder
    detector: DetectorFolder | None
    settings: dict[str, Any]
    run: str


class Compared(NamedTuple):
    """One detector: a run a training seed. trained: the generators that it was trained on, as far as known.

    source: the dataset that it was trained on; "" where that is not known. differs: how from the first row of the same
    detector, as a sentence; "" of that row itself.
    """

    name: str
    runs: list[Run]
    trained: tuple[str, ...]
    source: str
    differs: str


def read_predictions(work: str, dataset: str, view: str) -> list[Prediction]:
    """All predictions of a dataset in one view, the earliest first; folders that cannot be read are left out."""
    found = []
    for _, stage, name in places(work, dataset):
        if stage != "predictions":
            continue
        try:
            folder = Folder.open(work, dataset, stage, name)
            about = folder.about()
        except (ConfigError, FileNotFoundError):
            continue
        if folder.settings is not None and folder.settings["view"] == view:
            prediction = Prediction(folder, _origin(about, work), folder.settings, about.names()[-1])
            found.append((about.described, prediction))
    return [prediction for _, prediction in sorted(found, key=lambda pair: pair[0])]


def _origin(about: About, work: str) -> DetectorFolder | None:
    """The detector that made some predictions: in this work folder, which may have been moved, or where it was then."""
    place, weights = about.detector, about.made_by["checkpoint"]
    name = place.rpartition("/")[2]
    places = [name] if re.fullmatch(r"[0-9a-f]{12}", name) else []
    places += [place] if "://" in place or Path(place).exists() else []  # no hub id, though it may look like one
    found = (_detector(each, work) for each in places)
    return next((one for one in found if one is not None and one.best.sha256.startswith(weights)), None)


def _detector(place: str, work: str) -> DetectorFolder | None:
    try:
        return open_detector(place, work)
    except ConfigError:
        return None


def chosen(
    known: Sequence[Prediction], names: Sequence[str], index: Index, shards: list[int], work: str, view: str
) -> tuple[list[Prediction], list[str]]:
    """The predictions that some names mean, whole ones, in their order; and what is to be run for the others.

    A name: of a run or a detector (`sare`), a fingerprint of predictions or of a detector, a detector's folder or URL.
    None: all that are whole.
    """
    dataset = index.about["dataset"]
    if not names:
        return [one for one in known if not one.folder.undone(index, shards)], []
    taken, missing = list[Prediction](), list[str]()
    for name in names:
        meant = [one for one in known if _means(one, name, work)]
        whole = [one for one in meant if not one.folder.undone(index, shards)]
        taken += [one for one in whole if one not in taken]
        for one in meant:
            if one not in whole and one.detector is not None:
                missing.append(f"{name}: {_evaluate(one.detector, dataset, work, view)}")
        if not meant:
            missing.append(f"{name}: {_cure(name, dataset, work, view)}")
    return taken, missing


def _means(one: Prediction, name: str, work: str) -> bool:
    if name in (one.run, one.folder.fingerprint, one.settings["detector"]["detector"], *one.folder.runs()):
        return True
    if one.detector is None:
        return False
    other = _detector(name, work) if "/" in name else None
    if other is not None:
        return other.best.sha256 == one.detector.best.sha256
    return name == one.detector.folder().fingerprint


def _cure(name: str, dataset: str, work: str, view: str) -> str:
    """What to run for a name that no predictions have."""
    for _, stage, fingerprint in places(work):
        if stage == "detectors":
            detector = _detector(fingerprint, work)
            if detector is None or detector.about.settings is None:
                continue
            if name in (fingerprint, detector.about.settings["detector"]["detector"], *detector.about.names()):
                return _evaluate(detector, dataset, work, view)
    if (detector := _detector(name, work)) is not None:
        return _evaluate(detector, dataset, work, view)
    try:
        detector_class(name)
    except ConfigError:
        return f"no run, detector or fingerprint of that name; sare ls --dataset {dataset} lists what there is"
    what, viewed = f"--dataset {dataset} --set detector.detector={name}", f" --view {view}" if view != "raw" else ""
    return f"sare train {what}, then sare evaluate {what}{viewed} (with the --preset that you use)"


def _evaluate(detector: DetectorFolder, dataset: str, work: str, view: str) -> str:
    """The command that makes a detector's predictions in a view."""
    command = f"sare evaluate --dataset {dataset} --detector {shlex.quote(detector.reference(work))}"
    return command if (detector.about.settings or {}).get("view") == view else f"{command} --view {view}"


def compared(
    predictions: Sequence[Prediction],
    shards: list[int],
    manifests: str,
    prepare: Callable[[pl.DataFrame], pl.DataFrame],
) -> list[Compared]:
    """The detectors, each with the runs of all its seeds. prepare: is done to predictions, as giving them strata."""
    groups: dict[str, dict[int, Prediction]] = {}
    for one in predictions:  # of one seed the latest
        groups.setdefault(_without_seed(one), {})[one.settings["train"]["seed"]] = one
    seeds = [list(group.values()) for group in groups.values()]
    found, of_kind = list[Compared](), dict[str, tuple[str, Prediction]]()
    for (first, *others), name in zip(seeds, _names(seeds), strict=True):
        before, model = of_kind.setdefault(first.settings["detector"]["detector"], (name, first))
        changes = (
            [] if model is first else differences(_settings(model), _settings(first)) or ["training data or weights"]
        )
        differs = f"{name} differs from {before} in {', '.join(changes)}." if changes else ""
        runs = [
            Run(prepare(read_outputs(one.folder, shards)), one.detector.threshold if one.detector else None)
            for one in (first, *others)
        ]
        source, trained = trained_on(first.detector, first.settings, manifests)
        found.append(Compared(name, runs, trained, source, differs))
    return found


def trained_on(
    detector: DetectorFolder | None, settings: dict[str, Any], manifests: str
) -> tuple[str, tuple[str, ...]]:
    """The dataset and the generators that a detector of these settings was trained on, "" and () where not known."""
    # Of imported weights nothing is known; their settings are the preset's.
    if detector is None or "imported" in (detector.about.model_extra or {}):
        return "", ()
    source, trained = detector.about.dataset, settings["train_subsets"]
    if trained is None and source and has_index(manifests, source):
        trained = read_index(manifests, source).select(["train"])["subset"].unique().sort().to_list()
    return source, tuple(trained or ())


def _without_seed(one: Prediction) -> str:
    """Equal for predictions of detectors that differ in their training seed alone: by all that made them, data and
    weights too."""
    settings = _settings(one)
    if one.detector is None:
        return json.dumps([settings, one.folder.made_by], sort_keys=True)
    about = one.detector.about
    made_by = {**about.made_by, "settings": {**about.made_by["settings"], "seed": None}}
    return json.dumps([settings, about.dataset, made_by], sort_keys=True)


def _settings(one: Prediction) -> dict[str, Any]:
    train = {**one.settings["train"], "seed": None}
    return {**one.settings, "train": train, "evaluate": {"dtype": one.settings["evaluate"]["dtype"]}}


def _names(groups: list[list[Prediction]]) -> list[str]:
    """The detector's name; where several have that, with its run's; where several have both, with the fingerprint."""
    parts = [(one.settings["detector"]["detector"], one.run, one.folder.fingerprint) for one, *_ in groups]
    names = [name for name, *_ in parts]
    for length in (2, 3):
        names = [
            " · ".join(of[:length]) if names.count(name) > 1 else name for name, of in zip(names, parts, strict=True)
        ]
    return [
        name + (f" ({len(seeds)} seeds)" if len(seeds) > 1 else "") for name, seeds in zip(names, groups, strict=True)
    ]
