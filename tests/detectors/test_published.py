"""The mathematics of each published detector, against formulations of another kind and figures of its own code."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sare_core.config import Settings, load_settings
from sare_core.detectors import build_detector, named_encoders
from sare_core.detectors.drct import contrastive_loss
from sare_core.detectors.encoders import load_backbone, load_text_encoder
from sare_core.detectors.gramnet import gram
from sare_core.detectors.image import ImageDetector
from sare_core.engine.checkpoints import load_tensors, read_checkpoint
from sare_core.errors import ConfigError
from sare_core.plan import models
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import Pipeline
from tests.trees import genimage_tree


def built(*overrides: str) -> Any:
    settings = load_settings(STANDIN, list(overrides)).detector
    torch.manual_seed(0)
    return build_detector(settings, {role: model for role, (model, _) in named_encoders(settings).items()})


def by_pairs(embeddings: Tensor, labels: Tensor) -> float:
    """DRCT's contrastive loss as a sum over ordered pairs, in Python numbers."""
    rows = [[value / sum(v * v for v in row) ** 0.5 for value in row] for row in embeddings.double().tolist()]
    pull, push = [], []
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            distance = sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5
            if i != j and labels[i] == labels[j] and distance > 0:
                pull.append(distance)
            if labels[i] != labels[j] and distance < 1:
                push.append(1 - distance)
    return sum(pull) / max(len(pull), 1) + sum(push) / max(len(push), 1)


@pytest.mark.parametrize("seed", range(3))
def test_the_contrastive_loss_is_that_of_all_pairs(seed: int) -> None:
    """Of embeddings near enough that some pairs are within the margin, and some are not."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = 3 * (torch.randn(9, 4, generator=generator) + 0.5)
    labels = (torch.rand(9, generator=generator) > 0.4).float()
    distances = torch.cdist(normalize(embeddings), normalize(embeddings))[labels[:, None] != labels]
    assert (distances < 1).any() and (distances > 1).any()
    assert contrastive_loss(embeddings, labels).item() == pytest.approx(by_pairs(embeddings, labels), rel=1e-5)


@pytest.mark.parametrize(
    ("embeddings", "labels"),
    [
        (torch.ones(3, 2), torch.tensor([1.0, 1.0, 1.0])),  # no pair of two labels, and no distance
        (torch.eye(2), torch.tensor([0.0, 1.0])),  # further apart than the margin, and no pair of one label
        (torch.ones(1, 2), torch.tensor([1.0])),  # no pair
    ],
)
def test_without_terms_the_contrastive_loss_is_0_and_has_a_gradient(embeddings: Tensor, labels: Tensor) -> None:
    embeddings = embeddings.clone().requires_grad_()
    loss = contrastive_loss(embeddings, labels)
    loss.backward()
    assert loss.item() == 0 == by_pairs(embeddings.detach(), labels)
    assert embeddings.grad is not None and torch.equal(embeddings.grad, torch.zeros_like(embeddings))


def test_drct_weighs_cross_entropy_and_contrast(standin_models: Path) -> None:
    detector = built(*standin_overrides(standin_models), "detector.detector=drct")
    batch = {"image": torch.randn(6, 3, 64, 64), "label": torch.tensor([0.0, 1, 1, 1, 0, 1])}
    logits = detector(batch)
    embeddings = detector.embedding(detector.image_encoder(pixel_values=batch["image"]).image_embeds)
    torch.testing.assert_close(logits, embeddings @ detector.head.weight[0] + detector.head.bias)
    probabilities = logits.sigmoid()
    entropy = -torch.where(batch["label"] == 1, probabilities, 1 - probabilities).log().mean()
    expected = 0.7 * entropy.item() + 0.3 * by_pairs(embeddings.detach(), batch["label"])
    assert detector.loss(logits, batch).item() == pytest.approx(expected, rel=1e-5)


def test_one_logit_learns_as_the_difference_of_two() -> None:
    """DRCT, Conv-B and DE-FAKE have two logits and softmax; here is one."""
    two, labels = torch.randn(7, 2), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    one = binary_cross_entropy_with_logits(two[:, 1] - two[:, 0], labels.float())
    torch.testing.assert_close(torch.nn.functional.cross_entropy(two, labels), one)


def test_x_hat_is_a_fake_whatever_it_is_of() -> None:
    kind, parts = type(built("detector.detector=drct", "detector.architecture=test_convnext")), {"image": 1}
    parts["reconstruction"] = 2
    settings = load_settings(STANDIN, ["detector.detector=drct"]).detector
    assert kind.samples(settings) == ("image", "reconstruction")
    assert [kind.sample("image", parts, label) for label in (0, 1)] == [({"image": 1}, 0), ({"image": 1}, 1)]
    assert [kind.sample("reconstruction", parts, label) for label in (0, 1)] == [({"image": 2}, 1)] * 2


def test_gram_matrices_are_inner_products_of_channels() -> None:
    features = torch.randn(3, 5, 4, 7)
    expected = torch.einsum("bchw,bdhw->bcd", features, features) / (5 * 4 * 7)
    torch.testing.assert_close(gram(features), expected)


def test_gramnet_has_the_tensors_of_its_code() -> None:
    """Its code's state dict: 233 tensors; 11,745,321 numbers with its two logits."""
    detector = built("detector.detector=gramnet")
    state = detector.state_dict()
    assert len(state) == 233
    assert sum(value.numel() for value in state.values()) + 512 + 1 == 11_745_321
    assert detector.hidden[0].in_features == 704


def test_gramnet_sees_the_depths_that_it_should(standin_models: Path) -> None:
    detector, images = built("detector.detector=gramnet").eval(), torch.randn(2, 3, 64, 64)
    given = list[Tensor]()
    for branch in detector.branches:
        branch.register_forward_hook(lambda _, inputs, out: given.append(inputs[0]))
    pooled = list[Tensor]()
    detector.hidden.register_forward_hook(lambda _, inputs, out: pooled.append(inputs[0]))
    detector({"image": images})
    trunk = detector.backbone.network
    stem = trunk.act1(trunk.bn1(trunk.conv1(images)))
    expected = trunk.forward_intermediates(images, intermediates_only=True)  # after the stem, and stages 1 to 4
    for found, wanted in zip(given, [images, stem, trunk.maxpool(stem), *expected[1:4]], strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(pooled[0][:, :512], expected[4].mean((2, 3)))


@pytest.mark.parametrize(
    ("overrides", "parameters"),
    [
        # Their own code's counts, less the second logit.
        (["detector.detector=drct", "detector.backbone=timm/convnext_base.fb_in22k"], 88_618_114 - 1025),
        (["detector.detector=conv_b"], 87_566_464 + 1024 + 1),
        (["detector.detector=de_fake"], 151_277_313 - 1 + 1024 * 512 + 512 + 512 * 256 + 256 + 256 + 1),
    ],
)
def test_the_published_sizes(overrides: list[str], parameters: int) -> None:
    detector = models.detector(load_settings("paper", overrides).detector)
    assert sum(value.numel() for value in detector.parameters()) == parameters


def test_a_probe_normalises_as_its_encoder_was_trained(standin_models: Path) -> None:
    folder = standin_models / "semantic-encoder"
    detector = built("detector.detector=linear_probe", f"detector.backbone={folder}").eval()
    reference = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(reference.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    features = reference((images - mean) / std) / (1 + 1e-5) ** 0.5  # untrained statistics: mean 0, variance 1
    expected = features @ detector.head.weight[0] + detector.head.bias
    torch.testing.assert_close(detector({"image": images}), expected)


@pytest.fixture(scope="module")
def open_clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP as open_clip puts it on the hub."""
    folder = tmp_path_factory.mktemp("open-clip")
    about = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
            "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
        },
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


def test_a_probe_on_a_model_of_open_clip(open_clip_dir: Path) -> None:
    backbone, images = load_backbone(str(open_clip_dir)).eval(), torch.randn(2, 3, 32, 32)
    reference = open_clip.create_model(f"local-dir:{open_clip_dir}").eval()
    torch.testing.assert_close(backbone(images), reference.encode_image(images))
    assert (backbone.width, backbone.size) == (16, 32)
    assert (tuple(backbone.mean), tuple(backbone.std)) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    with torch.device("meta"):
        assert load_backbone(str(open_clip_dir))(torch.empty(1, 3, 32, 32)).shape == (1, 16)
    with pytest.raises(ConfigError, match=r"set detector\.input_size=32"):
        built("detector.detector=linear_probe", f"detector.backbone={open_clip_dir}")


def test_a_backbone_that_lacks_a_weight_is_refused(standin_models: Path, tmp_path: Path) -> None:
    folder = standin_models / "semantic-encoder"
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    state = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in state.items() if name != "conv1.weight"}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"not readable as a timm model.*conv1\.weight"):
        load_backbone(str(tmp_path))


def test_texts_as_transformers_encodes_them(standin_models: Path, tmp_path: Path) -> None:
    """Of a Stable Diffusion the vector of the text's end, of a CLIP its projection; long ones are cut."""
    texts, diffusion = ["a cat", "a red dog " * 30], standin_models / "diffusion"
    tokenizer: Any = AutoTokenizer.from_pretrained(diffusion / "tokenizer")
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    reference = CLIPTextModel.from_pretrained(diffusion / "text_encoder").eval()
    torch.testing.assert_close(load_text_encoder(str(diffusion)).eval()(texts), reference(**tokens).pooler_output)

    config = CLIPTextConfig.from_pretrained(diffusion / "text_encoder")
    config.projection_dim = 12
    whole = CLIPTextModelWithProjection(config).eval()
    whole.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = load_text_encoder(str(tmp_path)).eval()
    assert found.width == 12
    torch.testing.assert_close(found(texts), whole(**tokens).text_embeds)


def test_c2p_clip_has_embeddings_of_length_1(standin_models: Path) -> None:
    detector = built(*standin_overrides(standin_models), "detector.detector=c2p_clip").eval()
    images = torch.randn(2, 3, 64, 64)
    expected = ImageDetector.features(detector, images)
    torch.testing.assert_close(detector.features(images), expected / expected.square().sum(1, keepdim=True).sqrt())


def test_aeroblade_keeps_the_order_of_its_distances(standin_models: Path) -> None:
    detector = built("detector.detector=aeroblade", "detector.lpips=alex-random").train()
    image = torch.rand(5, 3, 64, 64)
    x_hat = image + torch.linspace(0.5, 0.01, 5)[:, None, None, None] * torch.randn(5, 3, 64, 64)
    distances = detector.distance(image, x_hat)
    assert (distances > 0).all() and torch.equal(distances.argsort(), torch.arange(5).flip(0))
    assert not detector.distance(image, image).any()
    torch.nn.init.constant_(detector.steepness, -2.0)
    logits = detector({"image": image, "reconstruction": x_hat})
    assert torch.equal(logits.argsort(), torch.arange(5)), "the nearest is the likeliest fake"


SMALL = [
    *("caption.captioner=none", "caption.model=null", "reconstruct.longer_side=32", "reconstruct.steps=2"),
    *("train.epochs=1", "train.batch_size=4", "train.micro_batch_size=4"),
]


def test_sare_starts_from_a_trained_drct(standin_settings: Callable[..., Settings], tmp_path: Path) -> None:
    def pipeline(*overrides: str) -> Pipeline:
        settings = standin_settings(*SMALL, *overrides)
        return Pipeline(settings, str(tmp_path / "manifests"), str(tmp_path / "work"))

    first = pipeline("detector.detector=drct")
    index = first.index(genimage_tree(tmp_path / "tree", per_cell=6, subsets=["sdv1.4"]))
    assert first.captions().complete and first.reconstructions().complete
    drct = first.detector()
    assert first.predictions(drct).complete
    assert not first.graph.maps_to_score and first.graph.maps

    still = "train.learning_rate=1e-12"
    plain, started = pipeline(still), pipeline(still, f"detector.start_from={drct.fingerprint}")
    assert plain.graph.detector_of(index).fingerprint != started.graph.detector_of(index).fingerprint
    embedding, expected = (weights(folder)["model.embedding.weight"] for folder in (started.detector(), drct))
    torch.testing.assert_close(embedding, expected, atol=1e-6, rtol=0)
    assert (weights(plain.detector())["model.embedding.weight"] - expected).abs().max() > 1e-3

    by_path = pipeline(still, f"detector.start_from={drct.store.url}")
    assert by_path.graph.detector_of(index).fingerprint == started.graph.detector_of(index).fingerprint, "by its bytes"
    with pytest.raises(ConfigError, match=r"start_from: embedding\.bias is not what it is here"):
        pipeline(f"detector.start_from={drct.fingerprint}", "detector.embed_dim=32").detector()
    other = f"detector.image_encoder={other_encoder(tmp_path, standin_settings().detector.image_encoder)}"
    with pytest.raises(ConfigError, match="was trained with other weights of its image_encoder"):
        pipeline(f"detector.start_from={drct.fingerprint}", other).detector()


def weights(folder: Any) -> dict[str, Tensor]:
    best = read_checkpoint(folder.store, "best")
    assert best is not None
    return load_tensors(folder.store, best)


def other_encoder(folder: Path, model: str | None) -> Path:
    copytree(str(model), folder / "other-encoder")
    (folder / "other-encoder" / "notes.txt").write_text("another")
    return folder / "other-encoder"
