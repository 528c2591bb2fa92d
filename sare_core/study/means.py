"""Means over generators, with their replicates: all of them, those unseen in training, and parts of these."""

from collections.abc import Sequence

import numpy as np

from sare_core.evaluation.bootstrap import draw_generators
from sare_core.evaluation.metrics import CLASS_ONLY, NEAR_COPIES, UNSEEN, WITHOUT_COPIES

READERS = "of these, those that read text"


def add_means(by_subset: dict[str, np.ndarray], trained_on: Sequence[str] | None) -> dict[str, np.ndarray]:
    """The subsets' replicates, and their plain means: of those that were not trained on ("unseen"), of these without
    near-copies of what was trained on, of those that read text too, and of all. Means over unseen generators draw the
    generators again too."""
    unseen = [name for name in by_subset if name not in (trained_on or by_subset)]
    means = {UNSEEN: unseen}
    if not NEAR_COPIES.isdisjoint(trained_on or ()):
        means[WITHOUT_COPIES] = [name for name in unseen if name not in NEAR_COPIES]
        if not CLASS_ONLY.isdisjoint(means[WITHOUT_COPIES]):
            means[READERS] = [name for name in means[WITHOUT_COPIES] if name not in CLASS_ONLY]
    drawn = {name: draw_generators([by_subset[one] for one in names]) for name, names in means.items() if names}
    return by_subset | drawn | {"mean": np.mean(list(by_subset.values()), axis=0)}
