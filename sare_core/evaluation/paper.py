"""The paper's own numbers: Tables 1 to 4, as printed, in percent (paper.json).

All of its detectors are trained on GenImage's SDv1.4. Tables 1 and 2 test on GenImage, 3 and 4 on ForenSynths.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

Measure = Literal["acc", "auc"]


@dataclass(frozen=True)
class PaperTable:
    number: int
    measure: Measure
    subsets: list[str]
    rows: dict[str, list[float]]  # detector: a cell for each of `subsets`, then the average as printed

    def cells(self, detector: str) -> dict[str, float]:
        """Percent by subset."""
        return dict(zip(self.subsets, self.rows[detector][:-1], strict=True))

    def printed_average(self, detector: str) -> float:
        return self.rows[detector][-1]

    def cell_average(self, detector: str) -> float:
        """What the printed average should be: the plain mean of the printed cells."""
        cells = self.rows[detector][:-1]
        return sum(cells) / len(cells)

    def misprinted(self, detector: str) -> bool:
        """The printed average is off by more than the rounding of cells and average to two decimals explains."""
        return abs(self.cell_average(detector) - self.printed_average(detector)) > 0.0101  # 0.005 each, and float error


# By the dataset's layout; other layouts have no table in the paper.
PAPER_TABLES: dict[tuple[str, Measure], PaperTable] = {
    (table["layout"], table["measure"]): PaperTable(table["number"], table["measure"], table["subsets"], table["rows"])
    for table in json.loads((files("sare_core.evaluation") / "paper.json").read_text())
}
