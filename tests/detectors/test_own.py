"""A detector of somebody's own: named by module and class, and another one once its code is another."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sare_core.config import Settings, load_settings
from sare_core.detectors import build_detector, code_version, detector_class
from sare_core.errors import ConfigError
from sare_core.manifest import read_index
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import Pipeline
from tests.trees import genimage_tree

ROOT = Path(__file__).parents[2]
CODE = '''
import torch
from sare_core.detectors.base import Detector


class Mean(Detector):
    """A linear layer on the means of image and map."""

    inputs = ("image", "sare")
    encoders = ()

    def __init__(self, settings, image_encoder_dir, semantic_encoder_dir):
        super().__init__()
        assert image_encoder_dir == semantic_encoder_dir == ""
        self.head = torch.nn.Linear(6, 1)

    def forward(self, image, sare):
        return self.head(torch.cat([image.mean((2, 3)), sare.mean((2, 3))], 1)).squeeze(-1)
'''
SMALL = [
    "reconstruct.longer_side=32",
    "reconstruct.steps=2",
    "caption.max_new_tokens=2",
    "train.epochs=1",
    "train.batch_size=4",
    "train.micro_batch_size=4",
    "train.workers=0",
]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the current folder, forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "owndetector", raising=False)
    path = tmp_path / "owndetector.py"
    path.write_text(CODE)
    yield path
    sys.modules.pop("owndetector", None)


def named(name: str) -> Settings:
    return load_settings(STANDIN, [f"detector.detector={name}"])


def test_a_class_of_the_current_folder(module: Path) -> None:
    detector = build_detector(named("owndetector:Mean").detector)
    assert type(detector).__name__ == "Mean"
    assert len(code_version("owndetector:Mean") or "") == 16
    assert code_version("sare") is code_version("image") is None


def test_a_base_class_in_another_file_counts(module: Path) -> None:
    (module.parent / "ownbase.py").write_text(CODE)
    module.write_text("import ownbase\n\nclass Mean(ownbase.Mean):\n    pass\n")
    before = code_version("owndetector:Mean")
    (module.parent / "ownbase.py").write_text(CODE.replace("Linear(6, 1)", "Linear(6, 1, bias=False)"))
    assert code_version("owndetector:Mean") != before
    sys.modules.pop("ownbase")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "nosuchmodule:Mean",
            r"nosuchmodule:Mean: cannot be imported \(No module named 'nosuchmodule'\)\. Run sare in",
        ),
        ("owndetector:Other", r"cannot be imported \(module 'owndetector' has no attribute 'Other'\)"),
        ("owndetector:torch", r"is no subclass of sare_core\.detectors\.base\.Detector"),
        ("sarre", r"no detector 'sarre'\. The detectors are image, sare; an own one is written"),
        (":Mean", "no detector ':Mean'"),
    ],
)
def test_what_cannot_be_imported_is_told(module: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        detector_class(name)


def test_a_module_that_does_not_compile_is_told(module: Path) -> None:
    module.write_text("class Mean(:\n")
    with pytest.raises(ConfigError, match=r"owndetector:Mean: cannot be imported .*owndetector\.py"):
        detector_class("owndetector:Mean")


def sare(work: Path, stage: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "stages.app", stage, "--dataset", "tree", *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT), "SARE_WORK": str(work / "work"), "COLUMNS": "200"}
    env |= {"SARE_MANIFESTS": str(work / "manifests")}
    done = subprocess.run(command, cwd=work, env=env, text=True, capture_output=True)
    return done.returncode, done.stdout + done.stderr


def test_an_edited_class_is_trained_and_scored_anew_and_needs_no_encoder(
    module: Path, standin_models: Path, standin_settings: Callable[..., Settings]
) -> None:
    work = module.parent
    pipeline = Pipeline(standin_settings(*SMALL), str(work / "manifests"), str(work / "work"))
    pipeline.index(genimage_tree(work / "tree", per_cell=6, subsets=["sdv1.4"]))
    shards = read_index(pipeline.manifests, "tree").shards["shard"].to_list()
    assert pipeline.captions(shards).complete
    assert pipeline.reconstructions(shards).complete
    changes = [*standin_overrides(standin_models), *SMALL, "detector.detector=owndetector:Mean"]
    changes += ["detector.image_encoder=/none", "detector.semantic_encoder=/none"]
    settings = ["--preset", STANDIN, *(part for change in changes for part in ("--set", change))]

    code, said = sare(work, "train", *settings, "--set", "detector.detector=owndetector:Men")
    assert code == 2, said
    assert "cannot be imported" in said
    assert not (work / "work" / "tree" / "detectors").exists()
    code, said = sare(work, "plan", *settings)
    assert code == 0, said
    assert "sare plan only counts image and sare, not detector 'owndetector:Mean'" in " ".join(said.split())

    for stage in ("train", "evaluate"):
        code, said = sare(work, stage, *settings)
        assert code == 0, said
    module.write_text(CODE.replace("sare.mean((2, 3))", "sare.amax((2, 3))"))
    code, said = sare(work, "evaluate", *settings)
    assert code == 2, said
    assert "is not trained" in said
    for stage in ("train", "evaluate"):
        code, said = sare(work, stage, *settings)
        assert code == 0, said
    for stage in ("detectors", "predictions"):
        assert len(list((work / "work" / "tree" / stage).iterdir())) == 2
