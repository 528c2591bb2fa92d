"""What GenImage and ForenSynths hold as released (`manifests/expected/`), held against what was found."""

import json
from importlib.resources import files
from typing import Any

import polars as pl

_LABELS = ("real", "fake")


def compare(layout: str, rows: pl.DataFrame) -> list[str]:
    """One line for each subset, split and label whose number of readable files is not the known one.

    `rows` has a row for every file found: path, subset, split (as released, nothing held out), label, error. Subsets
    of which nothing was found share one line. Empty for a layout of which nothing is known.
    """
    source = files("manifests") / "expected" / f"{layout}.json"
    if not source.is_file():
        return []
    known = json.loads(source.read_text())
    present = set(rows["subset"])
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


def _deviation(readable: pl.Series, count: dict[str, Any], bad: set[str]) -> str:
    have, want = len(readable), count["count"]
    if have > want:
        return f"{have:,}, {have - want:,} more than the {want:,} known ({count['sure']})"
    lost = len(bad - set(readable.str.split("/").list.last()))
    note = f"; {lost} known bad files are among the missing" if lost else ""
    return f"{have:,} of {want:,} ({count['sure']}){note}"


def _bad_names(bad_files: list[dict[str, str]], subset: str, split: str, label: str) -> set[str]:
    cell = {"subset": subset, "split": split, "label": label}
    return {file["name"] for file in bad_files if cell.items() <= file.items()}
