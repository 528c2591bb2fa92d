"""The report of a forged run: its numbers against the files behind them, its page, and what it says is missing."""

import base64
import io
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import webdataset
from PIL import Image
from sklearn.metrics import roc_auc_score

from sare_core.config import load_settings
from sare_core.engine.audit import folders
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import read_index
from sare_core.errors import SareError
from sare_core.report.examples import picture
from stages.report import report
from tests.pipeline import Pipeline
from tests.report.conftest import NOTE, SUBSETS, Made
from tests.report.forged import HISTORY, pictures, precompute, predict


def folder_of(made: Made, stage: str, captioner: str = "blip") -> Folder:
    for folder in folders(made.pipeline.work):
        captions = folder.upstream.get("captions") if stage == "reconstructions" else None
        if folder.stage == stage and (captions is None or captions.made_by["settings"]["captioner"] == captioner):
            return folder
    raise AssertionError(f"no {stage}")


def table(made: Made, name: str) -> pl.DataFrame:
    return pl.read_csv(made.folder / "tables" / f"{name}.csv")


@pytest.fixture(scope="module")
def predictions(made: Made) -> pl.DataFrame:
    folder = folder_of(made, "predictions")
    return pl.concat(
        [pl.read_parquet(folder.store.local(r.output.name)) for r in folder.records().values() if r.output]
    )


def test_tables_are_of_the_predictions(made: Made, predictions: pl.DataFrame) -> None:
    metrics = table(made, "metrics").filter(pl.col("detector") == "sare · mini")
    for (subset,), part in predictions.group_by("subset"):
        (auc,) = metrics.filter(subset=subset)["auc"]
        assert auc == pytest.approx(roc_auc_score(part["label"], part["logit"]))
        assert f"<td>{100 * auc:.2f}</td>" in (made.folder / "index.html").read_text()


def test_the_verdict_is_the_mean_over_unseen_generators(made: Made, predictions: pl.DataFrame) -> None:
    unseen = [part for (subset,), part in predictions.group_by("subset") if subset != "sdv1.4"]
    auc = np.mean([roc_auc_score(part["label"], part["logit"]) for part in unseen])
    acc = np.mean([((part["score"] > 0.5) == (part["label"] == 1)).mean() for part in unseen])
    page = (made.folder / "index.html").read_text()
    assert "On 2 generators of which the detector saw no image in training" in page
    assert f"above a real one in {100 * auc:.1f} % of pairs" in page
    assert f"calls {100 * acc:.1f} % of images correctly" in page

    seen = predictions.filter(pl.col("subset") == "sdv1.4")
    auc = roc_auc_score(seen["label"], seen["logit"])
    assert f"On sdv1.4, of which it saw other images in training, the AUC is {100 * auc:.1f}" in page


def test_the_run_ends_with_the_result_and_what_to_do_next(
    made: Made, predictions: pl.DataFrame, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    areas = {s: 100 * roc_auc_score(part["label"], part["logit"]) for (s,), part in predictions.group_by("subset")}
    unseen = np.mean([areas["midjourney"], areas["biggan"]])
    made.again(out=str(tmp_path / "out"), run_name="first")
    said, moved, fails, then, path = capsys.readouterr().out.strip().splitlines()[-5:]
    assert said.startswith("On 2 generators of which the detector saw no image in training, it puts a generated image")
    assert f"above a real one in {unseen:.1f} % of pairs (AUC), where guessing gives 50 %" in said
    assert moved.startswith("Drawn again under their caption, photographs changed more than generated images on ")
    worst = min(("midjourney", "biggan"), key=areas.__getitem__)
    assert fails.startswith(f"It fails most on {worst} (AUC {areas[worst]:.1f} %)")
    assert "“Score my images”" in then
    assert path == f"report: {tmp_path / 'out' / 'index.html'}"
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Run first, preset mini" in page
    assert 'class="this"><th scope="row">sare · first</th>' in page


def test_the_papers_rows_stand_only_beside_its_own_images(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "(paper)" not in (made.folder / "index.html").read_text(), "24 images a subset are not GenImage"
    monkeypatch.setattr(
        "sare_core.evaluation.results.is_release", lambda layout, rows, split: (layout, split) == ("genimage", "test")
    )
    made.again(out=str(tmp_path / "out"))
    page = (tmp_path / "out" / "index.html").read_text()
    assert "DRCT + SARE (paper)" in page
    assert "The detector, beside the paper’s" in page


def test_the_examples_of_the_training_generator_are_a_picture_too(made: Made) -> None:
    plate = np.asarray(Image.open(made.folder / "figures" / "examples.png").convert("RGB")).astype(int)
    assert plate.shape[1] > 900
    (first, *_) = [
        decoded(attributes["src"] or "")
        for tag, attributes in read((made.folder / "index.html").read_text()).tags
        if tag == "img" and (attributes["alt"] or "").startswith("real")
    ]  # of sdv1.4, which comes first
    levels = set(map(tuple, first.reshape(-1, 3)))
    assert levels <= set(map(tuple, plate.reshape(-1, 3))), "its pixels are shown as they are"


def test_score_bins_are_of_the_predictions(made: Made, predictions: pl.DataFrame) -> None:
    scores = table(made, "scores")
    assert scores["subset"].unique(maintain_order=True).to_list() == list(SUBSETS)
    for (subset, kind), bins in scores.group_by("subset", "class"):
        values = predictions.filter(subset=subset, label=int(kind == "fake"))["score"].cast(pl.Float64)
        counts, _ = np.histogram(values, [*bins["low"], bins["high"][-1]])
        assert bins["n"].to_list() == counts.tolist()
        assert bins["median"][0] == pytest.approx(values.median())


@pytest.mark.parametrize(("kind", "captioner"), [("with", "blip"), ("without", "none")])
def test_shifts_are_the_means_of_the_maps(made: Made, kind: str, captioner: str) -> None:
    folder = folder_of(made, "reconstructions", captioner)
    urls = [folder.store.local(r.output.name) for r in folder.records().values() if r.output and r.split == "test"]
    found: dict[tuple[str, int], list[float]] = {}
    for sample in webdataset.WebDataset([str(url) for url in urls], shardshuffle=False, empty_check=False):
        about = json.loads(sample["json"])
        mean = np.asarray(Image.open(io.BytesIO(sample["sare.png"]))).mean()
        found.setdefault((about["subset"], about["label"]), []).append(mean)
    means = table(made, "shift").filter(captions=kind)
    assert len(means) == 2 * len(SUBSETS)
    for row in means.iter_rows(named=True):
        values = found[row["subset"], int(row["class"] == "fake")]
        assert (row["n"], row["mean"]) == (12, pytest.approx(np.mean(values)))
        assert row["low"] < row["mean"] < row["high"]
    for row in table(made, "delta").filter(captions=kind).iter_rows(named=True):
        assert row["delta"] == pytest.approx(np.mean(found[row["subset"], 0]) - np.mean(found[row["subset"], 1]))


def test_the_training_curve_is_the_checkpoints_history(made: Made) -> None:
    assert table(made, "training").to_dicts() == [pytest.approx(entry) for entry in HISTORY]
    assert "Epoch 2 of 3 was chosen" in (made.folder / "index.html").read_text()


class Reader(HTMLParser):
    """Tags with their attributes, and the text of headings and notes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, data: str) -> None:
        if self.open in ("h1", "h2") and data.strip():
            self.headings.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_the_page_has_its_parts_in_order_and_needs_nothing_else(made: Made) -> None:
    page = (made.folder / "index.html").read_text()
    reader = read(page)
    assert reader.headings == [
        "SARE on tree",
        "Do real images change more?",
        "The detector",
        "What this shows, and what it does not",
        "How scores and maps are distributed",
        "Training",
        "More of what the method sees",
        "How it was made",
        "What this is and is not",
    ]
    assert NOTE in page
    tags = Counter(tag for tag, _ in reader.tags)
    assert tags["script"] == 0
    assert tags["svg"] == 5
    assert tags["img"] == len(SUBSETS) * 2 * 2 * 3, "subsets, classes, two of each: x, x̂ and the map"
    for tag, attributes in reader.tags:
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")  # type: ignore[union-attr]
            assert attributes["alt"]
        if tag == "svg":
            assert len(attributes["aria-label"] or "") > 20
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        for name in ("href", "src"):
            assert not re.match(r"(https?:)?//", attributes.get(name) or "")
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for target in (attributes.get("href") or "" for tag, attributes in reader.tags if tag == "a"):
        assert target.removeprefix("#") in ids or (made.folder / target).is_file()


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))).astype(int)


def test_examples_are_the_first_by_image_id_and_the_map_is_doubled(made: Made, predictions: pl.DataFrame) -> None:
    pictures = [attributes for tag, attributes in read((made.folder / "index.html").read_text()).tags if tag == "img"]
    shown = []
    for image, reconstruction, sare in zip(pictures[::3], pictures[1::3], pictures[2::3], strict=True):
        kind, _, image_id = (image["alt"] or "").split()
        shown.append((image_id, int(kind == "fake")))
        x, moved, map_shown = (decoded(each["src"] or "") for each in (image, reconstruction, sare))
        np.testing.assert_array_equal(map_shown, np.minimum(2 * np.abs(x - moved), 255))
        assert all(each["class"] == "crisp" for each in (image, reconstruction, sare)), (
            "32 pixels are enlarged as they are"
        )
    first = predictions.sort("image_id").group_by("subset", "label").head(2)
    assert sorted(shown) == sorted(first.select("image_id", "label").rows())


def test_large_pictures_are_reduced() -> None:
    small, large = (picture(Image.new("RGB", size, "red")) for size in ((32, 24), (512, 384)))
    assert (small.width, small.height, small.crisp) == (32, 24, True)
    assert (large.width, large.height, large.crisp) == (192, 144, False)
    assert decoded(large.uri).shape == (144, 192, 3)


def test_the_same_run_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    before = {path.relative_to(made.folder): path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    made.again(out=str(tmp_path / "other"))
    made.again()  # with the measures that the first one kept
    for folder in (tmp_path / "other", made.folder):
        assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def copied(made: Made, tmp_path: Path) -> Made:
    work = tmp_path / "work"
    shutil.copytree(made.pipeline.work, work)
    shutil.rmtree(work / "tree" / "report")
    pipeline = Pipeline(made.pipeline.settings, made.pipeline.manifests, str(work))
    return made._replace(pipeline=pipeline, folder=tmp_path / "out")


def test_without_uncaptioned_reconstructions_the_page_says_so(made: Made, tmp_path: Path) -> None:
    here = copied(made, tmp_path)
    shutil.rmtree(folder_of(here, "reconstructions", "none").store.url)
    here.again(out=str(here.folder))
    page = (here.folder / "index.html").read_text()
    assert "No reconstructions without captions lie in this work folder." in page
    assert table(here, "shift")["captions"].unique().to_list() == ["with"]
    assert table(here, "delta")["captions"].unique().to_list() == ["with"]


def test_unfinished_uncaptioned_reconstructions_are_left_out(made: Made, tmp_path: Path) -> None:
    here = copied(made, tmp_path)
    folder = folder_of(here, "reconstructions", "none")
    shard = min(shard for shard, record in folder.records().items() if record.split == "test")
    folder.store.delete(f"records/{shard:05d}.json")
    here.again(out=str(here.folder))
    assert "Without captions, 1 of 3 test shards are not reconstructed yet" in (here.folder / "index.html").read_text()


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("predictions", "3 of 3 test shards have no predictions.*Run: sare evaluate --dataset tree --preset mini"),
        ("detectors", "is not trained. Run: sare train"),
        ("reconstructions", "3 of 3 test shards have no reconstructions.*Run: sare reconstruct --dataset tree"),
    ],
)
def test_what_was_not_run_yet_is_named(made: Made, tmp_path: Path, stage: str, says: str) -> None:
    here = copied(made, tmp_path)
    shutil.rmtree(folder_of(here, stage).store.url)
    with pytest.raises(SareError, match=f"(?s){says}"):
        here.again(out=str(here.folder))
    assert not here.folder.exists()


def test_a_lost_shard_of_maps_is_named(made: Made, tmp_path: Path) -> None:
    here = copied(made, tmp_path)
    folder = folder_of(here, "reconstructions")
    record = next(record for record in folder.records().values() if record.split == "test")
    assert record.output is not None
    folder.store.delete(record.output.name)
    with pytest.raises(
        SareError, match=r"1 of 3 test shards have no reconstructions.*its output is gone.*Run: sare reconstruct"
    ):
        here.again()


def test_images_without_labels_are_shown_and_nothing_is_claimed_of_them(made: Made, tmp_path: Path) -> None:
    source = pictures(tmp_path / "pictures", ["glide"], test=3)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(source.rglob("val/*/*"))):
        shutil.copy(path, flat / f"{number}{path.suffix}")
    settings = load_settings("mini", made.overrides, "genimage")
    mine = Pipeline(settings, made.pipeline.manifests, made.pipeline.work, "mine")
    index = mine.index(flat, "folder")
    precompute(mine, index)
    predict(mine, index, folder_of(made, "detectors"))
    out = tmp_path / "out"
    where = {"work": mine.work, "manifests": mine.manifests, "trained_on": "tree", "out": str(out)}
    report("mine", "mini", made.overrides, **where)
    page = (out / "index.html").read_text()
    assert "nothing can be measured" in page
    assert "unlabelled image" in page
    assert "trained on sdv1.4 of tree" in page
    assert page.count("it takes labelled images of both classes") == 2
    assert read_index(mine.manifests, "mine").frame()["label"].null_count() == 6
