"""Views are checked against Pillow's own files, SciPy's impulse response and the statistics that they promise."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from sare_core.errors import ConfigError, ImageError
from sare_core.images.views import OPERATIONS, Step, apply_view, parse_view, validate_view, viewed_size

ID = "0123456789abcdef0123"
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)).resize((106, 74))
VIEWS = [
    "raw",
    "jpeg:96",
    "webp:50",
    "blur:1.5",
    "resize:0.37",
    "resize:1.9",
    "crop:0.61",
    "square",
    "noise:4",
    "resize:0.7+square+jpeg:70",
    "crop:0.7+resize:0.3+jpeg:70+noise:2+blur:0.5+webp:90",
]


def pixels(view: str, image: Image.Image = IMAGE, image_id: str = ID) -> np.ndarray:
    return np.asarray(apply_view(image, view, image_id))


def test_parsing() -> None:
    assert parse_view("raw") == [Step("raw")]
    assert parse_view("jpeg:96+blur:2.5") == [Step("jpeg", 96), Step("blur", 2.5)]
    assert validate_view("jpeg:96+blur:2.5") == "jpeg:96+blur:2.5"


@pytest.mark.parametrize(
    "view",
    [
        *[
            "",
            "+",
            "raw+",
            "jpg:96",
            "JPEG:96",
            "jpeg",
            "jpeg:",
            "jpeg:0",
            "jpeg:101",
            "jpeg:96.5",
            "jpeg:-5",
            "jpeg:1e1",
        ],
        *[
            "raw:",
            "raw:1",
            "square:0.5",
            "blur:0",
            "blur:nan",
            "blur:inf",
            "blur:101",
            "crop:1.01",
            "crop:0.0",
            "resize:11",
            "webp:0",
        ],
        *["noise:0", "noise:x", "jpeg:96, blur:2", "jpeg: 96", "jpeg:96 + blur:2", "jpeg:9_6", "jpeg:٩٦"],
    ],
)
def test_bad_views_are_explained(view: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_view(view)
    assert repr(view) in str(caught.value)
    assert "jpeg:96+blur:2" in str(caught.value)
    for name in OPERATIONS:
        assert name in str(caught.value)


@pytest.mark.parametrize("view", VIEWS)
def test_viewed_size_is_the_real_size(view: str) -> None:
    for width, height in [(1, 1), (2, 1), *np.random.default_rng(3).integers(1, 200, (25, 2)).tolist()]:
        image = apply_view(Image.new("RGB", (width, height)), view, ID)
        assert image.size == viewed_size(view, width, height)
        assert image.mode == "RGB"


def test_sizes_are_rounded() -> None:
    assert viewed_size("crop:0.61", 106, 74) == (65, 45)  # 64.66, 45.14
    assert viewed_size("resize:0.5+resize:0.1", 3, 106) == (1, 5)


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_repeatable_and_leave_the_image_alone(view: str) -> None:
    before = IMAGE.tobytes()
    assert np.array_equal(pixels(view), pixels(view))
    assert IMAGE.tobytes() == before


def test_raw_changes_nothing() -> None:
    assert np.array_equal(pixels("raw"), np.asarray(IMAGE))
    assert np.array_equal(pixels("raw+jpeg:80"), pixels("jpeg:80"))


def test_jpeg_and_webp_are_what_a_file_would_hold() -> None:
    buffer = io.BytesIO()
    IMAGE.save(buffer, format="JPEG", quality=60, subsampling=2)  # 2: 4:2:0
    assert np.array_equal(pixels("jpeg:60"), np.asarray(Image.open(buffer)))
    buffer = io.BytesIO()
    IMAGE.save(buffer, format="WEBP", quality=60)
    assert np.array_equal(pixels("webp:60"), np.asarray(Image.open(buffer)))


def test_blur_is_a_true_gaussian_of_the_given_sigma() -> None:
    sigma = 2.0
    point = np.zeros((41, 41, 3), dtype=np.uint8)
    point[20, 20] = 255
    line = point.copy()
    line[:, 20] = 255  # a line's blur is the one-dimensional Gaussian
    row = pixels(f"blur:{sigma}", Image.fromarray(line))[20, :, 1]
    expected = 255 * np.exp(-0.5 * ((np.arange(41) - 20) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    assert np.abs(row - expected).max() <= 1
    flat = Image.new("RGB", (30, 20), (10, 120, 250))
    assert np.array_equal(pixels("blur:3", flat), np.asarray(flat))  # neither dark borders nor mixed channels


def test_noise_has_the_given_deviation_and_no_bias() -> None:
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    noise = pixels("noise:10", grey).astype(float) - 128
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(math.sqrt(100 + 1 / 12), rel=0.01)  # 1/12: rounding
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_noise_belongs_to_the_image_and_the_step() -> None:
    grey = Image.new("RGB", (60, 60), (128, 128, 128))
    first = pixels("noise:10", grey)
    pixels("noise:10", grey, "another")
    assert np.array_equal(pixels("noise:10", grey), first)
    assert np.array_equal(pixels("noise:10.0", grey), first)
    assert np.array_equal(pixels("raw+noise:10", grey), first)
    assert not np.array_equal(pixels("noise:10", grey, "another"), first)


def test_crop_takes_the_centre() -> None:
    assert np.array_equal(pixels("crop:0.5"), np.asarray(IMAGE)[18:55, 26:79])
    assert np.array_equal(pixels("crop:1"), np.asarray(IMAGE))


def test_square_takes_the_middle_of_the_longer_side() -> None:
    assert np.array_equal(pixels("square"), np.asarray(IMAGE)[:, 16:90])
    upright = IMAGE.transpose(Image.Transpose.ROTATE_90)
    assert np.array_equal(pixels("square", upright), np.asarray(upright)[16:90])
    assert viewed_size("square", 106, 74) == viewed_size("square", 74, 106) == (74, 74)
    assert viewed_size("square+resize:0.5", 500, 375) == (188, 188)


def test_after_square_nothing_tells_the_shape_of_the_file() -> None:
    """Against the leak of the aspect ratio: images of one texture, wide, high and square, all come to one size."""
    sizes = {apply_view(IMAGE.resize(size), "square+resize:0.5", ID).size for size in ((96, 64), (64, 96), (64, 64))}
    assert sizes == {(32, 32)}


def test_resize_is_lanczos() -> None:
    expected = IMAGE.resize((53, 37), Image.Resampling.LANCZOS)
    assert np.array_equal(pixels("resize:0.5"), np.asarray(expected))


def test_steps_are_done_from_left_to_right() -> None:
    assert np.array_equal(pixels("blur:2", apply_view(IMAGE, "jpeg:20", ID)), pixels("jpeg:20+blur:2"))
    assert not np.array_equal(pixels("jpeg:20+blur:2"), pixels("blur:2+jpeg:20"))


def test_what_a_codec_cannot_hold_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="16384x1 cannot be stored as WEBP"):
        apply_view(Image.new("RGB", (16384, 1)), "webp:80", ID)
    with pytest.raises(ImageError, match="resize:10 would make"):
        apply_view(Image.new("RGB", (1400, 1400)), "resize:10", ID)
