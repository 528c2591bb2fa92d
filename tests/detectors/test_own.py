"""A detector of somebody's own: named by module and class, and another one once its code is another."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sare_core.config import Settings, load_settings
from sare_core.detectors import build_detector, code_version, detector_class
from sare_core.errors import ConfigError
from sare_core.graph import Graph
from stages import plan, train
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import Pipeline
from tests.trees import genimage_tree

CODE = '''
import torch
from sare_core.detectors.base import Detector


class Mean(Detector):
    """A linear layer on the means of image and map."""

    def __init__(self, settings, encoders):
        super().__init__(settings, encoders)
        self.head = torch.nn.Linear(6, 1)

    def forward(self, batch):
        image, sare = batch["image"], batch["sare"]
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
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
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
        ("sarre", r"no detector 'sarre'\. The detectors are conv_b, .*, sare, univfd; an own one is written"),
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


def test_an_edited_class_is_trained_and_scored_anew_and_needs_no_encoder(
    module: Path, standin_settings: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    work = module.parent
    changes = [*SMALL, "detector.image_encoder=/none", "detector.semantic_encoder=/none"]
    settings = standin_settings(*changes, "detector.detector=owndetector:Mean")
    pipeline = Pipeline(settings, str(work / "manifests"), str(work / "work"))
    index = pipeline.index(genimage_tree(work / "tree", per_cell=6, subsets=["sdv1.4"]))
    assert pipeline.captions().complete
    assert pipeline.reconstructions().complete

    first = pipeline.detector()
    assert pipeline.predictions(first).complete
    module.write_text(CODE.replace("sare.mean((2, 3))", "sare.flatten(2).amax(2)"))
    sys.modules.pop("owndetector")
    assert Graph(settings, pipeline.dataset, pipeline.work).detector_of(index).fingerprint != first.fingerprint
    with pytest.raises(ConfigError, match=r"is not trained\. Run: sare train"):
        Graph(settings, pipeline.dataset, pipeline.work).trained_detector(index, "mini")
    second = pipeline.detector()
    assert pipeline.predictions(second).complete
    for stage in ("detectors", "predictions"):
        assert len(list((work / "work" / "tree" / stage).iterdir())) == 2

    arguments = {"dataset": "tree", "preset": STANDIN, "work": pipeline.work, "manifests": pipeline.manifests}
    set_ = [
        *standin_overrides(Path(str(settings.caption.model)).parent),
        *changes,
        "detector.detector=owndetector:Mean",
    ]
    plan.plan(**arguments, set_=set_)
    said = " ".join(capsys.readouterr().out.split())
    assert "FLOPs not counted" not in said
    assert "train 0 0 " in said and "evaluate 0 0 12 " in said, "what is done is known; 6 products are 12 FLOPs"
    with pytest.raises(ConfigError, match="cannot be imported"):
        train.train(**arguments, set_=[*set_, "detector.detector=owndetector:Men"])
    assert len(list((work / "work" / "tree" / "detectors").iterdir())) == 2, "a failed attempt leaves no folder"
