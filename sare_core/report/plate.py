"""Examples as one picture, for papers and slides: those of one subset, or one image under several captions."""

import base64
import io
import textwrap
from typing import Any, NamedTuple

from sare_core.report.drawing import FAKE, REAL, SOFT, WIDTH, canvas_of, png_of
from sare_core.report.examples import Example, Group, Picture
from sare_core.report.figures import LONGEST, short

COLUMNS = ("image x", "caption", "x̂", "SARE × 2")
_WORDS = 14  # characters of a caption's line


def examples_plate(subset: str, groups: list[Group]) -> bytes:
    """PNG of the groups side by side, a row an example."""
    rows = max(len(group.examples) for group in groups)
    with canvas_of(3.9 * len(groups), 0.55 + 0.95 * rows) as canvas:
        for part, group in zip(canvas.subfigures(1, len(groups), squeeze=False)[0], groups, strict=True):
            part.suptitle(
                f"{group.kind}, {short(subset, LONGEST)}", color={"fake": FAKE}.get(group.kind, REAL), fontsize="medium"
            )
            grid = part.subplots(rows, len(COLUMNS), squeeze=False)
            for axes in grid.flat:
                axes.set_axis_off()
            for axes, title in zip(grid[0], COLUMNS, strict=True):
                axes.set_title(title, color=SOFT, fontsize="small")
            for line, example in zip(grid, group.examples, strict=False):
                _row(line, example)
        return png_of(canvas, dpi=130)  # pictures are small, and so is what they take


class Column(NamedTuple):
    """One image, and what became of it under each row's settings. kind: real or fake."""

    kind: str
    subset: str
    examples: list[Example]


def columns_plate(bands: list[list[Column]], names: list[str], note: str = "") -> bytes:
    """PNG of bands of columns, one over the other: the image, then x̂ over its caption, a row each of `names`.

    note: stands below them.
    """
    words = [[_under(one) for one in column.examples] for band in bands for column in band]
    lines = [max(text.count("\n") for text in of_row) + 1 for of_row in zip(*words, strict=True)]
    heights = [1.2, *(1.15 + 0.15 * count for count in lines)]  # of a band's rows, in inches
    with canvas_of(WIDTH, sum(heights) * len(bands)) as canvas:
        if note:
            canvas.supxlabel(note, color=SOFT, fontsize="small", parse_math=False)
        for part, band in zip(canvas.subfigures(len(bands), 1, squeeze=False)[:, 0], bands, strict=True):
            grid = part.subplots(1 + len(names), len(band), squeeze=False)
            for axes in grid.flat:
                axes.set(xticks=[], yticks=[], anchor="N")
                axes.spines[:].set_visible(False)
            for axes, name in zip(grid[:, 0], ("image x", *(f"x̂, {name}" for name in names)), strict=True):
                axes.set_ylabel(name, color=SOFT, fontsize="small")
            for line, column in zip(grid.T, band, strict=True):
                _column(line, column)
        return png_of(canvas, dpi=200)


def _column(line: Any, column: Column) -> None:
    title = f"{column.kind}, {short(column.subset, _WORDS - 2)}"
    line[0].set_title(title, color={"fake": FAKE}.get(column.kind, REAL), fontsize="small")
    _draw(line[0], column.examples[0].image)
    for axes, example in zip(line[1:], column.examples, strict=True):
        if example.reconstruction:
            _draw(axes, example.reconstruction)
        axes.set_xlabel(_under(example), fontsize="x-small", parse_math=False)


def _under(example: Example) -> str:
    return f"{_wrapped(example, _WORDS + 2)}\n|x − x̂| {example.shift:.1f}"


def _wrapped(example: Example, width: int) -> str:
    return textwrap.fill(example.caption or "(empty)", width, max_lines=5)


def _row(line: Any, example: Example) -> None:
    for axes, picture in zip(line, (example.image, None, example.reconstruction, example.sare), strict=True):
        if picture:
            _draw(axes, picture)
    line[1].set_box_aspect(1)
    line[1].text(0.5, 0.5, _wrapped(example, _WORDS), ha="center", va="center", fontsize="small", parse_math=False)


def _draw(axes: Any, picture: Picture) -> None:
    axes.imshow(_pixels(picture), interpolation="nearest" if picture.crisp else None)


def _pixels(picture: Picture) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(picture.uri.partition("base64,")[2]))).convert("RGB")
