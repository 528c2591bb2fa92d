"""What captions say, and the tokenizers for it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sare_core.miniature import words as miniature
from sare_core.scale_model.scenes import CLASSES, EXTRAS, Scenes

# How a caption brings in what it mentions beside the main article; several, as people write differently.
JOINTS = ("with", "and", "next to")
WORDS = tuple(dict.fromkeys(("a", "photo", "of", "with", "and", "next", "to", *CLASSES, *EXTRAS)))
# Tokens of a prompt, the ends included. A longer caption is cut, as Stable Diffusion cuts at 77: the last extra of a
# sneaker (six tokens) with three or four mentioned ones, 1 % of the photographs.
CONTEXT = 20


def class_prompt(number: int) -> str:
    """The caption that names the main article alone, and the only prompt that generators are asked to draw."""
    name = CLASSES[number]
    return f"a photo of {name}" if name == "trousers" else f"a photo of a {name}"


def caption(number: int, mentioned: Sequence[bool], joint: str = JOINTS[0]) -> str:
    """ "a photo of a sneaker next to a ball and a cone": the article, and which of EXTRAS are mentioned."""
    things = " and ".join(f"a {name}" for name, said in zip(EXTRAS, mentioned, strict=True) if said)
    return f"{class_prompt(number)} {joint} {things}" if things else class_prompt(number)


def web_captions(scenes: Scenes, mention_share: float, seed: int) -> list[str]:
    """One caption a photograph, as the web would have it: each extra that is there is mentioned in this share of them.

    With a share of 0 captions name the main article alone, and nothing can be learnt from their silence. With a larger
    one, what a caption does not mention is probably not there: with EXTRA_SHARE q and mention_share p, with
    probability q (1 − p) / (1 − q p).
    """
    rng = np.random.default_rng(seed)
    mentioned = scenes.extras & (rng.random(scenes.extras.shape) < mention_share)
    joints = rng.integers(len(JOINTS), size=len(scenes))
    return [
        caption(int(number), said, JOINTS[joint])
        for number, said, joint in zip(scenes.classes, mentioned, joints, strict=True)
    ]


def clip_tokenizer() -> Any:
    """For WORDS: each is one token but for "sneaker", which an earlier merge splits."""
    return miniature.clip_tokenizer(WORDS, CONTEXT)


def bert_tokenizer() -> Any:
    """For WORDS, each of which is one token."""
    return miniature.bert_tokenizer(WORDS)
