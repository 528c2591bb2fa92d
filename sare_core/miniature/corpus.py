"""The pictures that models and generators learn from, kept in the work folder between recipes."""

from pathlib import Path

import numpy as np

from sare_core.miniature.scenes import PARTS, Scenes, compose, read_articles

FIELDS = ("pixels", "classes", "extras")


def load_scenes(work: Path, articles: str | Path, part: str) -> Scenes:
    """The scenes of one of PARTS; composed once, then read from `work`."""
    kept = work / f"scenes-{part}.npz"
    if not kept.is_file():
        made = compose(*read_articles(articles), PARTS[part])
        work.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial.npz")
        np.savez(partial, **{name: getattr(made, name) for name in FIELDS})
        partial.replace(kept)
    with np.load(kept) as saved:
        return Scenes(**{name: saved[name] for name in FIELDS})
