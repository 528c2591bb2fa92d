"""Cuts a caption to what the diffusion model's CLIP text encoder takes, instead of leaving that to the pipeline,
which cuts inside words and says so only in a log."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any


def cut_caption(tokenizer: Any, caption: str) -> tuple[str, int, bool]:
    """The caption on one line and short enough, the tokens of the whole one, and whether it was cut.

    tokenizer: transformers' CLIPTokenizer of the text encoder; its model_max_length (77) counts the begin and end
    tokens, and so does the returned number. The cut falls between words; inside one only if the first is too long.
    """

    def length(text: str) -> int:
        return len(tokenizer(text, truncation=False, verbose=False).input_ids)

    words = caption.split()
    line = " ".join(words)
    n_tokens = length(line)
    if n_tokens <= tokenizer.model_max_length:
        return line, n_tokens, False
    kept = _longest(words, lambda part: length(" ".join(part)) <= tokenizer.model_max_length)
    if kept:
        return " ".join(kept), n_tokens, True
    return "".join(_longest(words[0], lambda part: length("".join(part)) <= tokenizer.model_max_length)), n_tokens, True


def _longest(items: Sequence[str], fits: Callable[[Sequence[str]], bool]) -> Sequence[str]:
    """The longest beginning of `items` that fits, by bisection.

    A letter more can be a token less, so a slightly longer beginning may fit too; the one returned surely does.
    """
    return items[: bisect_right(range(1, len(items) + 1), False, key=lambda n: not fits(items[:n]))]
