"""What captions say, and the tokenizers for it: whole words for what they say, letters or bytes for anything else."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sare_core.miniature.scenes import CLASSES, EXTRAS, Scenes

# How a caption brings in what it mentions beside the main article; several, as people write differently.
JOINTS = ("with", "and", "next to")
# Classes first: a merge of "next" would split "sneaker".
WORDS = tuple(dict.fromkeys((*CLASSES, *EXTRAS, "a", "photo", "of", "with", "and", "next", "to")))
CONTEXT = 20  # tokens of a prompt, the ends included; the longest caption takes 20


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


def bags(captions: Sequence[str]) -> np.ndarray:
    """Which of WORDS each caption has, (n, len(WORDS)) float32: what generators without a text encoder read."""
    said = [set(text.split()) for text in captions]
    return np.array([[word in words for word in WORDS] for words in said], np.float32)


def clip_tokenizer() -> Any:
    """A CLIPTokenizer whose merges spell out the words: each is one token, unless an earlier merge splits it."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    symbols = sorted(ByteLevel.alphabet())
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces, grown = [*word[:-1], f"{word[-1]}</w>"], ""
        for piece in pieces:
            if grown and (grown, piece) not in merges:
                merges.append((grown, piece))
                tokens.append(grown + piece)
            grown += piece
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pairs: Any = merges  # transformers takes pairs, its annotation does not
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=CONTEXT)


def bert_tokenizer() -> Any:
    """A BertTokenizer with the words, for the captioner; [DEC] begins a caption, as BLIP has it."""
    from transformers import BertTokenizer

    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")
    pieces = [letter for letter in letters if letter not in WORDS] + [f"##{letter}" for letter in letters]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS, *pieces]
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, bos_token="[DEC]")
