"""Code of the user's own by --plugin: a detector that sees the map alone, and a captioner; no edit here."""

import sys
from collections.abc import Callable, Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest

import sare_core.captioning as captioning
import sare_core.config.plugins as plugins
import sare_core.detectors as detectors
from sare_core.config import load_settings
from sare_core.errors import ConfigError
from stages import caption, evaluate, reconstruct, train
from stages.options import with_plugins
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import Pipeline
from tests.trees import genimage_tree

DETECTOR = """
import torch
from sare_core.detectors import register
from sare_core.detectors.base import Detector


class Mean(Detector):
    needs = frozenset({"sare"})

    def __init__(self, settings, encoders):
        super().__init__(settings, encoders)
        self.head = torch.nn.Linear(3, 1)

    def forward(self, batch):
        return self.head(batch["sare"].mean((2, 3))).squeeze(-1)


register("mean", "ownplugin:Mean")
"""
CAPTIONER = """
from sare_core.captioning import register


def load(settings, weights_dir, device):
    return Path()


class Path:
    name, revision = "path", None

    def caption(self, images, rows):
        return [row["path"] for row in rows]


register("path", "ownplugin:load")
"""
SMALL = ["reconstruct.longer_side=32", "reconstruct.steps=2", "train.epochs=1", "train.batch_size=4"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module beside the repository; it and what it registers are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(detectors, "_DETECTORS", dict(detectors._DETECTORS))
    monkeypatch.setattr(captioning, "CAPTIONERS", dict(captioning.CAPTIONERS))
    yield tmp_path / "ownplugin.py"
    sys.modules.pop("ownplugin", None)


def test_a_detector_of_the_maps_alone_in_a_few_lines(
    module: Path, standin_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module.write_text(DETECTOR)
    lines = [line for line in DETECTOR.splitlines() if line.strip()]
    assert len(lines) <= 12
    work = module.parent
    own = ["plugins+=ownplugin", "detector.detector=mean", "detector.image_encoder=/none"]
    set_ = [*standin_overrides(standin_models), *SMALL, "train.micro_batch_size=4", "train.workers=0", *own]
    pipeline = Pipeline(load_settings(STANDIN, set_), str(work / "manifests"), str(work / "work"))
    pipeline.index(genimage_tree(work / "tree", per_cell=6, subsets=["sdv1.4"]))
    arguments = {"dataset": "tree", "preset": STANDIN, "set_": set_, "work": pipeline.work}
    for command in (caption.caption, reconstruct.reconstruct, train.train, evaluate.evaluate):
        command(**arguments, manifests=pipeline.manifests)  # type: ignore[operator]
    assert "predictions" in capsys.readouterr().out
    (checkpoint,) = (work / "work" / "tree" / "detectors").glob("*/best-*.safetensors")
    assert checkpoint.stat().st_size < 1000, "four numbers, and no encoder"


def test_a_captioner_of_ones_own(module: Path, standin_settings: Callable[..., object]) -> None:
    module.write_text(CAPTIONER)
    settings = load_settings(STANDIN, ["plugins+=ownplugin", "caption.captioner=path", "caption.model=null"])
    captioner = captioning.load_captioner(settings.caption, None, "cpu")
    assert captioner.caption([], [{"path": "a.png"}]) == ["a.png"]
    before = captioning.captioner_code(settings.caption)
    assert before is not None
    module.write_text(CAPTIONER.replace('row["path"]', 'row["path"].upper()'))
    sys.modules.pop("ownplugin")
    assert captioning.captioner_code(settings.caption) != before, "an edited captioner makes other captions"


def test_a_plugin_is_found_whatever_the_order_and_counts_in_no_fingerprint(module: Path) -> None:
    module.write_text(DETECTOR)
    settings = load_settings("mini", ["detector.detector=mean", "plugins=[ownplugin]"])
    assert settings.plugins == ("ownplugin",)
    assert "plugins" not in settings.detector.fingerprint_fields()


def test_the_option_is_short_for_the_setting() -> None:
    given = ["train", "--plugin", "one", "--set", "seed=1", "--plugin=two"]
    expected = ["train", "--set", "plugins+=one", "--set", "seed=1", "--set", "plugins+=two"]
    assert with_plugins(given) == expected


def test_an_entry_point_of_an_installed_package_is_loaded(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module.write_text(DETECTOR)
    package = module.parent / "own_package-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[sare.plugins]\nmean = ownplugin\n")
    sys.path.append(str(module.parent))
    invalidate_caches()
    plugins._load_installed.cache_clear()
    try:
        assert load_settings("mini", ["detector.detector=mean"]).detector.detector == "mean"
    finally:
        plugins._load_installed.cache_clear()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"plugins=ownplugin: cannot be imported \(No module named 'ownplugin'\)\. Run sare in the folder that"),
        ("import nosuchlibrary\n", r"cannot be imported \(No module named 'nosuchlibrary'\)"),
        (
            'from sare_core.detectors import register\nregister("sare", "ownplugin:Mean")\n',
            "cannot be imported .*'sare' is registered already",
        ),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_told(module: Path, text: str | None, said: str) -> None:
    if text is not None:
        module.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_settings("mini", ["plugins=[ownplugin]"])
