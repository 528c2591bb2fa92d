"""Published layouts, held to networks of those very names: the imported detector gives the same logits."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionModelWithProjection
from typer.testing import CliRunner

import sare_core
from sare_core.detectors.folder import open_detector
from sare_core.detectors.trained import TrainedDetector
from sare_core.engine.checkpoints import load_tensors
from sare_core.errors import ConfigError
from sare_core.importing.folder import Imported, import_detector
from sare_core.importing.layouts import LAYOUTS
from stages.app import app
from stages.import_ import PROJECTS
from tests.conftest import STANDIN, standin_overrides
from tests.detectors.test_registry import blobs
from tests.importing.peers import C2PClip, Contrastive, GramNet, Perceptron, Wrapped, openai_clip, randomized

Import = Callable[..., Imported]


@pytest.fixture
def bring(standin_models: Path, tmp_path: Path) -> Import:
    """`bring("drct", state, "detector.architecture=…")`: a state dict through a file to the folder tmp_path/out."""

    def bring(project: str, state: Any, *overrides: str) -> Imported:
        torch.save(state, tmp_path / "weights.pth")
        sets = [*standin_overrides(standin_models), *overrides]
        return import_detector(project, str(tmp_path / "weights.pth"), str(tmp_path / "out"), STANDIN, sets)

    return bring


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(5, 3, 64, 64)


def imported(folder: Path) -> TrainedDetector:
    detector = open_detector(str(folder), "work")
    settings = detector.settings()
    encoders = {role: str(model) for role, model in detector.about.models.items()}
    return TrainedDetector(settings.detector, encoders, load_tensors(detector.store, detector.best))


def one_logit(outputs: torch.Tensor) -> torch.Tensor:
    """Of two logits what their softmax is a sigmoid of."""
    return (
        outputs[:, 0]
        if outputs.shape[1] == 1
        else torch.log_softmax(outputs, 1)[:, 1] - torch.log_softmax(outputs, 1)[:, 0]
    )


def check(folder: Path, batch: dict[str, torch.Tensor], outputs: torch.Tensor) -> None:
    with torch.no_grad():
        ours = imported(folder).model(batch)
    expected = one_logit(outputs.detach())
    spread = float(expected.std())
    assert spread > 1e-4, "the images do tell"
    torch.testing.assert_close(ours, expected, atol=0.01 * spread, rtol=0)


def test_every_project_is_named_on_the_command_line() -> None:
    assert sorted(LAYOUTS) == list(PROJECTS)


def test_drct_on_clip(bring: Import, standin_models: Path, tmp_path: Path, images: torch.Tensor) -> None:
    clip = openai_clip(standin_models)
    inner = Wrapped(clip, 24)
    peer = randomized(Contrastive(inner, 24))
    found = bring("drct", {f"module.{name}": each for name, each in peer.state_dict().items()})
    assert found.detector == "drct" and "not that of" in found.encoder
    check(tmp_path / "out", {"image": images}, peer(images))


def test_an_image_encoder_that_was_not_tuned_is_left_where_it_is(
    bring: Import, standin_models: Path, tmp_path: Path, images: torch.Tensor
) -> None:
    clip = openai_clip(standin_models)
    ours = CLIPVisionModelWithProjection.from_pretrained(standin_models / "image-encoder").state_dict()
    clip.visual.load_state_dict(openai_names(ours), strict=True)
    peer = Contrastive(Wrapped(clip, 24), 24).eval()
    assert "is that of" in bring("drct", peer.state_dict()).encoder
    tensors = load_tensors(*(getattr(open_detector(str(tmp_path / "out"), "work"), name) for name in ("store", "best")))
    assert {name.split(".")[1] for name in tensors} == {"embedding", "head"}
    check(tmp_path / "out", {"image": images}, peer(images))


def openai_names(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CLIP's image tower from transformers' names to OpenAI's, one tensor at a time."""
    theirs: dict[str, torch.Tensor] = {
        "class_embedding": ours["vision_model.embeddings.class_embedding"],
        "positional_embedding": ours["vision_model.embeddings.position_embedding.weight"],
        "conv1.weight": ours["vision_model.embeddings.patch_embedding.weight"],
        "proj": ours["visual_projection.weight"].T.contiguous(),
    }
    for kind in ("weight", "bias"):
        theirs[f"ln_pre.{kind}"] = ours[f"vision_model.pre_layrnorm.{kind}"]
        theirs[f"ln_post.{kind}"] = ours[f"vision_model.post_layernorm.{kind}"]
        for number in range(sum(name.endswith("layer_norm1.weight") for name in ours)):
            here, there = f"vision_model.encoder.layers.{number}", f"transformer.resblocks.{number}"
            parts = [ours[f"{here}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            theirs[f"{there}.attn.in_proj_{kind}"] = torch.cat(parts)
            theirs[f"{there}.attn.out_proj.{kind}"] = ours[f"{here}.self_attn.out_proj.{kind}"]
            theirs[f"{there}.ln_1.{kind}"] = ours[f"{here}.layer_norm1.{kind}"]
            theirs[f"{there}.ln_2.{kind}"] = ours[f"{here}.layer_norm2.{kind}"]
            theirs[f"{there}.mlp.c_fc.{kind}"] = ours[f"{here}.mlp.fc1.{kind}"]
            theirs[f"{there}.mlp.c_proj.{kind}"] = ours[f"{here}.mlp.fc2.{kind}"]
    return theirs


def test_drct_on_convnext(bring: Import, tmp_path: Path, images: torch.Tensor) -> None:
    peer = randomized(Contrastive(timm.create_model("test_convnext", num_classes=24), 24))
    assert bring("drct", peer.state_dict(), "detector.architecture=test_convnext").detector == "drct"
    check(tmp_path / "out", {"image": images}, peer(images))


def test_baselines_of_drct(bring: Import, standin_models: Path, tmp_path: Path, images: torch.Tensor) -> None:
    peer = randomized(timm.create_model("test_convnext", num_classes=2))
    assert bring("drct", peer.state_dict(), "detector.architecture=test_convnext").detector == "conv_b"
    check(tmp_path / "out", {"image": images}, peer(images))
    (tmp_path / "out").rename(tmp_path / "conv_b")
    peer = randomized(Wrapped(openai_clip(standin_models), 2))
    assert bring("drct", peer.state_dict()).detector == "image"
    check(tmp_path / "out", {"image": images}, peer(images))


def test_univfd(bring: Import, standin_models: Path, tmp_path: Path, images: torch.Tensor) -> None:
    """A training's file, with CLIP and an optimizer; then the linear layer alone, as it was released."""
    peer = randomized(Wrapped(openai_clip(standin_models), 1))
    bring("univfd", {"model": peer.state_dict(), "optimizer": {"lr": 1e-4}, "total_steps": 3})
    check(tmp_path / "out", {"image": images}, peer(images))
    (tmp_path / "out").rename(tmp_path / "first")
    assert bring("univfd", peer.fc.state_dict()).encoder == ""
    encoder = CLIPVisionModelWithProjection.from_pretrained(standin_models / "image-encoder").eval()
    check(tmp_path / "out", {"image": images}, peer.fc(encoder(pixel_values=images).image_embeds))


def test_dire(bring: Import, standin_models: Path, tmp_path: Path, images: torch.Tensor) -> None:
    peer = timm.create_model(f"local-dir:{standin_models / 'semantic-encoder'}", pretrained=False)
    peer.reset_classifier(1)
    peer = randomized(peer)
    found = bring("dire", {"model": peer.state_dict(), "optimizer": {}, "total_steps": 1})
    assert "ADM" in found.differs
    check(tmp_path / "out", {"sare": images}, peer(images))
    with torch.device("meta"):
        names = [
            set(make().state_dict()) for make in (torchvision.models.resnet50, lambda: timm.create_model("resnet50"))
        ]
    assert names[0] == names[1], "DIRE's ResNet-50 is torchvision's"


def test_de_fake(bring: Import, standin_models: Path, tmp_path: Path, images: torch.Tensor) -> None:
    sets = [
        f"detector.image_encoder={standin_models}/image-encoder",
        f"detector.text_encoder={standin_models}/diffusion",
    ]
    width = 32 + CLIPVisionModelWithProjection.from_pretrained(standin_models / "image-encoder").config.projection_dim
    peer = randomized(Perceptron(width))
    bring("de_fake", peer.state_dict(), *sets)
    model = imported(tmp_path / "out").model
    said = torch.zeros(5, 400, dtype=torch.uint8)
    said[:, 0] = torch.arange(97, 102)
    with torch.no_grad():
        seen = model.image_encoder(pixel_values=images).image_embeds
        features = torch.cat([seen, model.text_encoder(["a", "b", "c", "d", "e"])], dim=1)
    check(tmp_path / "out", {"image": images, "caption": said}, peer(features))


@pytest.mark.parametrize("outputs", [1, 2])
def test_gramnet(bring: Import, tmp_path: Path, images: torch.Tensor, outputs: int) -> None:
    peer = randomized(GramNet(outputs))
    assert len(peer.state_dict()) == 233, "as many tensors as its files have"
    bring("gramnet", {"netC": peer.state_dict()} if outputs == 1 else peer.state_dict())
    check(tmp_path / "out", {"image": images}, peer(images))


def test_c2p_clip(bring: Import, standin_models: Path, tmp_path: Path, images: torch.Tensor) -> None:
    peer = randomized(C2PClip(standin_models))
    bring("c2p-clip", peer.state_dict())
    check(tmp_path / "out", {"image": images}, peer(images))


def test_the_folder_says_where_it_is_from_and_scores_an_image(
    standin_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = nn.Linear(
        CLIPVisionModelWithProjection.from_pretrained(standin_models / "image-encoder").config.projection_dim, 1
    )
    save_file(head.state_dict(), "fc_weights.safetensors")
    arguments = ["import", "fc_weights.safetensors", "--from", "univfd", "--out", "uni vfd", "--preset", STANDIN]
    said = CliRunner().invoke(
        app, [*arguments, *(part for each in standin_overrides(standin_models) for part in ("--set", each))]
    )
    assert said.exit_code == 0, said.output
    assert "detector univfd" in said.output and "sare evaluate --dataset … --detector 'uni vfd'" in said.output
    about = json.loads(Path("uni vfd/about.json").read_text())
    assert about["imported"]["project"] == "univfd" and about["imported"]["file"] == "fc_weights.safetensors"
    scored = sare_core.Detector.from_pretrained("uni vfd")(blobs(1))
    assert {each["label"] for each in scored} == {"real", "fake"}


class Pickled(nn.Module):
    """Somebody's class, which a file names."""


def test_a_file_that_does_not_fit_is_refused(bring: Import, standin_models: Path, tmp_path: Path) -> None:
    peer = randomized(Wrapped(openai_clip(standin_models), 1))
    state = peer.state_dict()
    file = str(tmp_path / "weights.pth")
    for project, wrong, what in [
        ("univfd", state | {"extra.weight": torch.zeros(1)}, f"{file}: extra.weight: no tensor of this layout"),
        ("univfd", {"weight": state["fc.weight"]}, f"{file}: .*missing: head.bias"),
        ("univfd", {"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}, "of another shape: head.weight"),
        ("univfd", {"weight": torch.zeros(2, 48), "bias": torch.zeros(2)}, "a head of 2 outputs, where .* have 1"),
        ("drct", {"fc.weight": torch.zeros(1, 48), "fc.bias": torch.zeros(1)}, "a head of 1 outputs, where .* have 2"),
        ("univfd", {"weight": torch.full((1, 48), torch.nan), "bias": torch.zeros(1)}, "weight holds .* not finite"),
        ("gramnet", state, "head.weight: missing in the file"),
        ("drct", {"weight": torch.zeros(2, 2)}, "weight: no tensor of this layout"),
        ("dire", {"epoch": 3}, "no dictionary of tensors"),
        ("dire", [torch.zeros(1)], "no dictionary of tensors"),
        ("drct", Pickled(), "whole pickled module.*weights_only=False"),
    ]:
        with pytest.raises(ConfigError, match=what):
            bring(project, wrong)
        assert not (tmp_path / "out").exists(), "nothing is left behind"


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    for data in (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", b"<!DOCTYPE html>", b""):
        (tmp_path / "evil.pth").write_bytes(data)
        with pytest.raises(ConfigError, match=r"evil\.pth: (no weights, but perhaps a web page|not readable)"):
            import_detector("drct", str(tmp_path / "evil.pth"), str(tmp_path / "out"), STANDIN)
    for data in (pickle.dumps(Evil()), b"\x80\x02garbage"):
        (tmp_path / "evil.pth").write_bytes(data)
        with pytest.raises(ConfigError, match=r"evil\.pth"):
            import_detector("drct", str(tmp_path / "evil.pth"), str(tmp_path / "out"), STANDIN)
    torch.save(Evil(), tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match="pickled module"):
        import_detector("drct", str(tmp_path / "evil.pth"), str(tmp_path / "out"), STANDIN)
    assert not (tmp_path / "ran").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        import_detector("drct", "weights.pth", str(tmp_path / "out"), STANDIN)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
