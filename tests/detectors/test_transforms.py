import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from sare_core.config import load_settings
from sare_core.detectors.sare import SareDetector
from sare_core.detectors.transforms import NORMALIZATION
from sare_core.training.samples import sample_generator

SETTINGS = load_settings("paper").detector.model_copy(update={"input_size": 48})
OFF = {"flip": 0.0, "rotate90": 0.0, "noise": 0.0, "blur": 0.0}


def prepare(image, sare, settings, *random, **half):
    views = SareDetector.prepare({"image": image, "sare": sare}, settings, *random, **half)
    return views["image"], views["sare"]


def settings(**changes):
    return SETTINGS.model_copy(update=changes)


def augment(**changes):
    return load_settings("paper").train.augment.model_copy(update=OFF | changes)


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def flat(size, level=128):
    return Image.new("RGB", size, (level, level, level))


def pixels(view, normalization="imagenet"):
    """Back to 8-bit pixels, (S, S, 3)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in NORMALIZATION[normalization])
    levels = (view * std + mean) * 255
    assert (levels - levels.round()).abs().max() < 1e-2
    return levels.round().permute(1, 2, 0).numpy().astype(np.uint8)


def test_constants_are_the_published_ones():
    assert NORMALIZATION["imagenet"] == (list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD))
    assert NORMALIZATION["clip"] == (list(OPENAI_CLIP_MEAN), list(OPENAI_CLIP_STD))


@pytest.mark.parametrize("normalization", ["imagenet", "clip"])
def test_both_views_are_normalised_float32(normalization):
    x, s = prepare(flat((48, 48), 51), flat((48, 48), 204), settings(normalization=normalization))
    mean, std = (np.array(values) for values in NORMALIZATION[normalization])
    assert x.dtype == s.dtype == torch.float32
    assert x.shape == s.shape == (3, 48, 48)
    np.testing.assert_allclose(x[:, 7, 9], (0.2 - mean) / std, rtol=1e-5)
    np.testing.assert_allclose(s[:, 7, 9], (0.8 - mean) / std, rtol=1e-5)


@pytest.mark.parametrize("sare_view", ["whole", "crop"])
def test_the_image_in_place_of_the_map_is_treated_as_a_map_would_be(sare_view):
    image = picture(60, 48)
    control, plain = (settings(sare_view=sare_view, semantic_input=what) for what in ("image", "sare"))
    for seed in range(8):
        random = [(augment(flip=0.5, rotate90=0.5, noise=0.5, blur=0.5), sample_generator(seed, 0, "a")) for _ in "ab"]
        ours = prepare(image, flat((60, 48)), control, *random[0])
        theirs = prepare(image, image, plain, *random[1])
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_image_in_place_of_a_larger_map_is_brought_to_its_size_first():
    image = picture(30, 20)
    enlarged = image.resize((60, 40), Image.Resampling.BILINEAR)
    _, s = prepare(image, flat((60, 40)), settings(semantic_input="image", input_size=40))
    _, expected = prepare(image, enlarged, settings(input_size=40))
    assert (s - expected).abs().max() < 3 / 255 / min(IMAGENET_DEFAULT_STD)  # one level a resampling


def test_a_zero_map_is_zero_whatever_the_map_is_and_leaves_the_image_alone():
    random = [(augment(flip=0.5, rotate90=0.5, noise=1.0), sample_generator(0, 0, "a")) for _ in "ab"]
    x, s = prepare(picture(60, 48), picture(60, 48), settings(semantic_input="zero"), *random[0])
    expected, _ = prepare(picture(60, 48), picture(60, 48), settings(), *random[1])
    assert torch.equal(x, expected)
    assert not pixels(s).any()


@pytest.mark.parametrize("rng", [None, 5])
def test_a_small_image_is_padded_with_black_not_enlarged(rng):
    image = picture(128, 128)
    random = (augment(), torch.Generator().manual_seed(rng)) if rng else ()
    x, _ = prepare(image, flat((512, 512)), settings(input_size=224), *random)
    expected = np.zeros((224, 224, 3), np.uint8)
    expected[48:176, 48:176] = image
    np.testing.assert_array_equal(pixels(x), expected)


def test_padding_and_crop_are_each_centred():
    image = picture(45, 101)  # 3 columns are lacking, 53 rows too many
    x, _ = prepare(image, flat((8, 8)), SETTINGS)
    expected = np.zeros((48, 48, 3), np.uint8)
    expected[:, 1:46] = np.asarray(image)[26:74]
    np.testing.assert_array_equal(pixels(x), expected)


def test_the_whole_map_is_resized():
    sare = picture(90, 60).resize((300, 200), Image.Resampling.BICUBIC)
    _, s = prepare(flat((64, 64)), sare, SETTINGS)
    expected = np.asarray(sare.resize((48, 48), Image.Resampling.BILINEAR)).astype(int)  # Pillow always antialiases
    assert np.abs(pixels(s) - expected).max() <= 1


def test_a_resized_image_has_its_shorter_side_at_the_input_size():
    image = picture(20, 30).resize((100, 150), Image.Resampling.BICUBIC)
    x, _ = prepare(image, image, settings(image_view="resize"))
    expected = np.asarray(image.resize((48, 72), Image.Resampling.BILINEAR)).astype(int)[12:60]
    assert np.abs(pixels(x) - expected).max() <= 1


@pytest.mark.parametrize("image_view", ["crop", "resize"])
@pytest.mark.parametrize("size", [(70, 90), (90, 30), (20, 31)])
def test_a_cropped_map_shares_the_window(size, image_view):
    image = picture(*size)
    both = settings(sare_view="crop", image_view=image_view)
    for seed in range(8):
        random = augment(flip=0.5, rotate90=0.5), torch.Generator().manual_seed(seed)
        x, s = prepare(image, image, both, *random)
        assert torch.equal(x, s)
    x, s = prepare(image, image, both)
    assert torch.equal(x, s)


def test_a_cropped_map_is_brought_to_the_image_first():
    columns = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (80, 1, 3))
    image = Image.fromarray(columns)
    sare = image.resize((400, 320), Image.Resampling.BILINEAR)
    random = augment(flip=0.5, rotate90=0.5), torch.Generator().manual_seed(1)
    x, s = prepare(image, sare, settings(sare_view="crop"), *random)
    assert np.abs(pixels(x).astype(int) - pixels(s)).max() <= 1


def test_flip_and_quarter_turns_are_shared_and_all_eight_occur():
    image = picture(48, 48)
    a = np.asarray(image)
    poses = [np.rot90(b, k).tobytes() for b in (a, a[:, ::-1]) for k in range(4)]
    seen = set()
    for seed in range(80):
        random = augment(flip=0.5, rotate90=0.5), torch.Generator().manual_seed(seed)
        x, s = prepare(image, image, SETTINGS, *random)
        assert torch.equal(x, s)
        seen.add(poses.index(pixels(x).tobytes()))
    assert seen == set(range(8))


def test_a_rectangular_image_turns_before_it_is_cropped():
    image, sare = picture(48, 100), picture(48, 48, seed=1)
    upright = np.asarray(image)
    turned = 0
    for seed in range(20):
        random = augment(rotate90=1.0), torch.Generator().manual_seed(seed)
        x, s = (pixels(view) for view in prepare(image, sare, SETTINGS, *random))
        k = next(k for k in range(4) if np.array_equal(s, np.rot90(np.asarray(sare), k)))
        back = np.rot90(x, -k)
        assert any(np.array_equal(back, upright[top : top + 48]) for top in range(53))
        turned += k % 2
    assert 0 < turned < 20


def test_random_crops_reach_every_place_and_stay_inside():
    image = picture(51, 49)
    a = np.asarray(image)
    windows = {a[y : y + 48, z : z + 48].tobytes(): (y, z) for y in range(2) for z in range(4)}
    places = []
    for seed in range(200):
        x, _ = prepare(image, flat((8, 8)), SETTINGS, augment(), torch.Generator().manual_seed(seed))
        places.append(windows[pixels(x).tobytes()])
    counts = [places.count(place) for place in windows.values()]
    assert min(counts) >= 10  # of 25 expected


def test_noise_has_the_variance_in_levels_and_leaves_the_map():
    image = flat((200, 200))
    random = augment(noise=1.0, noise_variance=(25.0, 25.0)), torch.Generator().manual_seed(0)
    x, s = (pixels(view).astype(float) for view in prepare(image, image, settings(input_size=200), *random))
    assert x.var() == pytest.approx(25 + 1 / 12, rel=0.03)  # 1/12: rounding to whole levels
    assert x.mean() == pytest.approx(128, abs=0.1)
    assert np.corrcoef(x[..., 0].ravel(), x[..., 1].ravel())[0, 1] == pytest.approx(0, abs=0.03)
    assert (s == 128).all()


def test_noise_saturates_instead_of_wrapping():
    random = augment(noise=1.0, noise_variance=(50.0, 50.0)), torch.Generator().manual_seed(0)
    x, _ = prepare(flat((48, 48), 254), flat((48, 48)), SETTINGS, *random)
    assert pixels(x).min() > 200


def test_noise_variance_spans_its_range():
    image, variances = flat((48, 48)), []
    for seed in range(60):
        random = augment(noise=1.0, noise_variance=(10.0, 50.0)), torch.Generator().manual_seed(seed)
        variances.append(pixels(prepare(image, image, SETTINGS, *random)[0]).astype(float).var())
    assert 9 < min(variances) < 15
    assert 45 < max(variances) < 55


def test_blur_is_opencvs_and_leaves_the_map():
    image = picture(48, 48)
    sigmas = {3: 0.8, 5: 1.1, 7: 1.4}
    expected = {
        kernel: gaussian_filter(np.asarray(image, float), (sigma, sigma, 0), mode="mirror", radius=(kernel // 2,) * 3)
        for kernel, sigma in sigmas.items()
    }
    seen = set()
    for seed in range(30):
        random = augment(blur=1.0, blur_kernel=(3, 7)), torch.Generator().manual_seed(seed)
        x, s = (pixels(view) for view in prepare(image, image, SETTINGS, *random))
        seen |= {kernel for kernel, blurred in expected.items() if np.abs(x - blurred).max() <= 1}
        assert np.array_equal(s, np.asarray(image))
    assert seen == set(sigmas)


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (3, 3), (47, 49), (500, 2)])
@pytest.mark.parametrize("sare_view", ["whole", "crop"])
def test_any_size_goes_through(size, sare_view):
    everything = augment(flip=0.5, rotate90=1.0, noise=1.0, blur=1.0)
    for seed in range(4):
        x, s = prepare(
            picture(*size), flat((16, 16)), settings(sare_view=sare_view), everything, sample_generator(0, seed, "a")
        )
        assert x.shape == s.shape == (3, 48, 48)


def test_the_generator_alone_decides():
    image, everything = picture(70, 60), augment(flip=0.5, rotate90=0.5, noise=0.5, blur=0.5)
    torch.manual_seed(1)
    first = [prepare(image, image, SETTINGS, everything, sample_generator(0, e, "a")) for e in range(6)]
    state = torch.get_rng_state()
    again = [prepare(image, image, SETTINGS, everything, sample_generator(0, e, "a")) for e in range(6)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(first[0][0], other[0]) for other in first[1:])


def test_other_probabilities_leave_the_crop_where_it_is():
    image, crops = picture(90, 90), []
    for changes in ({}, {"blur": 1.0, "blur_kernel": (1, 1)}, {"noise": 1.0, "noise_variance": (0.0, 0.0)}):
        crops.append(prepare(image, image, SETTINGS, augment(**changes), sample_generator(0, 0, "a"))[0])
    assert torch.equal(crops[0], crops[1])
    assert torch.equal(crops[0], crops[2])


def test_sample_generators_differ_and_never_change():
    seeds = {
        sample_generator(seed, epoch, image_id).initial_seed()
        for seed in (0, 1, 11)
        for epoch in (0, 1, 11)
        for image_id in ("1a", "a", "b")
    }
    assert len(seeds) == 27
    # printf '0/3/0123456789abcdef0123' | sha256sum
    assert sample_generator(0, 3, "0123456789abcdef0123").initial_seed() == 0x322451D8CD3FF95F


def test_augment_and_rng_go_together():
    for half in ({"augment": augment()}, {"rng": torch.Generator()}):
        with pytest.raises(ValueError, match="go together"):
            prepare(flat((9, 9)), flat((9, 9)), SETTINGS, **half)


@pytest.mark.parametrize("sare_view", ["whole", "crop"])
def test_noise_and_blur_of_the_window_are_those_of_the_whole_image(sare_view):
    """A window as large as any image shows all of it, changed; each smaller one is a part of that, to the bit."""
    changes = {"flip": 0.5, "rotate90": 0.7, "noise": 0.5, "blur": 0.8, "blur_kernel": (1, 9)}
    kinds = set()
    for seed in range(60):
        width, height = torch.randint(20, 90, (2,), generator=torch.Generator().manual_seed(seed)).tolist()
        image, sare = picture(width, height, seed), picture(30, 20)
        random = [(augment(**changes), torch.Generator().manual_seed(seed)) for _ in "ab"]
        drawn = torch.rand(9, generator=torch.Generator().manual_seed(seed))
        x, _ = prepare(image, sare, settings(sare_view=sare_view), *random[0])
        whole = pixels(prepare(image, sare, settings(sare_view=sare_view, input_size=90), *random[1])[0])
        if drawn[5] < 0.7 and int(drawn[6] * 4) % 2:
            width, height = height, width
        top, left = (90 - height) // 2, (90 - width) // 2
        whole = whole[top : top + height, left : left + width]
        at = [int(float(p) * (max(n - 48, 0) + 1)) for p, n in zip(drawn[7:], (height, width), strict=True)]
        part = whole[at[0] : at[0] + 48, at[1] : at[1] + 48]
        y, x_ = ((48 - n) // 2 for n in part.shape[:2])
        expected = np.zeros((48, 48, 3), np.uint8)
        expected[y : y + part.shape[0], x_ : x_ + part.shape[1]] = part
        assert np.array_equal(pixels(x), expected), seed
        kinds.add((bool(drawn[1] < 0.5), bool(drawn[3] < 0.8), width > 48, height > 48))
    assert len(kinds) >= 12
