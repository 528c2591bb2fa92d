"""Detectors that see maps alone: what they are shown, and that their scale is learnt from the maps."""

from typing import Any

import pytest
import timm
import torch

from sare_core.config import load_settings
from sare_core.detectors import build_detector
from tests.conftest import STANDIN


def build(folder: str, name: str, **changes: Any) -> Any:
    settings = load_settings(STANDIN, [f"detector.detector={name}"]).detector.model_copy(update=changes)
    torch.manual_seed(0)
    return build_detector(settings, {"semantic_encoder": folder})


def maps(seed: int) -> torch.Tensor:
    """Near 0, as maps are, in coarse blobs."""
    coarse = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(0.1 * coarse, 64) - 2


@pytest.mark.parametrize("standardize", [True, False])
def test_the_map_detector_is_a_linear_layer_on_the_encoder_of_timm(
    semantic_encoder_dir: str, standardize: bool
) -> None:
    detector = build(semantic_encoder_dir, "map", standardize=standardize).eval()
    resnet = timm.create_model(f"local-dir:{semantic_encoder_dir}", pretrained=True, num_classes=0).eval()
    shown = maps(1) / (1 + 1e-5) ** 0.5 if standardize else maps(1)  # untrained statistics: mean 0, variance 1
    expected = resnet(shown) @ detector.head.weight[0] + detector.head.bias
    torch.testing.assert_close(detector({"sare": maps(1)}), expected)


@pytest.mark.parametrize(("name", "views"), [("map", 1), ("difference", 3)])
def test_each_channel_is_brought_to_mean_0_and_variance_1(semantic_encoder_dir: str, name: str, views: int) -> None:
    detector, batch = build(semantic_encoder_dir, name).train(), {"sare": maps(1), "uncaptioned": maps(2)}
    seen = []
    detector.scale.register_forward_hook(lambda _, given, out: seen.append(out))
    detector(batch).sum().backward()
    assert seen[0].shape == (6, 3 * views, 64, 64)
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(3 * views), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen[0].var((0, 2, 3)), torch.ones(3 * views), atol=5e-2, rtol=0)
    assert all(parameter.grad is not None for parameter in detector.parameters()), "the encoder is trained as a whole"
    assert {"scale.running_mean", "scale.running_var"} <= set(detector.trained_state()), "a checkpoint keeps the scale"


def test_constants_of_photographs_play_no_part(semantic_encoder_dir: str) -> None:
    detector = build(semantic_encoder_dir, "map").train()
    with torch.no_grad():
        logits = [detector({"sare": values}) for values in (maps(1), 4 * maps(1) + 3)]
    torch.testing.assert_close(*logits, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "second"), [("difference", "uncaptioned"), ("difference_in_difference", "second_order")]
)
def test_the_difference_is_signed_and_both_maps_are_read(semantic_encoder_dir: str, name: str, second: str) -> None:
    detector = build(semantic_encoder_dir, name).eval()
    one, other = maps(1), maps(2)
    shown = detector.see({"sare": one, second: other})
    torch.testing.assert_close(shown.unflatten(1, (3, 3))[:, 2], one - other)
    logits = detector({"sare": one, second: other})
    assert logits.shape == (6,)
    for batch in ({"sare": maps(3), second: other}, {"sare": one, second: maps(3)}):
        assert (detector(batch) - logits).abs().max() > 1e-5
    swapped = detector({"sare": other, second: one})
    assert (swapped - logits).abs().max() > 1e-5


def test_each_image_is_judged_alone(semantic_encoder_dir: str) -> None:
    detector, batch = build(semantic_encoder_dir, "difference").eval(), {"sare": maps(1), "uncaptioned": maps(2)}
    single = torch.cat([detector({name: values[i : i + 1] for name, values in batch.items()}) for i in range(6)])
    torch.testing.assert_close(detector(batch), single, rtol=1e-4, atol=1e-5)
