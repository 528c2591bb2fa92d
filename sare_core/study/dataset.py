"""A dataset that is indexed, under one preset: its settings and folders, and the stages' commands on it."""

import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import polars as pl

from sare_core.config import Settings, load_settings
from sare_core.engine.fingerprint import fingerprint
from sare_core.engine.manifest import Index
from sare_core.engine.selection import chosen_shards
from sare_core.graph import Graph
from sare_core.study.jobs import Job


class Part(StrEnum):
    """What can be run alone."""

    fairness = "fairness"
    sweep = "sweep"
    delta = "delta"
    variants = "variants"


@dataclass(frozen=True)
class Study:
    """One dataset under one preset; `settings` gives it with a variant's changes."""

    dataset: str
    preset: str
    overrides: list[str]
    work: str
    manifests: str
    jobs: int
    index: Index
    out: Path = Path()  # of the study's tables
    oracle: str | None = None  # table of captions that are right
    draws: int = 1  # of the noise, for the variants that average over them

    def settings(self, *changes: str) -> Settings:
        return load_settings(self.preset, [*self.overrides, *changes], self.index.about["layout"])

    def graph(self, *changes: str) -> Graph:
        return Graph(self.settings(*changes), self.dataset, self.work)

    def shards(self, *splits: str) -> list[int]:
        return chosen_shards(self.index, list(splits), self.settings().train_subsets, None)

    def job(self, stage: str, changes: Iterable[str], *more: str) -> Job:
        """A stage's command with a variant's changes."""
        sets = [part for change in [*self.overrides, *changes] for part in ("--set", change)]
        return self.stage_job(stage, " ".join([stage, *changes]), "--preset", self.preset, *sets, *more)

    def stage_job(self, stage: str, name: str, *options: str) -> Job:
        """A stage's command on this dataset."""
        where = ["--dataset", self.dataset, "--work", self.work, "--manifests", self.manifests]
        return Job(name, [sys.executable, "-m", f"stages.{stage}", *where, *options])

    def head(self, part: Part, options: list[str], made_from: dict[str, str]) -> list[str]:
        """The lines over each table: the command, and fingerprints of the settings, the images, and what was made.

        An image_id is a hash of pixels: other images, another fingerprint.
        """
        options = [*(f"--set {shlex.quote(override)}" for override in self.overrides), f"--only {part}", *options]
        if part in (Part.delta, Part.variants):
            options += [f"--oracle {shlex.quote(self.oracle)}"] if self.oracle else []
            options += [f"--draws {self.draws}"] if self.draws > 1 else []
        if self.out != Path("benchmarks") / self.dataset:
            options.append(f"--out {shlex.quote(str(self.out))}")
        return [
            " ".join([f"sare study --dataset {self.dataset} --preset {self.preset}", *options]),
            f"settings {fingerprint(self.settings().model_dump(mode='json'))}",
            f"images {fingerprint({'image_ids': sorted(self.index.frame()['image_id'].drop_nulls())})}",
            *(f"{what} {digest}" for what, digest in made_from.items()),
        ]

    def sample_notes(self, rows: pl.DataFrame, runs: int) -> list[str]:
        """How many test images are compared, and how many are not since one of the runs lacks them."""
        counts = rows.drop_nulls("label").group_by("image_id", "subset", "label").len()
        whole = counts.filter(pl.col("len") == runs)
        real, fake = (int((whole["label"] == label).sum()) for label in (0, 1))
        shards = self.shards("test")
        lost = len(self.index.frame().filter(pl.col("shard").is_in(shards), pl.col("label").is_not_null())) - len(whole)
        notes = [f"{real:,} real and {fake:,} fake test images."]
        if lost:
            notes.append(
                f"{lost:,} more are left out: a stage of one of the runs failed on them (sare status shows why)."
            )
        return notes
