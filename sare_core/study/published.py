"""The paper's tables and figures as data: of each the rows, as settings over a preset, and what it is about.

Tables 1 to 4 put detectors side by side, which is `sare compare`. Figures 1 to 3 explain the method and show no result.
"""

import shlex
from enum import StrEnum
from typing import NamedTuple

from sare_core.errors import ConfigError
from sare_core.report.numbers import CLASSES, GAIN
from sare_core.study.variants import NO_CAPTION, STRENGTHS

REAL, FAKE = CLASSES.values()


EXPLAINED = {("figure", number) for number in (1, 2, 3)}


class Kind(StrEnum):
    """What is shown, and so what a row is: predictions of a trained detector, or maps of the test images."""

    compare = "compare"  # filled by another command
    table = "table"  # of detectors
    curve = "curve"  # of detectors, drawn
    shift = "shift"  # of real and fake images, and Δ
    pictures = "pictures"

    @property
    def of_detectors(self) -> bool:
        return self in (Kind.table, Kind.curve)


class Row(NamedTuple):
    """One row. name: may be a format of the row's settings, and then says what they are. backbone: the detector without
    SARE; the one that `detector.start_from` names, where that is set."""

    name: str
    changes: tuple[str, ...] = ()
    backbone: bool = False


class Published(NamedTuple):
    """A table or figure. paper: rows as printed, mean ACC and AUC in percent. pairs: which pairs of a real and a fake
    image that show the same, and `classes` of them."""

    number: int
    title: str
    kind: Kind
    rows: tuple[Row, ...] = ()
    paper: tuple[tuple[str, float, float], ...] = ()
    pairs: range = range(0)
    classes: tuple[str, ...] = ()


_BACKBONE = Row("DRCT", ("detector.detector=drct",), backbone=True)
_CAPTIONER = "{.caption.captioner}"
# The paper is silent on the question and on the length of an answer.
_LLAVA = (
    "caption.captioner=llava-next",
    "caption.model=llava-hf/llama3-llava-next-8b-hf",
    "caption.revision=null",
    "caption.prompt=Describe this image in one sentence.",
    "caption.max_new_tokens=60",
)
_CAPTIONERS = (Row(_CAPTIONER), Row(_CAPTIONER, _LLAVA))

TABLES = (
    Published(1, "accuracy on GenImage", Kind.compare),
    Published(2, "AUC on GenImage", Kind.compare),
    Published(3, "accuracy on ForenSynths", Kind.compare),
    Published(4, "AUC on ForenSynths", Kind.compare),
    Published(
        5,
        "captioners",
        Kind.table,
        (_BACKBONE, *_CAPTIONERS),
        paper=(("DRCT", 88.81, 95.66), ("SARE, BLIP", 93.17, 98.15), ("SARE, LLaVA-NeXT", 92.51, 97.95)),
    ),
    Published(
        6,
        "guidance scale w",
        Kind.table,
        (_BACKBONE, *(Row(f"w = {w}", (f"reconstruct.guidance_scale={w}",)) for w in (2.5, 7.5, 12.5))),
        paper=(
            ("DRCT", 88.81, 95.66),
            ("SARE, w = 2.5", 93.15, 98.24),
            ("SARE, w = 7.5", 93.17, 98.15),
            ("SARE, w = 12.5", 93.04, 98.13),
        ),
    ),
)
FIGURES = (
    Published(
        4,
        "shift with and without captions",
        Kind.shift,
        (Row("with captions"), Row("without captions", tuple(NO_CAPTION))),
    ),
    Published(
        5, "real and fake images redrawn", Kind.pictures, (Row(_CAPTIONER),), pairs=range(8, 12), classes=(REAL, FAKE)
    ),
    Published(6, "real images, two captioners", Kind.pictures, _CAPTIONERS, pairs=range(12, 16), classes=(REAL,)),
    Published(7, "shift, two captioners", Kind.shift, _CAPTIONERS),
    Published(
        8,
        "strength of the noise",
        Kind.curve,
        tuple(Row(f"{strength}", (f"reconstruct.strength={strength}",)) for strength in STRENGTHS),
    ),
    Published(9, "real images, two captioners", Kind.pictures, _CAPTIONERS, pairs=range(4), classes=(REAL,)),
    Published(10, "further real images", Kind.pictures, _CAPTIONERS, pairs=range(4, 8), classes=(REAL,)),
    Published(11, "fake images like those of figure 9", Kind.pictures, _CAPTIONERS, pairs=range(4), classes=(FAKE,)),
    Published(
        12, "fake images like those of figure 10", Kind.pictures, _CAPTIONERS, pairs=range(4, 8), classes=(FAKE,)
    ),
)


def chosen(word: str, published: tuple[Published, ...], numbers: list[int], own_rows: list[Row]) -> list[Published]:
    """Those with these numbers; own_rows: in place of all rows but the backbone's. word: table or figure.

    Raises ConfigError: none has such a number, or another command fills it; two rows of one name.
    """
    known = {each.number: each for each in published}
    for number in numbers:
        if number not in known:
            why = "it explains the method" if (word, number) in EXPLAINED else "the paper has none"
            raise ConfigError(f"{word} {number}: {why}. There are {word}s {min(known)} to {max(known)}.")
        if known[number].kind is Kind.compare:
            raise ConfigError(f"{word} {number}: `sare compare --dataset NAME` fills tables 1 to 4.")
    found = [each for each in published if each.number in numbers]
    if not own_rows:
        return found
    found = [each._replace(rows=(*(row for row in each.rows if row.backbone), *own_rows)) for each in found]
    for each in found:
        names = [row.name for row in each.rows]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"--row {twice[0]}: two rows of {word} {each.number} have this name.")
        if each.kind is Kind.shift and GAIN in names:
            raise ConfigError(f"--row {GAIN}: figure {each.number} calls a difference so; give the row another name.")
    return found


def own_row(text: str) -> Row:
    """A row as --row gives it, NAME=SETTING SETTING …, with no setting for the preset itself. Raises ConfigError."""
    name, equals, settings = text.partition("=")
    if not (name.strip() and equals):
        raise ConfigError(f"--row {text}: write it as NAME=SETTING SETTING …, as 'weak=reconstruct.guidance_scale=1'.")
    try:
        changes = tuple(shlex.split(settings))
    except ValueError as error:
        raise ConfigError(f"--row {text}: {error}.") from error
    return Row(name.strip().replace("{", "{{").replace("}", "}}"), changes)
