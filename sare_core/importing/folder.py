"""A published checkpoint to a detector's folder: settings, provenance and weights, as a training would leave them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sare_core.config import load_settings
from sare_core.config.stored import changed
from sare_core.detectors import build_detector
from sare_core.detectors.base import Detector
from sare_core.engine.checkpoints import save_checkpoint
from sare_core.errors import ConfigError
from sare_core.graph import Graph
from sare_core.importing.layouts import LAYOUTS
from sare_core.importing.reading import read_tensors
from sare_core.models.weights import fetch
from sare_core.store.storage import Store, sha256_file

DATASET = "imported"


class Imported(NamedTuple):
    """detector: its name. parameters: that came from the file. encoder: how its image encoder was found, or empty.

    differs: what sare does otherwise than the project, as a sentence, or empty.
    """

    detector: str
    parameters: int
    encoder: str
    differs: str


def import_detector(
    source: str, file: str, out: str, preset: str, overrides: Sequence[str] = (), work: str = "work"
) -> Imported:
    """Make the folder `out` from a file of the project `source`, one of LAYOUTS.

    Every tensor of the file has to have its place, and the other way round. overrides: `section.key=value`, such as the
    places of models.
    Raises ConfigError: not a file of this layout, a model that the settings name is unavailable, or `out` is not empty.
    """
    if Path(out).is_file() or (Path(out).exists() and any(Path(out).iterdir())):
        raise ConfigError(f"{out}: is a file, or not empty. Name a folder that is not there yet.")
    try:
        layout = LAYOUTS[source](read_tensors(file))
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(file) else f"{file}: {error}") from error
    fixed = [f"detector.{key}={json.dumps(value)}" for key, value in layout.settings.items()]
    settings = load_settings(preset, [f"detector.detector={layout.detector}", *fixed, *overrides])

    def built() -> tuple[Graph, Detector]:
        graph = Graph(settings, DATASET, work)
        return graph, build_detector(settings.detector, {role: fetch(each) for role, each in graph.encoders.items()})

    graph, model = built()
    tensors, said = layout.tensors, ""
    encoder = {name: each for name, each in tensors.items() if name.startswith("image_encoder.")}
    if encoder:
        own = model.state_dict()
        same = all(name in own and torch.equal(own[name], each) for name, each in encoder.items())
        if same:
            tensors = {name: each for name, each in tensors.items() if name not in encoder}
        else:
            settings = changed(settings, {"detector.tune_image_encoder": True})
            graph, model = built()
        said = f"its image encoder is {'that of' if same else 'not that of'} {settings.detector.image_encoder}"
    try:
        model.load_trained(tensors)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error

    digest = sha256_file(Path(file))
    folder = graph.detectors([f"{source}:{digest}"])
    folder.store = Store(out)
    models = {role: weights.model for role, weights in graph.encoders.items()}
    facts = {"project": source, "file": Path(file).name, "sha256": digest}
    state = {f"model.{name}": each for name, each in model.trained_state().items()}
    entry: dict[str, Any] = {"epoch": 0, "accuracy": None, "auc": None}
    save_checkpoint(folder.store, "best", state, step=0, epoch=0, finished=True, history=[entry], about=folder.made_by)
    folder.describe(preset=preset, models=models, imported=facts | {"when": f"{datetime.now(UTC):%Y-%m-%d}"})
    count = sum(each.numel() for each in tensors.values() if each.is_floating_point())
    return Imported(layout.detector, count, said, layout.differs)
