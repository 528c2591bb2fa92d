"""The words that folders and tables use for labels and splits, whatever their case and punctuation."""

import re

REAL, FAKE = 0, 1
LABELS = dict.fromkeys(("real", "reals", "0real", "nature", "natural", "human", "authentic", "genuine"), REAL)
LABELS |= dict.fromkeys(("fake", "fakes", "1fake", "ai", "aigenerated", "generated", "synthetic", "artificial"), FAKE)
# These name a label even where the other label is nowhere to be seen; "nature" alone may be a subject.
CERTAIN = {"real", "reals", "0real", "fake", "fakes", "1fake"}
# Labels of known data sets in words that may mean anything alone, as folders beside each other.
PAIRS = [
    *({"original", "manipulated"}, {"originals", "manipulated"}, {"originalsequences", "manipulatedsequences"}),
    *({"au", "tp"}, {"live", "spoof"}, {"true", "false"}, {"positive", "negative"}),
    *({"class0", "class1"}, {"label0", "label1"}),
]
SPLITS = dict.fromkeys(("train", "training"), "train")
SPLITS |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
SPLITS |= dict.fromkeys(("test", "testing"), "test")

_LABEL_LIKE = re.compile(
    r"(^|[^a-z])(reals?|fakes?|ai|synthetic|generated)([^a-z]|$)|^(real|fake)|(images?|imgs?|photos?|data)(real|fake)$"
)
_SPLIT_LIKE = re.compile(r"(^|[^a-z])(train|training|test|testing|val|valid|validation|eval)(set|ing)?([^a-z]|$)")


def plain(name: str) -> str:
    """A name in lower case without punctuation: the form of the keys above. Other letters stay, and doubts (?)."""
    return re.sub(r"[^\w?]|_", "", name.lower())


def is_label_like(name: str) -> bool:
    """Whether a name seems to hold a label: real_images, not surreal."""
    return plain(name) in LABELS or _LABEL_LIKE.search(name.lower()) is not None


def is_split_like(name: str) -> bool:
    """Whether a name seems to hold a split: train2017, test-set."""
    return plain(name) in SPLITS or _SPLIT_LIKE.search(name.lower()) is not None
