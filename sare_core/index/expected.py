"""What GenImage and ForenSynths hold as released (`manifests/expected/`), compared with what was found.

Their layouts also hold other images: small samples, own data, the scale model. To those, the known counts and the
paper's numbers say nothing. `is_release` is the one rule that tells.
"""

import json
from importlib.resources import files
from typing import Any

import polars as pl

_LABELS = ("real", "fake")
_SOURCES = {  # how a count is known
    "measured": "counted in a copy",
    "calculated": "calculated from totals",
    "recalled": "from the literature, unchecked",
}
_MOST = 0.5  # of the known images of the subsets that are there


def is_release(layout: str, rows: pl.DataFrame, split: str) -> bool:
    """Whether a split's images are, by their number, the released data set, or whole subsets of it.

    `rows` has the columns subset, split, label and error. True from half of the known images of the subsets that the
    split has rows of: some may be missing or unreadable.
    """
    rows = rows.filter(pl.col("split") == split, pl.col("label").is_not_null())
    splits = [cells.get(split) for name, cells in _known(layout)["subsets"].items() if name in set(rows["subset"])]
    expected = sum(cell["count"] for counts in splits if counts for cell in counts.values() if cell)
    return 0 < expected * _MOST <= rows["error"].is_null().sum()


def compare(layout: str, rows: pl.DataFrame) -> list[str]:
    """One line for each subset, split and label whose number of readable files is not the known one.

    `rows` has a row for every file found: path, subset, split (as released, nothing held out), label, error. Subsets
    of which nothing was found share one line. Empty for images that are not the release in any split.
    """
    known, present = _known(layout), set(rows["subset"])
    if not any(is_release(layout, rows, split) for split in set(rows["split"])):
        return []
    lines = []
    for subset, splits in known["subsets"].items():
        if subset in present:
            for split, counts in splits.items():
                cell = rows.filter(pl.col("subset") == subset, pl.col("split") == split)
                for label, count in enumerate(counts[name] for name in _LABELS):
                    readable = cell.filter(pl.col("label") == label, pl.col("error").is_null())["path"]
                    if count and len(readable) != count["count"]:
                        bad = _bad_names(known["bad_files"], subset, split, _LABELS[label])
                        lines.append(f"{subset} {split}/{_LABELS[label]}: {_deviation(readable, count, bad)}")
    if absent := sorted(known["subsets"].keys() - present):
        lines.append(f"nothing found of {', '.join(absent)}")
    return lines


def _known(layout: str) -> dict[str, Any]:
    source = files("manifests") / "expected" / f"{layout}.json"
    return json.loads(source.read_text()) if source.is_file() else {"subsets": {}, "bad_files": []}


def _deviation(readable: pl.Series, count: dict[str, Any], bad: set[str]) -> str:
    have, want, source = len(readable), count["count"], _SOURCES[count["sure"]]
    if have > want:
        return f"{have:,}, {have - want:,} more than the {want:,} known ({source})"
    lost = len(bad - set(readable.str.split("/").list.last()))
    note = f"; {lost} known bad files are among the missing" if lost else ""
    return f"{have:,} of {want:,} ({source}){note}"


def _bad_names(bad_files: list[dict[str, str]], subset: str, split: str, label: str) -> set[str]:
    cell = {"subset": subset, "split": split, "label": label}
    return {file["name"] for file in bad_files if cell.items() <= file.items()}
