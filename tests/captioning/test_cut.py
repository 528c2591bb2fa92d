import gzip
import random
from pathlib import Path

import open_clip
import pytest
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from sare_core.captioning.cut import cut_caption


@pytest.fixture(scope="module")
def tokenizer():
    """CLIP's own vocabulary, which Stable Diffusion uses, from the list of merges that open_clip ships."""
    packed = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    # OpenAI's order of the 256 byte symbols: printable bytes first, then the others.
    symbols = sorted(ByteLevel.alphabet(), key=lambda symbol: (ord(symbol) >= 256, ord(symbol)))
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *("".join(merge) for merge in merges)]
    vocab = {token: n for n, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def fits(tokenizer, text):
    return len(tokenizer(text).input_ids) <= 77


def test_the_vocabulary_is_clips(tokenizer):
    theirs = open_clip.SimpleTokenizer()
    for text in ("a photo of a cat", "Two dogs running, 3 m apart!", "naïve café über 東京"):
        assert tokenizer(text).input_ids[1:-1] == theirs.encode(text)


def test_a_short_caption_stays(tokenizer):
    assert cut_caption(tokenizer, "a photo of a cat") == ("a photo of a cat", 7, False)
    assert cut_caption(tokenizer, "") == ("", 2, False)


def test_a_caption_is_one_line(tokenizer):
    assert cut_caption(tokenizer, "  a photo\n\nof\ta\u00a0 cat \n") == ("a photo of a cat", 7, False)
    assert cut_caption(tokenizer, " \n ") == ("", 2, False)


@pytest.mark.parametrize(("words", "kept"), [(74, 74), (75, 75), (76, 75), (300, 75)])
def test_the_limit_counts_begin_and_end(tokenizer, words, kept):
    caption, n_tokens, truncated = cut_caption(tokenizer, " ".join(["cat"] * words))
    assert (len(caption.split()), n_tokens, truncated) == (kept, words + 2, words > kept)


def test_the_cut_falls_between_words(tokenizer):
    long = "antidisestablishmentarianism"  # several tokens
    words = ["cat"] * 73 + [long, "dog"]
    caption, _, truncated = cut_caption(tokenizer, " ".join(words))
    assert truncated and caption == " ".join(["cat"] * 73)


def test_nothing_that_would_fit_is_lost(tokenizer):
    words = ("a man riding a wave on top of a surfboard, photographed from behind " * 10).split()
    caption, _, truncated = cut_caption(tokenizer, " ".join(words))
    kept = caption.split()
    assert truncated and kept == words[: len(kept)]
    assert fits(tokenizer, caption) and not fits(tokenizer, " ".join(words[: len(kept) + 1]))


def test_a_giant_word_is_cut_inside(tokenizer):
    giant = "".join(random.Random(1).choices("bcdfghjklmnpqrstvwxz", k=5000))
    caption, n_tokens, truncated = cut_caption(tokenizer, giant + " and a cat")
    assert truncated and n_tokens > 1000
    assert giant.startswith(caption) and len(caption) > 75 and fits(tokenizer, caption)


def test_any_text_fits_afterwards(tokenizer):
    draw = random.Random(0)
    alphabets = [
        range(32, 127),
        range(0xA0, 0x250),
        range(0x300, 0x370),
        range(0x4E00, 0x9FFF),
        range(0x1F300, 0x1F700),
    ]
    alphabets += [range(0x600, 0x6FF), [0x20, 0xA, 0x200D, 0xFE0F, 0x27, 0x3C, 0x7C, 0x1F468], range(1, 0xD800)]
    for _ in range(400):
        letters = [chr(code) for code in draw.choice(alphabets)]
        text = "".join(draw.choices([*letters, " "], k=draw.randrange(1, 300)))
        caption, n_tokens, truncated = cut_caption(tokenizer, text)
        assert fits(tokenizer, caption)
        assert n_tokens == len(tokenizer(" ".join(text.split())).input_ids)
        assert truncated == (n_tokens > 77)
        assert " ".join(text.split()).startswith(caption)
        assert "\n" not in caption and caption == caption.strip()


def test_no_warning_about_long_captions(tokenizer, caplog, capfd):
    cut_caption(tokenizer, "cat " * 500)
    assert "longer than" not in caplog.text + capfd.readouterr().err
