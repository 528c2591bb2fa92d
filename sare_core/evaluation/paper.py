"""The paper's own numbers: Tables 1 to 4, as printed, in percent.

All of its detectors are trained on GenImage's SDv1.4. Tables 1 and 2 test on GenImage, 3 and 4 on ForenSynths.
"""

from dataclasses import dataclass
from typing import Literal

from sare_core.evaluation.metrics import FORENSYNTHS, GENIMAGE

Measure = Literal["acc", "auc"]


@dataclass(frozen=True)
class PaperTable:
    number: int
    measure: Measure
    subsets: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]  # detector: a cell for each of `subsets`, then the average as printed

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


TABLE_1 = PaperTable(
    1,
    "acc",
    GENIMAGE,
    {
        "GramNet": (73.32, 96.73, 96.55, 51.73, 58.85, 91.19, 57.05, 48.63, 71.76),
        "Conv-B": (84.59, 100.00, 99.91, 52.86, 57.14, 99.88, 58.77, 50.01, 75.40),
        "UnivFD": (89.56, 96.94, 96.56, 57.20, 71.12, 95.03, 68.67, 57.83, 79.11),
        "DIRE": (51.03, 99.96, 99.91, 51.78, 59.26, 99.79, 50.18, 50.88, 70.35),
        "DE-FAKE": (85.55, 97.93, 97.82, 53.53, 65.28, 91.57, 55.98, 49.16, 74.60),
        "DRCT": (90.89, 94.75, 94.28, 78.54, 87.52, 94.58, 90.12, 79.76, 88.81),
        "DRCT + SARE": (90.32, 97.21, 97.04, 84.47, 93.55, 97.05, 93.66, 92.05, 93.17),
    },
)

TABLE_2 = PaperTable(
    2,
    "auc",
    GENIMAGE,
    {
        "GramNet": (91.54, 99.56, 99.49, 69.87, 83.52, 98.10, 78.40, 39.36, 82.48),
        "Conv-B": (99.54, 100.00, 99.94, 90.10, 96.72, 100.00, 93.82, 86.61, 95.84),
        "UnivFD": (97.54, 99.57, 99.51, 73.09, 89.46, 98.99, 87.53, 79.19, 90.61),
        "DIRE": (78.65, 100.00, 99.94, 71.45, 90.42, 99.99, 62.49, 61.12, 83.01),
        "DE-FAKE": (97.13, 99.81, 99.80, 70.95, 89.26, 98.52, 78.48, 57.60, 86.44),
        "DRCT": (96.91, 99.64, 99.52, 88.47, 94.61, 99.42, 96.44, 90.30, 95.66),
        "DRCT + SARE": (96.83, 99.94, 99.93, 94.87, 98.00, 99.83, 98.31, 97.51, 98.15),
    },
)

TABLE_3 = PaperTable(
    3,
    "acc",
    FORENSYNTHS,
    {
        "GramNet": (49.20, 48.57, 49.73, 48.91, 49.05, 48.70, 47.59, 47.50, 65.56, 57.99, 58.02, 51.89),
        "Conv-B": (54.66, 50.47, 52.50, 50.03, 49.47, 50.19, 49.94, 52.50, 62.5, 66.44, 80.19, 56.26),
        "UnivFD": (67.97, 53.92, 68.47, 67.73, 79.94, 56.21, 38.04, 54.64, 63.89, 65.53, 60.56, 61.54),
        "DIRE": (50.06, 50.03, 49.88, 49.94, 50.05, 49.97, 49.44, 49.59, 53.89, 73.29, 52.58, 52.61),
        "DE-FAKE": (51.20, 48.39, 52.88, 51.49, 63.81, 49.02, 49.46, 47.31, 53.89, 65.30, 51.77, 53.14),
        "DRCT": (74.59, 67.41, 83.10, 92.40, 62.23, 78.89, 41.67, 51.86, 66.11, 79.45, 55.78, 68.50),
        "DRCT + SARE": (84.44, 76.32, 83.17, 90.24, 59.58, 81.28, 46.6, 60.94, 61.39, 85.16, 51.54, 70.97),
    },
)

TABLE_4 = PaperTable(
    4,
    "auc",
    FORENSYNTHS,
    {
        "GramNet": (49.08, 45.59, 50.76, 55.73, 48.46, 34.39, 49.90, 39.23, 75.14, 70.14, 63.88, 52.94),
        "Conv-B": (75.66, 74.59, 77.46, 53.58, 38.18, 62.23, 44.21, 85.55, 86.54, 98.62, 87.58, 71.29),
        "UnivFD": (81.38, 64.79, 84.46, 93.63, 89.31, 80.03, 29.51, 57.22, 74.75, 75.07, 67.96, 72.56),
        "DIRE": (55.64, 52.37, 45.25, 47.64, 51.94, 45.38, 43.86, 62.73, 93.95, 98.44, 84.34, 61.96),
        "DE-FAKE": (55.74, 46.53, 70.09, 76.11, 71.15, 43.10, 51.76, 46.21, 51.93, 77.38, 51.11, 58.28),
        "DRCT": (89.35, 75.73, 92.74, 98.28, 95.93, 88.23, 29.35, 68.55, 79.46, 88.76, 80.01, 79.67),
        "DRCT + SARE": (93.45, 87.05, 92.10, 95.83, 94.80, 90.43, 47.73, 79.10, 77.70, 92.52, 77.68, 84.40),
    },
)

# By the dataset's layout; other layouts have no table in the paper.
PAPER_TABLES: dict[tuple[str, Measure], PaperTable] = {
    ("genimage", "acc"): TABLE_1,
    ("genimage", "auc"): TABLE_2,
    ("forensynths", "acc"): TABLE_3,
    ("forensynths", "auc"): TABLE_4,
}
