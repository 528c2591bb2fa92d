"""What holds for every registered detector: shapes, what learns, one step, checkpoints, and that its needs are its own.

Each is built around stand-ins with random weights; a detector that is added joins `CASES`.
"""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from sare_core.config import Settings, load_settings
from sare_core.config.stored import changed
from sare_core.detectors import build_detector, detector_class, detector_names, named_encoders
from sare_core.detectors.base import Detector
from sare_core.detectors.parts import map_role, maps_to_score, needs_to_score, read_parts
from sare_core.errors import ConfigError
from sare_core.reconstruction import method_of
from tests.conftest import STANDIN, standin_overrides

# Settings beside the detector's name, and the parts that learn.
CASES: dict[str, tuple[list[str], set[str]]] = {
    "aeroblade": (["lpips=alex-random"], {"threshold", "steepness"}),
    "c2p_clip": ([], {"head"}),
    "conv_b": (["backbone=null", "architecture=test_convnext"], {"backbone", "head"}),
    "de_fake": (["image_encoder={models}/image-encoder", "text_encoder={models}/diffusion"], {"hidden", "head"}),
    "difference": ([], {"semantic_encoder", "head"}),
    "difference_in_difference": ([], {"semantic_encoder", "head"}),
    "dire": ([], {"semantic_encoder", "head"}),
    "drct": ([], {"embedding", "head"}),
    "drct, Conv-B": (["architecture=test_convnext", "embed_dim=16"], {"backbone", "embedding", "head"}),
    "drct, tuned": (["tune_image_encoder=true"], {"image_encoder", "embedding", "head"}),
    "gramnet": ([], {"backbone", "branches", "scale", "hidden", "head"}),
    "image": ([], {"head"}),
    "linear_probe": (["backbone={models}/semantic-encoder"], {"head"}),
    "map": ([], {"semantic_encoder", "head"}),
    "sare": ([], {"semantic_encoder", "embedding", "fusion", "head"}),
    "univfd": ([], {"head"}),
}
PICTURES = ("image", "sare", "uncaptioned", "reconstruction", "second_order")
FIELD = {"image": "png", "sare": "sare.png", "reconstruction": "reconstruction.png", "caption": "json"}


def settings_of(case: str, models: Path) -> Settings:
    overrides = [f"detector.{change.format(models=models)}" for change in CASES[case][0]]
    name = f"detector.detector={case.partition(',')[0]}"
    return load_settings(STANDIN, [*standin_overrides(models), name, *overrides])


@pytest.fixture
def build(standin_models: Path) -> Callable[..., Any]:
    def build(case: str, seed: int = 0) -> Detector:
        settings = settings_of(case, standin_models).detector
        torch.manual_seed(seed)
        return build_detector(settings, {role: model for role, (model, _) in named_encoders(settings).items()})

    return build


def parts(kind: type[Detector], number: int) -> dict[str, Any]:
    """Those by which an image is scored, each with a content of its own: blobs, for convolutions to see edges."""
    needs = needs_to_score(kind)
    wanted = needs - {"sare"} | (set(kind.maps) if "sare" in needs else set())
    found: dict[str, Any] = {name: blobs(10 * number + PICTURES.index(name)) for name in wanted if name in PICTURES}
    return found | ({"caption": f"a picture of {number} red cats"} if "caption" in wanted else {})


def blobs(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((80, 72), Image.Resampling.BICUBIC)


def batch_of(case: str, models: Path, changes: dict[int, dict[str, Any]] | None = None, count: int = 8) -> Any:
    settings = settings_of(case, models).detector
    kind = detector_class(settings.detector)
    listed = [parts(kind, number) | (changes or {}).get(number, {}) for number in range(count)]
    samples = [kind.prepare(each, settings) for each in listed]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    return batch | {"label": torch.tensor([float(number % 2) for number in range(count)])}


def loss_of(detector: Detector, batch: dict[str, Tensor]) -> Tensor:
    torch.manual_seed(3)  # of dropout
    return detector.loss(detector(batch).float(), batch)


def test_every_detector_is_here() -> None:
    own = {name for name in detector_names() if detector_class(name).__module__.startswith("sare_core.")}
    assert own == {case.partition(",")[0] for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_one_logit_an_image_and_only_what_is_meant_learns(case: str, build: Any, standin_models: Path) -> None:
    detector, batch = build(case).train(), batch_of(case, standin_models)
    logits = detector(batch)
    assert logits.shape == (8,) and logits.isfinite().all()
    loss_of(detector, batch).backward()
    found = {name for name, value in detector.named_parameters() if value.grad is not None and value.grad.any()}
    assert {name.partition(".")[0] for name in found} == CASES[case][1]
    learning = {name.partition(".")[0] for name, value in detector.named_parameters() if value.requires_grad}
    assert learning == CASES[case][1]
    frozen = {name for name, _ in detector.named_children()} - learning - {"scale"}
    assert not any(module.training for name in frozen for module in detector.get_submodule(name).modules())


@pytest.mark.parametrize("case", CASES)
def test_a_step_lowers_the_loss(case: str, build: Any, standin_models: Path) -> None:
    detector, batch = build(case).train(), batch_of(case, standin_models)
    optimizer = torch.optim.SGD([value for value in detector.parameters() if value.requires_grad], lr=1e-3)
    before = loss_of(detector, batch)
    before.backward()
    optimizer.step()
    assert loss_of(detector, batch) < before


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_holds_what_is_not_frozen_and_brings_it_back(case: str, build: Any, standin_models: Path) -> None:
    first, second, batch = build(case), build(case, seed=1), batch_of(case, standin_models)
    if CASES[case][1] != {"threshold", "steepness"}:  # which begin at 0
        assert not torch.equal(first.eval()(batch), second.eval()(batch))
    loss_of(first.train(), batch)  # moves BatchNorm's statistics, which belong to it
    state = {name: value.clone() for name, value in first.trained_state().items()}
    assert {name.partition(".")[0] for name in state} - {"scale"} == CASES[case][1] - {"scale"}
    second.load_trained(state)
    assert torch.equal(first.eval()(batch), second.eval()(batch))
    with pytest.raises(ConfigError, match="does not fit the detector"):
        second.load_trained(dict(list(state.items())[1:]))


@pytest.mark.parametrize("case", CASES)
def test_all_that_it_needs_counts(case: str, build: Any, standin_models: Path) -> None:
    """And an image is judged alone: what is changed in one changes no other."""
    detector, kind = build(case).eval(), type(build(case))
    logits = detector(batch_of(case, standin_models))
    for name in parts(kind, 0):
        other = parts(kind, 99)[name]
        moved = (detector(batch_of(case, standin_models, {2: {name: other}})) - logits).abs() > 1e-7
        assert moved.tolist() == [number == 2 for number in range(8)], name


class Shard:
    """A shard that holds all that there is of an image, and notes what is read of it."""

    def __init__(self) -> None:
        self.read_fields: set[str] = set()

    def fields(self, key: str) -> set[str]:
        return set(FIELD.values())

    def read(self, key: str, field: str) -> bytes:
        self.read_fields.add(field)
        if field == "json":
            return json.dumps({"caption": "a cat"}).encode()
        blobs(1).save(data := io.BytesIO(), "PNG")
        return data.getvalue()


@pytest.mark.parametrize("case", CASES)
def test_nothing_else_is_read(case: str, build: Any, standin_models: Path, tmp_path: Path) -> None:
    settings = settings_of(case, standin_models).detector
    kind = detector_class(settings.detector)
    blobs(1).save(tmp_path / "x.png")
    digest = hashlib.sha256((tmp_path / "x.png").read_bytes()).hexdigest()
    row = {"image_id": "0", "extension": "png", "path": "x.png", "shard": 0, "sha256": digest}
    for scoring, needs, maps in (
        (False, kind.needs, kind.maps),
        (True, needs_to_score(kind), maps_to_score(kind)),
    ):
        shards: Any = {map_role(name): Shard() for name in maps}
        found = read_parts(kind, shards, str(tmp_path), row, "raw", scoring)
        read = {field for shard in shards.values() for field in shard.read_fields}
        assert read == ({FIELD[need] for need in needs} if maps else set()), "without maps there is but the file"
        for name in kind.samples(settings)[: 1 if scoring else None]:
            sample = kind.prepare(kind.sample(name, found, 0)[0], settings)
            assert build(case).eval()({name: value[None] for name, value in sample.items()}).shape == (1,)


@pytest.mark.parametrize("case", CASES)
def test_its_maps_are_settings_that_there_are(case: str, standin_models: Path) -> None:
    settings = settings_of(case, standin_models)
    for changes in detector_class(settings.detector.detector).maps.values():
        method_of(changed(settings, changes).reconstruct)


@pytest.mark.parametrize("preset", ["paper", "mini"])
def test_published_constants_come_before_those_of_the_preset(preset: str) -> None:
    assert load_settings(preset).detector.normalization == "imagenet"
    assert load_settings(preset, ["detector.detector=univfd"]).detector.normalization == "clip"
    chosen = ["detector.normalization=imagenet", "detector.detector=univfd"]
    assert load_settings(preset, chosen).detector.normalization == "imagenet", "what is said comes first"
    assert load_settings(preset, ["detector.detector=image"]).detector.normalization == "imagenet"


def test_a_revision_goes_with_its_model(tmp_path: Path) -> None:
    pinned = load_settings("paper", ["detector.image_encoder_revision=abc"]).model_dump(mode="json")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(pinned))
    revisions = [
        load_settings(str(tmp_path / "own.yaml"), [f"detector.detector={name}"]).detector.image_encoder_revision
        for name in ("image", "de_fake")
    ]
    assert revisions == ["abc", None]


def test_a_preset_may_have_settings_for_other_detectors(tmp_path: Path) -> None:
    conv_b: Any = load_settings("mini", ["detector.detector=conv_b"]).detector
    assert (conv_b.backbone, conv_b.architecture) == (None, "test_convnext")
    assert load_settings("paper", ["detector.detector=conv_b"]).detector.backbone == "timm/convnext_base.fb_in22k"  # type: ignore[attr-defined]
    (tmp_path / "own.yaml").write_text("detectors: [conv_b]")
    with pytest.raises(ConfigError, match="setting detectors: write settings by the name of a detector"):
        load_settings(str(tmp_path / "own.yaml"))
    with pytest.raises(ConfigError, match="backbone and architecture: each names the network"):
        load_settings("mini", ["detector.detector=conv_b", "detector.backbone=timm/resnet18.tv_in1k"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["detector=conv_b", "backbone=null"], "setting detector.backbone is missing: detector conv_b loads it"),
        (["detector=conv_b", "backbone=null", "architecture=resnet19"], "architecture=resnet19: no model of timm"),
        (["detector=gramnet", "architecture=test_convnext"], "takes a ResNet-18 or ResNet-34 of timm"),
        (
            ["detector=linear_probe", "backbone=null", "architecture=vit_tiny_patch16_224"],
            "set detector.input_size=224",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_told(changes: list[str], said: str) -> None:
    settings = load_settings(STANDIN, [f"detector.{change}" for change in changes]).detector
    with pytest.raises(ConfigError, match=said):
        build_detector(settings, {role: str(model) for role, (model, _) in named_encoders(settings).items()})
