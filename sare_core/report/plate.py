"""The examples of one subset as one picture, for papers and slides: image, caption, x̂ and SARE, real beside fake."""

import base64
import io
import textwrap
from typing import Any

from sare_core.report.drawing import FAKE, REAL, SOFT, canvas_of, png_of
from sare_core.report.examples import Example, Group, Picture

COLUMNS = ("image x", "caption", "x̂", "SARE × 2")
_WORDS = 14  # characters of a caption's line


def examples_plate(subset: str, groups: list[Group]) -> bytes:
    """PNG of the groups side by side, a row an example."""
    rows = max(len(group.examples) for group in groups)
    with canvas_of(3.9 * len(groups), 0.55 + 0.95 * rows) as canvas:
        for part, group in zip(canvas.subfigures(1, len(groups), squeeze=False)[0], groups, strict=True):
            part.suptitle(f"{group.kind}, {subset}", color={"fake": FAKE}.get(group.kind, REAL), fontsize="medium")
            grid = part.subplots(rows, len(COLUMNS), squeeze=False)
            for axes in grid.flat:
                axes.set_axis_off()
            for axes, title in zip(grid[0], COLUMNS, strict=True):
                axes.set_title(title, color=SOFT, fontsize="small")
            for line, example in zip(grid, group.examples, strict=False):
                _row(line, example)
        return png_of(canvas, dpi=130)  # pictures are small, and so is what they take


def _row(line: Any, example: Example) -> None:
    for axes, picture in zip(line, (example.image, None, example.reconstruction, example.sare), strict=True):
        if picture:
            axes.imshow(_pixels(picture), interpolation="nearest" if picture.crisp else None)
    line[1].set_box_aspect(1)
    words = textwrap.fill(example.caption or "(empty)", _WORDS, max_lines=5)
    line[1].text(0.5, 0.5, words, ha="center", va="center", fontsize="small", parse_math=False)


def _pixels(picture: Picture) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(picture.uri.partition("base64,")[2]))).convert("RGB")
