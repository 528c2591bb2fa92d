"""The state of a work folder as one JSON document, for scripts and dashboards: `sare status --json`.

    {"format": 1, "work": …, "folders": [FOLDER, …], "problems": [text, …]}

problems: folders that cannot be read, with the cure. A FOLDER:

    dataset, stage, fingerprint    which one; stage is captions, reconstructions, detectors or predictions
    url                            where it lies
    runs                           the names of the runs that used it (--run; else the preset's), the latest last
    preset, described              of the last run in it: its preset, and when it began (UTC, ISO 8601)
    shards                         how many are done, open, running, failed, stale; null for detectors
    images_per_second              of one process, from its finished shards; null: none is finished
    eta_seconds                    until all shards are done, at that rate, by those who work on it now; null: not known
    not_done                       [{"reason": …, "shards": n}, …], the most frequent first
    failed_images                  [{"reason": …, "images": n}, …], in shards that are done, the most frequent first
    checkpoint                     of a detector: {"epoch", "epochs", "step", "finished", "best_epoch"}; null: none yet
    holder                         of a detector: who trains it now, or null

Fields may be added without a new format; none is removed or takes another meaning.
"""

import math
from collections import Counter
from typing import Any

from sare_core.engine.audit import Summary

FORMAT = 1
KINDS = ("done", "open", "running", "failed", "stale")


def status_document(work: str, summaries: list[Summary], problems: list[str]) -> dict[str, Any]:
    """What `sare status --json` prints."""
    return {"format": FORMAT, "work": work, "folders": [_folder(each) for each in summaries], "problems": problems}


def _folder(summary: Summary) -> dict[str, Any]:
    folder = summary.folder
    return {
        "dataset": folder.dataset,
        "stage": folder.stage,
        "fingerprint": folder.fingerprint,
        "url": folder.store.url,
        "runs": summary.about.names(),
        "preset": summary.about.preset,
        "described": summary.about.described,
        "shards": None if folder.stage == "detectors" else {kind: summary.count(kind) for kind in KINDS},
        "images_per_second": _number(summary.rate),
        "eta_seconds": _number(summary.eta),
        "not_done": _counted(summary.reasons(), "shards"),
        "failed_images": _counted(summary.failures, "images"),
        "checkpoint": summary.training and summary.training._asdict(),
        "holder": summary.holder,
    }


def _counted(reasons: Counter[str], what: str) -> list[dict[str, Any]]:
    return [{"reason": r, what: n} for r, n in sorted(reasons.items(), key=lambda reason: (-reason[1], reason[0]))]


def _number(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return round(value, 3) if value is not None and math.isfinite(value) else None
