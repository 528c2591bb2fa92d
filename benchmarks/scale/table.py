"""A line of the table of bars."""

from typing import NamedTuple


class Row(NamedTuple):
    """What was measured, on what, the figure, the bar, and whether it holds."""

    measure: str
    on: str
    figure: str
    bar: str
    holds: bool
