"""Scenes depend on (seed, number) alone, say what is to be seen in them, and the camera treats all alike."""

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from sare_core.errors import ConfigError
from sare_core.miniature.scenes import (
    CLASSES,
    GROUNDS,
    NOISE,
    PARTS,
    PLACES,
    SIDE,
    TONES,
    compose,
    photograph,
    read_articles,
)
from sare_core.miniature.words import CONTEXT, WORDS, bert_tokenizer, clip_tokenizer
from tests.miniature.articles import made_up_articles

ARTICLES, LABELS = made_up_articles(60)


def test_no_photograph_is_in_two_parts() -> None:
    spans = sorted((part.start, part.stop) for part in PARTS.values())
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert spans[0][0] == 0 and spans[-1][1] <= 70_000
    assert len(PARTS["models"]) == 30_000 and len(PARTS["detectors"]) == 15_000 and len(PARTS["validation"]) == 2_000
    assert sum(name.startswith("test-") for name in PARTS) == 8


def test_no_two_articles_have_the_same_pixels() -> None:
    """So that parts which are disjoint by number are disjoint: scenes and noise would hide that one comes twice."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("Fashion-MNIST is not installed (Debian: apt-get install dataset-fashion-mnist)")
    articles, _ = read_articles(folder)
    assert len({article.tobytes() for article in articles}) == len(articles) == 70_000


def test_a_scene_does_not_depend_on_its_neighbours() -> None:
    alone, among = compose(ARTICLES, LABELS, range(17, 19)), compose(ARTICLES, LABELS, range(10, 30))
    assert alone.pixels.tobytes() == among.pixels[7:9].tobytes()
    assert alone.rich == among.rich[7:9]
    assert compose(ARTICLES, LABELS, range(17, 19), seed=1).pixels.tobytes() != alone.pixels.tobytes()


def test_what_gives_raw_fashion_mnist_away_is_gone() -> None:
    scenes = compose(ARTICLES, LABELS, range(60))
    assert scenes.pixels.shape == (60, SIDE, SIDE) and scenes.pixels.dtype == np.float32
    assert scenes.pixels.min() > 0.02 and scenes.pixels.max() < 0.98
    shots = photograph(scenes.pixels, [str(n) for n in range(60)])
    assert (shots == 0).mean() < 1e-3 and (shots == 255).mean() < 1e-3


def test_captions_say_what_is_to_be_seen() -> None:
    scenes = compose(ARTICLES, LABELS, range(60))
    for n in range(60):
        word = CLASSES[LABELS[n]]
        assert scenes.coarse[n] == f"a photo of a {word}"
        said = scenes.rich[n].split()
        assert word in said and said[-2] in GROUNDS
        rim = np.concatenate([scenes.pixels[n][0], scenes.pixels[n][:, 0]])
        assert said[-2] == ("bright" if np.median(rim) > 0.5 else "dark")
        mirrored_place = {"left": -1, "middle": 0, "right": 1}[said[7]]
        assert PLACES[scenes.places[n]] == said[7] and abs(mirrored_place) <= 1
        assert said[5] == TONES[scenes.tones[n]]


def test_place_is_where_the_article_stands() -> None:
    """White articles on what is darker: their centre of mass tells left from right."""
    white = np.zeros((40, 28, 28), np.uint8)
    white[:, 4:24, 4:24] = 255
    scenes = compose(white, np.zeros(40, np.uint8), range(40))
    for n in np.flatnonzero(scenes.grounds == 0):
        bright = scenes.pixels[n] > 0.5
        if not bright.any():
            continue
        centre = np.nonzero(bright)[1].mean() + 0.5
        expected = "left" if centre < 15 else "right" if centre > 17 else "middle"
        assert PLACES[scenes.places[n]] == expected or abs(abs(centre - 16) - 1) < 0.3


def test_the_camera_knows_neither_class_nor_neighbours() -> None:
    scenes = compose(ARTICLES, LABELS, range(20)).pixels
    keys = [f"key-{n}" for n in range(20)]
    shots = photograph(scenes, keys)
    assert shots.dtype == np.uint8
    assert photograph(scenes[3:4], keys[3:4]).tobytes() == shots[3:4].tobytes()
    assert photograph(scenes[3:4], ["another"]).tobytes() != shots[3:4].tobytes()


def test_noise_is_as_stated() -> None:
    gray = np.full((400, SIDE, SIDE), 0.5)
    shots = photograph(gray, [str(n) for n in range(400)]).astype(float) - 127.5
    deviations = np.sqrt(shots.var(axis=(1, 2)) - 1 / 12)  # less that of rounding
    assert kstest(deviations, "uniform", (NOISE[0], NOISE[1] - NOISE[0])).pvalue > 1e-3
    assert abs(shots.mean()) < 0.1


def test_each_word_of_a_caption_is_one_token() -> None:
    clip, bert = clip_tokenizer(), bert_tokenizer()
    for text in compose(ARTICLES, LABELS, range(60)).rich:
        words = text.split()
        assert len(clip(text).input_ids) == len(words) + 2 <= CONTEXT
        assert bert.tokenize(text) == words
        assert clip.decode(clip(text).input_ids, skip_special_tokens=True).split() == words
    assert len(set(WORDS)) == len(WORDS)
    odd = clip("Ein Hund? 狗", truncation=True)  # any text tokenises, if into more tokens
    assert clip.unk_token_id not in odd.input_ids[1:-1]


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
    images, labels = read_articles(tmp_path)
    assert images.shape == (70_000, 28, 28)
    assert (images[:, 3, 5] == np.concatenate([written["train"][0], written["t10k"][0]])).all()
    assert (labels == np.concatenate([written["train"][1], written["t10k"][1]])).all()

    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8 + 9_999)))
    with pytest.raises(ConfigError, match=r"t10k-labels.*9999 values instead of 10000"):
        read_articles(tmp_path)
    with pytest.raises(ConfigError, match=r"not there.*dataset-fashion-mnist"):
        read_articles(tmp_path / "elsewhere")
