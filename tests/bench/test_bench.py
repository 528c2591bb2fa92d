"""`sare bench` on small models: what it prints agrees with what was counted, and nothing is read but configurations."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from sare_core.bench import reconstruct, timing
from sare_core.bench.train import fill
from sare_core.config import load_settings
from sare_core.errors import ConfigError
from sare_core.plan import flops, models
from stages import bench
from tests.conftest import STANDIN, standin_overrides

SMALL = ["reconstruct.longer_side=32", "reconstruct.steps=4", "reconstruct.batch_size=4"]


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    recording = Console(record=True, width=200)
    monkeypatch.setattr(bench, "console", recording)
    return recording


@pytest.fixture
def configurations(standin_models: Path, tmp_path: Path) -> list[str]:
    """The stand-ins' settings, with folders that hold no weights."""
    for file in standin_models.rglob("*.json"):
        copy = tmp_path / "models" / file.relative_to(standin_models)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return [*standin_overrides(tmp_path / "models"), *SMALL]


def test_a_table_of_all_parts_without_weights(configurations: list[str], console: Console, tmp_path: Path) -> None:
    bench.bench(STANDIN, configurations, device="cpu", out=tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*.csv")
    with file.open() as opened:
        rows = list(csv.DictReader(line for line in opened if not line.startswith("#")))
    assert [(row["what"], row["batch"]) for row in rows[:3]] == [
        *(("reconstruct, exact", "1"), ("reconstruct, exact", "4"), (reconstruct.PEERS, "1")),
    ]
    assert {row["what"] for row in rows[3:]} == {"caption", "train step"}
    settings = load_settings(STANDIN, configurations).reconstruct
    each = flops.reconstruct_flops(settings, models.diffusion(settings), [(32, 32)], True)[32, 32]
    for row in rows[:3]:
        assert float(row["flops"]) / float(row["rate"]) == pytest.approx(each)
        assert float(row["rate"]) > 0
    text = console.export_text()
    assert "sare plan --dataset NAME --images-per-second" in text
    assert file.with_suffix(".md").read_text().count("\n| ") == len(rows) + 2


def test_quick_measures_one_step_and_says_how_long_images_take(configurations: list[str], console: Console) -> None:
    bench.bench(STANDIN, configurations, device="cpu", quick=True, images=3_600_000)
    text = console.export_text()
    assert "3,600,000 images of 32×32 take" in text and "one step of the U-Net" in text
    assert reconstruct.PEERS not in text and "train" not in text


def test_a_device_that_is_not_there(configurations: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--device nonsense: not to be had here"):
        bench.bench(STANDIN, configurations, device="nonsense")


def test_a_batch_that_does_not_fit_ends_the_row(configurations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(STANDIN, configurations).reconstruct
    parts_of = reconstruct.parts_of

    def short(*arguments: object) -> object:
        parts = parts_of(*arguments)
        forward = parts.unet.forward

        def limited(rows: torch.Tensor, *more: object, **named: object) -> object:
            if len(rows) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(rows, *more, **named)

        parts.unet.forward = limited
        return parts

    monkeypatch.setattr(reconstruct, "parts_of", short)
    told: list[str] = []
    rows = list(reconstruct.rows(settings, (32, 32), [1, 2, 4, 8], ["exact"], "cpu", True, told.append))
    assert [row.batch for row in rows] == [1, 2]
    assert told[-1] == "reconstruct, exact, batch 4: does not fit into memory"


def test_seconds_are_the_median_of_warm_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cost = SimpleNamespace(now=0.0), iter([100.0, 1.0, 9.0, 2.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)

    def run() -> None:
        clock.now += next(cost)

    assert timing.seconds(run, "cpu") == 2.0


def test_filled_detectors_give_finite_logits(configurations: list[str]) -> None:
    settings = load_settings(STANDIN, configurations).detector
    model = models.detector(settings).to_empty(device="cpu").float()
    fill(model)
    side = settings.input_size
    with torch.no_grad():
        logits = model.eval()({name: torch.randn(2, 3, side, side) for name in ("image", "sare")})
    assert logits.isfinite().all() and logits.std() > 0


def test_what_cannot_be_measured_is_said(configurations: list[str], console: Console, tmp_path: Path) -> None:
    none = [*configurations, "caption.captioner=none", "caption.model=null"]
    with pytest.raises(ConfigError, match="nothing to measure"):
        bench.bench(STANDIN, none, device="cpu", only=[bench.Part.caption])
    assert "only blip can be built without weights, not none" in console.export_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        bench.bench(STANDIN, configurations, device="cpu", quick=True, out=tmp_path / "file" / "out")
    assert "reconstruct, exact" not in console.export_text(), "told before anything is measured"


@pytest.mark.parametrize(
    ("change", "unet"),
    [
        ("method=img2img", True),
        ("cache_interval=2", True),
        ("method=one_step", True),
        ("method=autoencoder", False),
        ("method=ddim_inversion", True),
    ],
)
def test_each_method_is_timed_as_it_works(configurations: list[str], change: str, unet: bool) -> None:
    settings = load_settings(STANDIN, [*configurations, f"reconstruct.{change}"]).reconstruct
    (row,) = reconstruct.rows(settings, (32, 32), [2], ["exact"], "cpu", True, lambda what: None)
    assert row.parts.count("+") == 1 + unet
