"""Code of somebody's own, outside this repository: a detector with its own settings, samples and loss; a captioner."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sare_core.config import Settings, load_settings
from sare_core.detectors.folder import open_detector
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import read_index
from sare_core.errors import ConfigError
from sare_core.graph import Graph
from stages.options import with_plugins
from tests.conftest import STANDIN, standin_overrides
from tests.faults.whole import SMALL
from tests.pipeline import Pipeline
from tests.trees import genimage_tree

PLUGIN = '''
import torch
from sare_core import captioning, detectors
from sare_core.config.detectors import DetectorSettings
from sare_core.detectors.base import Detector


class EnergySettings(DetectorSettings):
    power: float = 1.0


class Energy(Detector):
    """One number of the map, and x̂ as a further fake, as DRCT trains."""

    Settings, needs = EnergySettings, frozenset({"image", "sare", "reconstruction"})

    def __init__(self, settings, encoders):
        super().__init__(settings, encoders)
        self.power, self.head = settings.power, torch.nn.Linear(1, 1)

    @classmethod
    def samples(cls, settings):
        return ("image", "reconstruction")

    @classmethod
    def sample(cls, name, parts, label):
        seen = {"image": parts[name], "sare": parts["sare"]}
        return seen, 1 if name == "reconstruction" else label

    def forward(self, batch):
        return self.head(batch["sare"].abs().mean((1, 2, 3)).pow(self.power)[:, None]).squeeze(-1)

    def loss(self, logits, batch):
        return (logits - batch["label"]).pow(2).mean()


class Length:
    name, revision = "length", None

    def caption(self, images, rows):
        return [f"an image of {image.width} pixels" for image in images]


def load(settings, weights_dir, device):
    return Length()


detectors.register("energy", f"{__name__}:Energy")
captioning.register("length", f"{__name__}:load")
'''
LENGTH = ["caption.captioner=length", "caption.model=null"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The plugin's name: a module in the current folder, forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for registry in ("sare_core.detectors._DETECTORS", "sare_core.captioning.CAPTIONERS"):
        package, _, name = registry.rpartition(".")
        monkeypatch.setattr(registry, dict(getattr(sys.modules[package], name)))
    (tmp_path / "energyplugin.py").write_text(PLUGIN)
    yield "energyplugin"
    sys.modules.pop("energyplugin", None)


@pytest.fixture
def settings(module: str, standin_models: Path) -> Callable[..., Settings]:
    own = [f"plugins+={module}", "detector.detector=energy", *LENGTH]
    return lambda *more: load_settings(STANDIN, [*standin_overrides(standin_models), *SMALL, *own, *more])


def test_settings_of_its_own_are_checked(settings: Callable[..., Settings]) -> None:
    assert settings("detector.power=2").detector.fingerprint_fields()["power"] == 2
    assert not hasattr(settings().detector, "heads"), "the preset's fields of another detector are gone"
    with pytest.raises(ConfigError, match=r"no setting 'detector\.powder'\. Did you mean 'detector\.power'\?"):
        settings("detector.powder=2")
    with pytest.raises(ConfigError, match=r"no setting 'detector\.heads'"):
        settings("detector.heads=2")
    with pytest.raises(ConfigError, match=r"setting detector\.power: .*valid number"):
        settings("detector.power=strong")
    with pytest.raises(ConfigError, match="plugins=nowhere: cannot be imported"):
        load_settings(STANDIN, ["plugins+=nowhere"])


def test_all_stages_work_with_it(settings: Callable[..., Settings], tmp_path: Path) -> None:
    pipeline = Pipeline(settings(), str(tmp_path / "manifests"), str(tmp_path / "work"))
    index = pipeline.index(genimage_tree(tmp_path / "tree", per_cell=6, subsets=["sdv1.4"]))
    assert pipeline.captions().complete and pipeline.reconstructions().complete
    train_part, val_part = pipeline.graph.training_data(index)
    assert len(train_part) == 2 * len(train_part.labels), "each image and its reconstruction"
    assert len(val_part) == len(val_part.labels), "what is held out is judged by its images alone"
    rows = [train_part[key] for key in _keys(len(train_part))]
    labels = np.array([row["label"].item() for row in rows])
    assert (labels[1::2] == 1).all() and set(labels[::2]) == {0, 1}
    assert not torch.equal(rows[0]["image"], rows[1]["image"])

    detector = pipeline.detector()
    assert pipeline.predictions(detector).complete
    assert _trusts(detector, "energyplugin")
    code = detector.made_by["detector"]["code"]
    assert len(code) == 16 and pipeline.graph.captions.made_by["settings"]["code"] == code

    (tmp_path / "energyplugin.py").write_text(PLUGIN.replace("self.head(batch", "-self.head(batch"))
    sys.modules.pop("energyplugin")
    found = open_detector(detector.store.url, detector.work)
    with pytest.raises(ConfigError, match="the code of its detector is not that of its training"):
        Graph(found.settings(["plugins+=energyplugin"]), "tree", pipeline.work).check(found)


def _keys(count: int) -> list[tuple[int, int]]:
    from sare_core.training.samples import SampleKey

    return [SampleKey(0, position) for position in range(count)]


def _trusts(detector: Folder, module: str) -> bool:
    """A folder may not say what code runs: its user does."""
    found = open_detector(detector.store.url, detector.work)
    with pytest.raises(ConfigError, match=f"somebody's own code. If you trust it, name its module: --plugin {module}"):
        found.settings()
    return found.settings([f"plugins+={module}"]).detector.detector == "energy"


def test_the_option_stands_for_a_setting() -> None:
    assert with_plugins(["train", "--plugin", "a.b", "--set", "seed=1", "--plugin=c"]) == [
        *("train", "--set", "plugins+=a.b", "--set", "seed=1", "--set", "plugins+=c"),
    ]


def test_a_plugin_that_fails_is_named(module: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--plugin: name a module"):
        with_plugins(["train", "--plugin"])
    for text, said in (
        ("import nowhere_at_all", r"plugins=broken: cannot be imported \(No module named 'nowhere_at_all'\). Install"),
        ("1 / 0", r"plugins=broken: cannot be imported \(ZeroDivisionError: division by zero\). Mend broken"),
    ):
        (tmp_path / "broken.py").write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_settings(STANDIN, ["plugins+=broken"])


def test_a_command_takes_it(module: str, tmp_path: Path, standin_models: Path) -> None:
    index = Pipeline(load_settings(STANDIN), str(tmp_path / "manifests"), "work").index(
        genimage_tree(tmp_path / "tree", per_cell=2, subsets=["sdv1.4"])
    )
    sets = [part for each in [*standin_overrides(standin_models), *LENGTH] for part in ("--set", each)]
    command = [sys.executable, "-m", "stages.app", "caption", "-d", "tree", "-p", STANDIN, *sets, "--plugin", module]
    done = subprocess.run([*command, "--manifests", "manifests"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("work/tree/captions/*/0*.parquet"))) == len(read_index("manifests", "tree").shards)
    assert index.about["dataset"] == "tree"
