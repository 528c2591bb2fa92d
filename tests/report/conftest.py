"""A forged run and its report, made once a session."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stages.report import report
from tests.pipeline import Pipeline
from tests.report.forged import forge, settings_of

NOTE = "Forged for the tests: these numbers mean nothing."
SUBSETS = ("midjourney", "sdv1.4", "biggan")


class Made(NamedTuple):
    """The run, its `--set` arguments, and the folder of its report."""

    pipeline: Pipeline
    overrides: list[str]
    folder: Path

    def again(self, **options: Any) -> None:
        where = {"work": self.pipeline.work, "manifests": self.pipeline.manifests}
        report(self.pipeline.dataset, set_=self.overrides, **{"preset": "mini"} | where | options)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("forged")
    overrides = settings_of(root / "models", f'note="{NOTE}"')
    pipeline = forge(root, overrides, SUBSETS, test=12)
    report(pipeline.dataset, "mini", overrides, work=pipeline.work, manifests=pipeline.manifests)
    (page,) = Path(pipeline.work).rglob("index.html")
    return Made(pipeline, overrides, page.parent)
