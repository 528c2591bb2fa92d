"""The miniature's tokenizers: whole words for what captions say, letters or bytes for anything else."""

from collections.abc import Sequence
from typing import Any

from sare_core.miniature.scenes import CLASSES, GROUNDS, PLACES, SIZES, TONES

WORDS = tuple(dict.fromkeys(("a", "photo", "of", "on", "background", *CLASSES, *SIZES, *TONES, *PLACES, *GROUNDS)))
CONTEXT = 16  # tokens of a prompt, the ends included; the longest caption takes 13


def clip_tokenizer(words: Sequence[str] = WORDS, context: int = CONTEXT) -> Any:
    """A CLIPTokenizer whose merges spell out the words: each is one token, unless an earlier merge splits it."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    symbols = sorted(ByteLevel.alphabet())
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces, grown = [*word[:-1], f"{word[-1]}</w>"], ""
        for piece in pieces:
            if grown and (grown, piece) not in merges:
                merges.append((grown, piece))
                tokens.append(grown + piece)
            grown += piece
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pairs: Any = merges  # transformers takes pairs, its annotation does not
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=context)


def bert_tokenizer(words: Sequence[str] = WORDS) -> Any:
    """A BertTokenizer with the words, for the captioner; [DEC] begins a caption, as BLIP has it."""
    from transformers import BertTokenizer

    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")
    pieces = [letter for letter in letters if letter not in words] + [f"##{letter}" for letter in letters]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *words, *pieces]
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, bos_token="[DEC]")
