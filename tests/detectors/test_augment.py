"""The rest of DRCT's augmentations: off they change nothing; on, they are what their names say, and of one geometry."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from sare_core.config import load_settings
from sare_core.config.training import AugmentSettings
from sare_core.detectors.transforms import prepare
from sare_core.errors import ConfigError
from sare_core.training.samples import sample_generator

SETTINGS = load_settings("mini", ["detector.input_size=64", "detector.normalization=none"]).detector
TOGETHER = SETTINGS.model_copy(update={"sare_view": "crop"})
FURTHER = ("jpeg", "scale", "color", "dropout", "gray", "affine")
PHOTOMETRIC = ("jpeg", "color", "dropout", "gray")


def augment(**changes: Any) -> AugmentSettings:
    """Nothing but what is given."""
    off = {"flip": 0, "rotate90": 0, "noise": 0, "noise_variance": (10, 50), "blur": 0, "blur_kernel": (3, 7)}
    return AugmentSettings(**off | changes)


def picture(width: int = 90, height: int = 80, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def prepared(seed: int, image: Image.Image | None = None, settings: Any = TOGETHER, **changes: Any) -> Any:
    """Image and map of one picture, uint8 (64, 64, 3)."""
    image = image or picture()
    views = prepare({"image": image, "sare": image}, settings, augment(**changes), sample_generator(0, seed, "a"))
    return tuple((255 * views[name]).round().to(torch.uint8).permute(1, 2, 0).numpy() for name in ("image", "sare"))


@pytest.mark.parametrize("name", FURTHER)
def test_each_is_drawn_from_the_generator_alone_and_leaves_the_first_draws(name: str) -> None:
    torch.manual_seed(1)
    first = [prepared(seed, **{name: 0.5}) for seed in range(12)]
    state = torch.get_rng_state()
    again = [prepared(seed, **{name: 0.5}) for seed in range(12)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        np.array_equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True)
    )
    same = [np.array_equal(first[seed][0], prepared(seed)[0]) for seed in range(12)]
    assert 0 < sum(same) < 12, "half of the images are as without it, crop and all"


def test_all_off_draws_no_further_numbers() -> None:
    generator, other = (torch.Generator().manual_seed(5) for _ in range(2))
    prepare({"image": picture()}, SETTINGS, augment(), generator)
    torch.rand(9, generator=other)
    assert torch.equal(generator.get_state(), other.get_state())


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_the_map_is_a_measurement_that_only_geometry_touches(name: str) -> None:
    for seed in range(6):
        image, sare = prepared(seed, **{name: 1.0})
        assert not np.array_equal(image, prepared(seed)[0])
        assert np.array_equal(sare, prepared(seed)[1])


def test_geometry_is_shared() -> None:
    everything = {"flip": 0.5, "rotate90": 0.5, "scale": 1.0, "affine": 1.0}
    seen = [prepared(seed, **everything) for seed in range(10)]
    assert all(np.array_equal(image, sare) for image, sare in seen)
    assert len({image.tobytes() for image, _ in seen}) == 10


def test_a_map_seen_as_a_whole_is_moved_as_the_image_is() -> None:
    square = picture(64, 64)  # whole and cropped alike
    for seed in range(6):
        image, sare = prepared(seed, square, SETTINGS, affine=1.0)
        assert np.array_equal(image, sare) and not np.array_equal(image, np.asarray(square))


def test_jpeg_is_pillows_at_a_quality_within_the_range() -> None:
    image = picture(64, 64)

    def coded(quality: int) -> np.ndarray:
        image.save(data := io.BytesIO(), "JPEG", quality=quality)
        return np.asarray(Image.open(data)).astype(int)

    for quality in (30, 75):
        found = prepared(0, image, jpeg=1.0, jpeg_quality=(quality, quality))[0]
        assert np.abs(found - coded(quality)).mean() < 1
        assert np.abs(found - coded(quality)).mean() < np.abs(found - coded(quality + 20)).mean()
    drawn = {prepared(seed, image, jpeg=1.0, jpeg_quality=(30, 32))[0].tobytes() for seed in range(20)}
    assert len(drawn) == 3, "both ends are reached"


def test_scale_is_of_the_content_before_the_crop() -> None:
    image = picture(160, 160)
    half = F.resize(F.pil_to_tensor(image), [80, 80], antialias=True).permute(1, 2, 0).numpy()
    found = prepared(0, image, scale=1.0, scale_factor=(0.5, 0.5))[0]
    assert any(np.array_equal(found, half[y : y + 64, x : x + 64]) for y in range(17) for x in range(17))


def test_color_is_either_of_two_and_within_its_bounds() -> None:
    gray = Image.new("RGB", (64, 64), (120, 120, 120))
    levels = np.array([prepared(seed, gray, color=1.0)[0][0, 0] for seed in range(60)]).astype(int)
    assert (levels == levels[:, :1]).all(), "gray stays gray"
    assert 120 * 0.8 - 51 <= levels.min() < 80 and 160 < levels.max() <= 120 * 1.2 + 51
    red = Image.new("RGB", (64, 64), (200, 40, 40))
    turned = [prepared(seed, red, color=1.0)[0][0, 0].astype(int) for seed in range(60)]
    hues = sum(abs(int(g) - int(b)) > 4 for _, g, b in turned)
    assert 15 < hues < 45, "about half of them have another hue"


def test_dropout_is_squares_or_a_grid() -> None:
    white, blacks = Image.new("RGB", (64, 64), (255, 255, 255)), list[int]()
    for seed in range(30):
        image = prepared(seed, white, dropout=1.0)[0]
        assert set(np.unique(image)) == {0, 255}
        blacks.append(int((image[..., 0] == 0).sum()))
    cell = 64 // 10
    grid = len([n for n in range(64) if n % cell < cell // 2]) ** 2
    assert 5 < blacks.count(grid) < 25
    assert all(64 <= black <= 8 * 64 for black in blacks if black != grid)


def test_gray_is_luma() -> None:
    found = prepared(0, picture(64, 64), gray=1.0)[0]
    assert (found == found[..., :1]).all()
    assert np.abs(found[..., 0].astype(int) - np.asarray(picture(64, 64).convert("L")).astype(int)).max() <= 1


def test_the_shift_is_at_most_a_part_of_the_side_and_brings_in_black() -> None:
    white = Image.new("RGB", (64, 64), (255, 255, 255))
    lost = list[float]()
    for seed in range(40):
        image = prepared(seed, white, affine=1.0, affine_shift=0.25, affine_scale=0, affine_degrees=0)[0]
        rows, columns = ((image[..., 0] == 255).any(axis) for axis in (1, 0))
        lost += [64 - rows.sum(), 64 - columns.sum()]
        assert image[..., 0][np.ix_(rows, columns)].min() == 255, "a rectangle is left"
    assert 12 <= max(lost) <= 16 and min(lost) <= 2


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (63, 65)])
def test_any_size_goes_through(size: tuple[int, int]) -> None:
    everything = {**dict.fromkeys(FURTHER, 1.0), "flip": 0.5, "rotate90": 0.5, "noise": 0.5, "blur": 0.5}
    for seed in range(4):
        for settings in (SETTINGS, TOGETHER):
            assert prepared(seed, picture(*size), settings, **everything)[0].shape == (64, 64, 3)


def test_what_is_off_leaves_the_names_of_folders() -> None:
    before = load_settings("paper").train.fingerprint_fields()["augment"]
    assert set(before) == {"flip", "rotate90", "noise", "noise_variance", "blur", "blur_kernel"}
    after = load_settings("paper", ["train.augment.jpeg=0.5", "train.augment.jpeg_quality=[40, 90]"])
    assert after.train.fingerprint_fields()["augment"] == before | {"jpeg": 0.5, "jpeg_quality": [40, 90]}


@pytest.mark.parametrize("change", ["jpeg_quality=[90, 30]", "jpeg_quality=[0, 30]", "scale_factor=[0, 1]", "gray=2"])
def test_what_makes_no_sense_is_refused(change: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.augment\." + change.partition("=")[0]):
        load_settings("paper", [f"train.augment.{change}"])
