"""Scenes and the captions that the web gives them."""

import numpy as np
import pytest

from sare_core.scale_model.scenes import CLASSES, EXTRA_SHARE, EXTRAS, PARTS, Scenes, compose, photograph
from sare_core.scale_model.words import CONTEXT, JOINTS, WORDS, bert_tokenizer, caption, clip_tokenizer, web_captions
from tests.miniature.articles import made_up_articles

ARTICLES, LABELS = made_up_articles(60)
CLASS_OF = LABELS % len(CLASSES)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return compose(ARTICLES, CLASS_OF, range(60))


def test_a_scene_depends_on_its_number_alone(scenes: Scenes) -> None:
    alone = compose(ARTICLES, CLASS_OF, range(7, 9))
    np.testing.assert_array_equal(alone.pixels, scenes.pixels[7:9])
    np.testing.assert_array_equal(alone.extras, scenes.extras[7:9])
    assert scenes.pixels.shape == (60, 32, 32) and scenes.pixels.dtype == np.float32
    assert scenes.pixels.min() >= 0 and scenes.pixels.max() <= 1


def test_extras_are_as_frequent_as_is_said_and_can_be_seen() -> None:
    blank = np.zeros_like(ARTICLES)  # no article hides them
    found = compose(np.tile(blank, (5, 1, 1)), np.zeros(300, int), range(300))
    assert abs(found.extras.mean() - EXTRA_SHARE) < 0.05
    ground = found.pixels - np.median(found.pixels, axis=(1, 2), keepdims=True)
    seen = (np.abs(ground) > 0.18).sum(axis=(1, 2))
    assert seen[~found.extras.any(axis=1)].max() < seen[found.extras.sum(axis=1) >= 2].min()


def test_nobody_sees_anothers_photographs() -> None:
    numbers = [number for part in PARTS.values() for number in part]
    assert len(numbers) == len(set(numbers)) == 42_000


def test_the_camera_depends_on_the_key_alone(scenes: Scenes) -> None:
    both = photograph(scenes.pixels[:2], ["a", "b"])
    np.testing.assert_array_equal(both[1], photograph(scenes.pixels[1:2], ["b"])[0])
    noise = both.astype(float) - scenes.pixels[:2] * 255
    assert 1.5 < noise.std() < 4.5


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_captions_mention_as_many_extras_as_is_said(share: float) -> None:
    scenes = Scenes(np.zeros((4000, 32, 32), np.float32), np.arange(4000) % 6, np.arange(16000).reshape(-1, 4) % 3 == 0)
    captions = web_captions(scenes, share, seed=0)
    said = np.array([[f" {name}" in text for name in EXTRAS] for text in captions])
    assert not (said & ~scenes.extras).any(), "nothing is mentioned that is not there"
    assert said[scenes.extras].mean() == pytest.approx(share, abs=0.03)
    assert captions == web_captions(scenes, share, seed=0)
    if share:
        assert {joint for joint in JOINTS if any(f" {joint} a" in text for text in captions)} == set(JOINTS)


def test_words_are_tokens_and_nearly_every_caption_fits() -> None:
    clip, bert = clip_tokenizer(), bert_tokenizer()
    assert [word for word in WORDS if len(clip.tokenize(word)) > 1] == ["sneaker"]
    assert all(len(bert.tokenize(word)) == 1 for word in WORDS)
    for number, name in enumerate(CLASSES):
        for joint in JOINTS:
            for said in np.ndindex(2, 2, 2, 2):
                text = caption(number, [bool(each) for each in said], joint)
                assert len(clip(text).input_ids) <= CONTEXT or (name == "sneaker" and sum(said) > 2), text
    whole = caption(0, [True] * 4, "next to")
    assert whole == "a photo of a shirt next to a ball and a box and a ring and a cone"
    assert caption(1, [False] * 4) == "a photo of trousers"
    assert set(" ".join(caption(n, [True] * 4, joint) for n in range(6) for joint in JOINTS).split()) <= set(WORDS)
