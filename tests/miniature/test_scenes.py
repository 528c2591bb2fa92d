"""Scenes depend on (seed, number) alone, captions say what is to be seen, and the camera treats all alike."""

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from sare_core.errors import ConfigError
from sare_core.miniature.scenes import (
    ARTICLES,
    CLASSES,
    EXTRA_SHARE,
    EXTRAS,
    NOISE,
    PARTS,
    SIDE,
    Scenes,
    compose,
    photograph,
    read_articles,
)
from sare_core.miniature.words import (
    CONTEXT,
    JOINTS,
    WORDS,
    bags,
    bert_tokenizer,
    caption,
    clip_tokenizer,
    web_captions,
)
from tests.miniature.articles import made_up_articles

IMAGES, LABELS = made_up_articles(60)
CLASS_OF = LABELS % len(CLASSES)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return compose(IMAGES, CLASS_OF, range(60))


def test_a_scene_depends_on_its_number_alone(scenes: Scenes) -> None:
    alone = compose(IMAGES, CLASS_OF, range(7, 9))
    np.testing.assert_array_equal(alone.pixels, scenes.pixels[7:9])
    np.testing.assert_array_equal(alone.extras, scenes.extras[7:9])
    assert scenes.pixels.shape == (60, 32, 32) and scenes.pixels.dtype == np.float32
    assert scenes.pixels.min() >= 0 and scenes.pixels.max() <= 1


def test_extras_are_as_frequent_as_is_said_and_can_be_seen() -> None:
    blank = np.zeros_like(IMAGES)  # no article hides them
    found = compose(np.tile(blank, (5, 1, 1)), np.zeros(300, int), range(300))
    assert abs(found.extras.mean() - EXTRA_SHARE) < 0.05
    ground = found.pixels - np.median(found.pixels, axis=(1, 2), keepdims=True)
    seen = (np.abs(ground) > 0.18).sum(axis=(1, 2))
    assert seen[~found.extras.any(axis=1)].max() < seen[found.extras.sum(axis=1) >= 2].min()


def test_nobody_sees_anothers_photographs() -> None:
    numbers = [number for part in PARTS.values() for number in part]
    assert len(numbers) == len(set(numbers)) == 35_000


def test_the_camera_depends_on_the_key_alone(scenes: Scenes) -> None:
    both = photograph(scenes.pixels[:2], ["a", "b"])
    np.testing.assert_array_equal(both[1], photograph(scenes.pixels[1:2], ["b"])[0])
    noise = both.astype(float) - scenes.pixels[:2] * 255
    assert 1.5 < noise.std() < 4.5


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_captions_mention_as_many_extras_as_is_said(share: float) -> None:
    scenes = Scenes(np.zeros((4000, 32, 32), np.float32), np.arange(4000) % 5, np.arange(16000).reshape(-1, 4) % 3 == 0)
    captions = web_captions(scenes, share, seed=0)
    said = np.array([[f" {name}" in text for name in EXTRAS] for text in captions])
    assert not (said & ~scenes.extras).any(), "nothing is mentioned that is not there"
    assert said[scenes.extras].mean() == pytest.approx(share, abs=0.03)
    assert captions == web_captions(scenes, share, seed=0)
    if share:
        assert {joint for joint in JOINTS if any(f" {joint} a" in text for text in captions)} == set(JOINTS)


def test_each_word_of_a_caption_is_one_token_and_every_caption_fits() -> None:
    clip, bert = clip_tokenizer(), bert_tokenizer()
    for number in range(len(CLASSES)):
        for joint in JOINTS:
            for said in np.ndindex(2, 2, 2, 2):
                text = caption(number, [bool(each) for each in said], joint)
                words = text.split()
                assert len(clip(text).input_ids) == len(words) + 2 <= CONTEXT
                assert clip.decode(clip(text).input_ids, skip_special_tokens=True).split() == words
                assert bert.tokenize(text) == words
    assert len(set(WORDS)) == len(WORDS)
    assert caption(0, [True] * 4, "next to") == "a photo of a shirt next to a ball and a box and a ring and a cone"
    assert caption(1, [False] * 4) == "a photo of trousers"
    odd = clip("Ein Hund? 狗", truncation=True)  # any text tokenises, if into more tokens
    assert clip.unk_token_id not in odd.input_ids[1:-1]


def test_a_bag_holds_the_words_of_a_caption() -> None:
    said, silent = bags([caption(2, [True, False, False, True]), ""])
    assert {word for word, there in zip(WORDS, said, strict=True) if there} == {
        "a", "photo", "of", "sneaker", "with", "ball", "and", "cone"
    }  # fmt: skip
    assert not silent.any()


def test_no_photograph_is_in_two_parts() -> None:
    spans = sorted((part.start, part.stop) for part in PARTS.values())
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert spans[0][0] == 0 and spans[-1][1] <= 35_000
    assert sum(name.startswith("test-") for name in PARTS) == 8


def test_no_two_articles_have_the_same_pixels() -> None:
    """So that parts which are disjoint by number are disjoint: scenes and noise would hide that one comes twice."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("Fashion-MNIST is not installed (Debian: apt-get install dataset-fashion-mnist)")
    articles, _ = read_articles(folder)
    assert len({article.tobytes() for article in articles}) == len(articles) == 35_000


def test_noise_is_as_stated() -> None:
    gray = np.full((400, SIDE, SIDE), 0.5)
    shots = photograph(gray, [str(n) for n in range(400)]).astype(float) - 127.5
    deviations = np.sqrt(shots.var(axis=(1, 2)) - 1 / 12)  # less that of rounding
    assert kstest(deviations, "uniform", (NOISE[0], NOISE[1] - NOISE[0])).pvalue > 1e-3
    assert abs(shots.mean()) < 0.1


def test_articles_are_read_as_they_are_published(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = {}
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 3, 5] = rng.integers(0, 256, count)
        labels = rng.integers(0, 10, count).astype(np.uint8)
        written[part] = images[:, 3, 5], labels
        for kind, header, values in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            with gzip.open(tmp_path / f"{part}-{kind}-ubyte.gz", "wb", compresslevel=1) as file:
                file.write(bytes(header) + values.tobytes())
    images, classes = read_articles(tmp_path)
    every = np.concatenate([written["train"][1], written["t10k"][1]])
    kept = np.isin(every, list(ARTICLES))
    assert images.shape == (kept.sum(), 28, 28)
    assert (images[:, 3, 5] == np.concatenate([written["train"][0], written["t10k"][0]])[kept]).all()
    assert [CLASSES[n] for n in classes[:50]] == [ARTICLES[n] for n in every[kept][:50]]

    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8 + 9_999)))
    with pytest.raises(ConfigError, match=r"t10k-labels.*9999 values instead of 10000"):
        read_articles(tmp_path)
    with pytest.raises(ConfigError, match=r"not there.*dataset-fashion-mnist"):
        read_articles(tmp_path / "elsewhere")
