"""The distance of equation 7, as far as it can be had without a download."""

import warnings

import numpy as np
import torch

from sare_core.reconstruction.perceptual import load_lpips


def test_the_random_backbone_is_always_the_same_and_leaves_the_generator_alone() -> None:
    rng = np.random.default_rng(0)
    image, other = rng.integers(0, 256, (2, 40, 32, 3), dtype=np.uint8)
    torch.manual_seed(5)
    with warnings.catch_warnings(action="error"):
        distance = load_lpips("alex-random", "cpu")
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    assert load_lpips("alex-random", "cpu")(image, other) == distance(image, other)
    assert distance(image, image) == 0 < distance(image, other)
    np.testing.assert_allclose(distance(image, other), distance(other, image), rtol=1e-6)


def test_it_grows_with_what_is_changed() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(60, 200, (32, 32, 3), dtype=np.uint8)
    distance = load_lpips("alex-random", "cpu")
    changed = []
    for strength in (2, 10, 50):
        noisy = image + strength * rng.normal(size=image.shape)
        changed.append(distance(image, noisy.clip(0, 255).astype(np.uint8)))
    assert changed == sorted(changed) and changed[0] < 0.5 * changed[2]
