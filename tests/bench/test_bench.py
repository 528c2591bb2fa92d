"""`sare bench` on small models: what it prints agrees with what was counted, and nothing is read but configurations."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sare_core.bench import attention, reconstruct, timing, train
from sare_core.bench.loader import IMAGES, DrawnSamples, rate
from sare_core.bench.train import fill
from sare_core.config import load_settings
from sare_core.errors import ConfigError
from sare_core.models import compiled
from sare_core.plan import flops, models
from sare_core.reconstruction import method_of
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.mapper import generator_for
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


def test_a_table_of_all_parts_without_weights(
    configurations: list[str], console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "SECONDS", 0.1)
    bench.bench(STANDIN, configurations, device="cpu", out=tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*.csv")
    with file.open() as opened:
        rows = list(csv.DictReader(line for line in opened if not line.startswith("#")))
    assert [(row["what"], row["batch"]) for row in rows[:3]] == [
        *(("reconstruct, exact", "1"), ("reconstruct, exact", "4"), (reconstruct.PEERS, "1")),
    ]
    assert [row["what"] for row in rows[3:]] == [
        *("caption", "caption", "train step", "train step", "loader, 0 workers", "loader and train step"),
    ]
    settings = load_settings(STANDIN, configurations).reconstruct
    each = flops.reconstruct_flops(settings, models.diffusion(settings), [(32, 32)], True)[32, 32]
    step = flops.detector_cost(load_settings(STANDIN, configurations).detector).step
    assert all(float(row["rate"]) > 0 for row in rows)
    per_image = [float(row["flops"]) / float(row["rate"]) for row in rows]
    assert per_image == pytest.approx([*[each] * 3, *per_image[3:5], step, step, 0, step])
    text = console.export_text()
    assert "sare plan --dataset NAME --images-per-second" in text
    assert file.with_suffix(".md").read_text().count("\n| ") == len(rows) + 2


def test_quick_measures_one_step_and_says_how_long_images_take(configurations: list[str], console: Console) -> None:
    bench.bench(STANDIN, configurations, device="cpu", quick=True, images=3_600_000)
    text = console.export_text()
    assert "3,600,000 images of 32×32 take" in text and "one step of the U-Net" in text
    assert reconstruct.PEERS not in text and "train" not in text


def test_the_speed_that_the_settings_name_is_measured(
    configurations: list[str], console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "eager")  # inductor takes minutes here
    settings = [*configurations, "reconstruct.speed=quantised"]
    bench.bench(STANDIN, settings, device="cpu", quick=True, batch_size=[1, 2])
    told = console.export_text()
    assert "reconstruct, quantised, batch 2" in told and "reconstruct, exact" not in told
    bench.bench(STANDIN, settings, device="cpu", quick=True, speed=[bench.Speed.exact])
    assert "reconstruct, quantised" not in console.export_text(), "what is asked for goes before"


def test_attention_by_each_kernel(configurations: list[str], console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(STANDIN, configurations).reconstruct
    model = models.diffusion(settings)
    shape = (2, model.unet.config.in_channels, 32 // model.multiple, 32 // model.multiple)
    texts = torch.empty(2, model.tokens, model.text_encoder.config.hidden_size, device="meta")
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        model.unet.eval()(torch.empty(shape), 1, encoder_hidden_states=texts)
    counted = {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}
    step = sum(flops for name, flops in counted.items() if "attention" in name or "bmm" in name)
    rows = list(attention.rows(settings, (32, 32), 2, "cpu", lambda what: None))
    each = step * sum(method_of(settings).passes(settings))
    assert [row.flops / row.rate for row in rows] == pytest.approx([each] * len(rows))
    tried = []

    def attended(run: Callable[[], torch.Tensor], device: str) -> float:
        tried.append(run().shape[-1])
        return 1.0

    with monkeypatch.context() as patched:
        patched.setattr(attention, "seconds", attended)
        list(attention.rows(settings, (32, 32), 2, "cpu", lambda what: None))
    assert len(tried) > 2 and set(tried[-2:]) == {64} and max(tried[:2]) < 64, "padded heads come last"
    kernels = [row.what for row in rows]
    assert kernels[0] == "attention=default" and "attention=math pad_heads=true" in kernels
    bench.bench(STANDIN, configurations, only=[bench.Part.attention], device="cpu", batch_size=[2])
    assert "attention=math pad_heads=true" in console.export_text()


def test_attention_of_steps_that_take_deep_features_again_is_that_of_the_outermost_layers(
    configurations: list[str],
) -> None:
    changes = ["reconstruct.steps=10", "reconstruct.cache_interval=4"]
    reconstruction = load_settings(STANDIN, [*configurations, *changes]).reconstruct
    model: Any = Img2Img(reconstruction, reconstruct.parts_of(reconstruction, "cpu"), "cpu")
    model.encode_texts(["", "a dog"])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.changing(model.change, torch.zeros(1, 4, 4, 4), ["a dog"], [generator_for(0, "")])
    attended = sum(flops for kernel, flops in counter.get_flop_counts()["Global"].items() if "bmm" in str(kernel))
    rows = list(attention.rows(reconstruction, (32, 32), 1, "cpu", lambda what: None))
    assert method_of(reconstruction).passes(reconstruction) == (2, 3)
    assert [row.flops / row.rate for row in rows] == pytest.approx([attended] * len(rows))


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
    for change, name in (("method=autoencoder", "autoencoder"), ("strength=0", "img2img")):
        with pytest.raises(ConfigError, match="nothing to measure"):
            changed = [*configurations, f"reconstruct.{change}"]
            bench.bench(STANDIN, changed, device="cpu", only=[bench.Part.attention], batch_size=[1])
        assert f"attention is left out: {name} runs no U-Net" in console.export_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        bench.bench(STANDIN, configurations, device="cpu", quick=True, out=tmp_path / "file" / "out")
    assert "reconstruct, exact" not in console.export_text(), "told before anything is measured"


@pytest.mark.parametrize(
    ("change", "unet"),
    [
        ("method=img2img", True),
        ("cache_interval=2", True),
        ("token_merging=0.5", True),
        ("sampler=lcm", True),
        ("method=one_step", True),
        ("method=autoencoder", False),
        ("method=ddim_inversion", True),
    ],
)
def test_each_method_is_timed_as_it_works(configurations: list[str], change: str, unet: bool) -> None:
    settings = load_settings(STANDIN, [*configurations, f"reconstruct.{change}"]).reconstruct
    (row,) = reconstruct.rows(settings, (32, 32), [2], ["exact"], "cpu", True, lambda what: None)
    assert row.parts.count("+") == 1 + unet


@pytest.mark.parametrize(
    ("sets", "pictures"),
    [
        ([], {"image", "sare"}),
        (["reconstruct.keep_source=false", "reconstruct.sare_size=16"], {"image", "sare"}),
        (["reconstruct.keep_source=recoded"], {"image", "sare"}),
        (["detector.detector=difference"], {"sare", "uncaptioned"}),
        (["detector.detector=image"], {"image"}),
    ],
)
def test_drawn_samples_are_those_of_training(
    configurations: list[str], tmp_path: Path, sets: list[str], pictures: set[str]
) -> None:
    samples = DrawnSamples(load_settings(STANDIN, [*configurations, *sets]), tmp_path / "drawn")
    batches = samples.batches(IMAGES)
    first, again = ([samples[key] for key in next(batches)] for _ in range(2))
    assert {frozenset(item) for item in first} == {frozenset(pictures | {"label"})}  # type: ignore[arg-type]
    assert sum(float(item["label"]) for item in first) == IMAGES / 2  # type: ignore[index]
    some = next(iter(pictures))
    moved = [not torch.equal(a[some], b[some]) for a, b in zip(first, again, strict=True)]  # type: ignore[index]
    assert any(moved), "augmented anew"


def test_a_step_that_takes_its_time_sets_the_rate(configurations: list[str], tmp_path: Path) -> None:
    samples = DrawnSamples(load_settings(STANDIN, configurations), tmp_path / "drawn")
    seen: list[int] = []

    def step(batch: dict[str, torch.Tensor]) -> None:
        seen.append(len(batch["label"]))
        time.sleep(0.2)

    found = rate(samples, 4, 0, step, at_least=0.9)
    assert set(seen) == {4}
    assert 4 < found < 4 / 0.2
