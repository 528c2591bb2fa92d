"""The whole study at toy scale, its stages called in this process; and what it leaves."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
import torch
from timm.models import save_for_hf

from sare_core.config import load_settings
from sare_core.engine import selection
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.errors import ConfigError
from sare_core.evaluation import results
from sare_core.evaluation.metrics import subset_metrics
from sare_core.graph import Graph
from sare_core.index.indexing import build_index
from sare_core.study import parts
from sare_core.study.jobs import Job
from sare_core.study.measures import load_classifier, read_errors
from sare_core.training import loop
from stages import caption, evaluate, precompute, reconstruct, train
from stages import study as study_stage
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import QUIET
from tests.trees import genimage_tree

SMALL = [
    "reconstruct.longer_side=32",
    "reconstruct.steps=4",
    "train.epochs=1",
    "train.batch_size=8",
    "train.micro_batch_size=8",
]


class Jobs:
    """Stands in for `run_jobs`: the same commands, without starting a process for each."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.stages = {"caption": caption.caption, "reconstruct": reconstruct.reconstruct}
        self.stages |= {"train": train.train, "evaluate": evaluate.evaluate}

    def __call__(self, jobs: list[Job], at_once: int, console: object) -> None:
        import typer

        for job in jobs:
            self.commands.append(job.name)
            module, arguments = job.command[2].removeprefix("stages."), job.command[3:]
            app = typer.Typer(add_completion=False)
            app.command()(self.stages[module])
            app(arguments, standalone_mode=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generators, and a table of captions with a few kinds of them."""
    folder = tmp_path_factory.mktemp("study")
    root = genimage_tree(folder / "data", per_cell=12, subsets=["sdv1.4", "adm"])
    index = build_index("tree", "genimage", str(root), str(folder / "manifests"), 64, 0.25, workers=1).index
    ids = index.frame().select("image_id").unique().sort("image_id").with_row_index()
    ids.select("image_id", caption=pl.format("thing {}", pl.col("index") % 7)).write_csv(folder / "captions.csv")
    ids.select("image_id", caption=pl.lit("what it shows")).write_csv(folder / "right.csv")
    return folder


@pytest.fixture(scope="module")
def overrides(data: Path, standin_models: Path) -> list[str]:
    table = ["caption.captioner=table", "caption.model=null", f"caption.table={data}/captions.csv"]
    return [*standin_overrides(standin_models), *SMALL, *table]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    jobs = Jobs()
    monkeypatch.setattr(parts, "run_jobs", jobs)
    for stage in (parts, loop, results, selection, study_stage, precompute, train, evaluate):
        monkeypatch.setattr(stage, "console", QUIET)
    return jobs


def run(data: Path, overrides: list[str], part: str, **options: object) -> Path:
    work, manifests, out = (str(data / name) for name in ("work", "manifests", "out"))
    options = {"preset": STANDIN, "set_": overrides, "work": work, "manifests": manifests, "out": Path(out), **options}
    study_stage.study("tree", only=[study_stage.Part(part)], **{"jobs": 1, "seeds": 1, **options})
    return Path(out)


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_csv(out / f"{name}.csv", comment_prefix="#")


def test_variants_differ_in_one_thing_and_a_rerun_does_nothing(data: Path, overrides: list[str], jobs: Jobs) -> None:
    further = {"oracle": str(data / "right.csv"), "draws": 2}
    out = run(data, overrides, "variants", **further)
    stages = [name.split()[0] for name in jobs.commands]
    assert [stages.count(name) for name in ("caption", "reconstruct", "train", "evaluate")] == [4, 7, 10, 10]
    texts = {path: path.read_bytes() for path in out.iterdir()}

    jobs.commands.clear()
    run(data, overrides, "variants", **further)
    assert jobs.commands == []
    assert {path: path.read_bytes() for path in out.iterdir()} == texts, "the bootstrap is seeded"

    markdown = (out / "detectors.md").read_text()
    assert f"sare study --dataset tree --preset {STANDIN} --set" in markdown
    assert f"--only variants --seeds 1 --oracle {data}/right.csv --draws 2 --out" in markdown
    assert "24 real and 24 fake test images" in markdown
    detectors = table(out, "detectors")
    assert detectors.filter(pl.col("what") == "sare")["subset"].unique().sort().to_list() == [
        *("adm", "mean", "mean of unseen", "mean of unseen, no near-copies", "sdv1.4"),
    ]
    assert set(detectors["what"]) >= {
        "sare",
        "image",
        "vae",
        "uncaptioned",
        "wrong",
        "zero",
        "map",
        "both",
        "oracle",
        "draws",
        "sare − image",
        "number − zero",
        "number, mean of draws − zero",
    }
    assert set(detectors["measure"]) == {"acc", "auc", "auc within"}
    assert markdown.count("sare − image, mean of unseen, no near-copies: ") == 3, "under each table"
    assert detectors.filter(pl.col("measure") != "auc within")["value"].is_finite().all()


def test_the_numbers_are_those_of_the_stages_own_files(data: Path, overrides: list[str], jobs: Jobs) -> None:
    out, work, manifests = run(data, overrides, "variants"), str(data / "work"), str(data / "manifests")
    index = study_stage.read_index(manifests, "tree")
    shards = index.select(["test"])["shard"].to_list()
    for variant, changes in {"sare": [], "zero": ["detector.semantic_input=zero"]}.items():
        settings = load_settings(STANDIN, [*overrides, *changes])
        best = read_checkpoint(Graph(settings, "tree", work).detector_of(index).store, "best")
        assert best is not None
        folder = Graph(settings, "tree", work).predictions(best)
        files = [r.output.name for r in folder.records(shards).values() if r.output]
        metrics = subset_metrics(pl.concat(pl.read_parquet(folder.store.local(name)) for name in files))
        found = table(out, "detectors").filter(
            pl.col("what") == variant, pl.col("measure") == "auc", pl.col("subset") == "adm"
        )
        assert found["value"].item() == pytest.approx(metrics.filter(pl.col("subset") == "adm")["auc"].item())

    before = len(jobs.commands)
    run(data, overrides, "delta")
    assert len(jobs.commands) == before, "the test split is reconstructed already, under the same wrong captions"
    folder = Graph(load_settings(STANDIN, overrides), "tree", work).reconstructions
    errors = read_errors(folder, index, shards).filter(pl.col("subset") == "adm")
    means = dict(errors.group_by("label").agg(pl.col("error").mean()).iter_rows())
    found = table(out, "delta").filter(
        pl.col("what") == "captioned", pl.col("measure") == "delta error", pl.col("subset") == "adm"
    )
    assert found["value"].item() == pytest.approx(means[0] - means[1])


def test_the_sweep_reads_validation_images_only(
    data: Path, overrides: list[str], jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sare_core.study.variants.STRENGTHS", (0.5,))
    torch.manual_seed(0)
    save_for_hf(timm.create_model("resnet10t", num_classes=10), str(tmp_path / "classifier"), safe_serialization=True)
    out = run(data, overrides, "sweep", classifier=str(tmp_path / "classifier"), work=str(tmp_path / "work"))
    index = study_stage.read_index(str(data / "manifests"), "tree")
    val = set(index.select(["val"], ["sdv1.4"])["shard"].to_list())
    records = {int(path.stem) for path in (tmp_path / "work").rglob("records/*.json")}
    assert records == val
    sweep = table(out, "sweep")
    assert sweep.select("guidance", "caption").rows() == [(None, "none"), *((w, "captioned") for w in (1.0, 2.5, 7.5))]
    labels = index.frame().filter(pl.col("shard").is_in(val))["label"]
    assert set(sweep["n_real"]) == {(labels == 0).sum()}
    assert sweep["kept_real"].is_between(0, 1).all()


def test_fairness_needs_the_files_alone(data: Path, overrides: list[str], jobs: Jobs) -> None:
    out = run(data, overrides, "fairness")
    assert jobs.commands == []
    fairness = table(out, "fairness")
    trivial = fairness.filter(pl.col("what").str.starts_with("trivial"), pl.col("subset") == "adm")
    assert trivial["value"].item() > 0.9, "JPEG against PNG"
    transfer = table(out, "transfer")
    assert transfer.filter(pl.col("subset").is_in(["adm", "sdv1.4"])).select("trained_on", "subset").rows() == [
        *(("sdv1.4", "sdv1.4"), ("sdv1.4", "adm"), ("adm", "sdv1.4"), ("adm", "adm"))
    ]


def test_a_classifier_sees_pixels_as_timm_prepares_them(tmp_path: Path) -> None:
    from PIL import Image

    torch.manual_seed(0)
    about = {"input_size": (3, 32, 32), "crop_pct": 1.0, "interpolation": "bilinear", "mean": (0.1, 0.2, 0.3)}
    model = timm.create_model("resnet10t", num_classes=10, pretrained_cfg=about).eval()
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((32, 32)) for _ in range(20)]
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        expected = model(torch.stack([prepare(image) for image in images])).argmax(dim=1)
    assert load_classifier(str(tmp_path))(images).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("nowhere.csv", "no such file"),
        ("columns.csv", "needs the columns caption"),
        ("half.csv", "images have no caption"),
    ],
)
def test_a_wrong_oracle_is_told_before_any_work(
    data: Path, overrides: list[str], jobs: Jobs, tmp_path: Path, table: str, told: str
) -> None:
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    whole = (data / "right.csv").read_text().splitlines()
    (tmp_path / "half.csv").write_text("\n".join(whole[:10]) + "\n")
    with pytest.raises(ConfigError, match=told):
        run(data, overrides, "fairness", oracle=str(tmp_path / table))
    assert jobs.commands == []
