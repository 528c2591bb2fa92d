"""Settings of the loop: clipping, warm-up, compilation, trackers; and that a run that goes on is an undisturbed one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from accelerate.utils import LoggerType, set_seed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from sare_core.config import Settings
from sare_core.config.training import TrainSettings
from sare_core.detectors import build_detector
from sare_core.engine import faults
from sare_core.engine.checkpoints import Checkpoint, load_tensors, pack_optimizer, read_checkpoint, unpack_optimizer
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import read_index
from sare_core.errors import ConfigError
from sare_core.models import compiled
from sare_core.models.weights import fetch
from sare_core.training import steps
from sare_core.training.samples import MicroBatches, collate
from sare_core.training.steps import learning_rate
from tests.pipeline import Pipeline
from tests.trees import genimage_tree

SMALL = [
    *("detector.detector=image", "detector.tune_image_encoder=true"),
    *("train.epochs=2", "train.batch_size=8", "train.micro_batch_size=4", "train.learning_rate=0.01"),
    *("train.workers=0", "train.checkpoint_steps=1"),
]

Make = Callable[..., Pipeline]


@pytest.fixture
def pipeline(tmp_path: Path, standin_settings: Callable[..., Settings]) -> Make:
    """A detector of images alone, which needs nothing made before it; each in a work folder of its own."""
    root, made = genimage_tree(tmp_path / "tree", per_cell=24, subsets=["sdv1.4"]), list[Pipeline]()

    def at(*overrides: str) -> Pipeline:
        work = str(tmp_path / f"work-{len(made)}")
        made.append(Pipeline(standin_settings(*SMALL, *overrides), str(tmp_path / "manifests"), work))
        if len(made) == 1:
            made[0].index(root)
        return made[-1]

    return at


def last(folder: Folder) -> Checkpoint:
    found = read_checkpoint(folder.store, "last")
    assert found is not None
    return found


def weights(folder: Folder) -> dict[str, torch.Tensor]:
    tensors = load_tensors(folder.store, last(folder))
    return {name.removeprefix("model."): part for name, part in tensors.items() if name.startswith("model.")}


def by_torch_alone(pipeline: Pipeline, max_grad_norm: float | None) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The same training as a plain loop; the norms of its steps' gradients before they are clipped."""
    plan, graph = pipeline.settings.train, pipeline.graph
    part, _ = graph.training_data(read_index(pipeline.manifests, "tree"))
    set_seed(plan.seed)
    folders = {role: fetch(encoder) for role, encoder in graph.encoders.items()}
    model = build_detector(pipeline.settings.detector, folders).train()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / plan.warmup_steps, total_iters=plan.warmup_steps - 1)
    per_epoch, norms = len(part) // plan.batch_size, []
    for step in range(plan.epochs * per_epoch):
        batches = MicroBatches(part.shards, plan, plan.seed, range(step, step + 1), plan.micro_batch_size, 0, 1)
        for keys in batches:
            batch, _ = collate([part[key] for key in keys])
            (model.loss(model(batch), batch) / 2).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(learning, max_grad_norm or float("inf"))))
        optimizer.step()
        warm.step()
        optimizer.zero_grad()
    return model.trained_state(), norms


@pytest.mark.parametrize("clipped", [True, False])
def test_clipping_and_warm_up_are_torchs(pipeline: Make, clipped: bool) -> None:
    """The whole of a step is clipped, and not each of its two micro-batches."""
    ours = pipeline("train.schedule=constant", "train.warmup_steps=3", *["train.max_grad_norm=3"] * clipped)
    found = weights(ours.detector())
    expected, norms = by_torch_alone(ours, 3 if clipped else None)
    assert min(norms) < 3 < max(norms), "some are clipped"
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
    other, _ = by_torch_alone(ours, None if clipped else 3)
    assert max(float((found[name] - other[name]).abs().max()) for name in other) > 1e-4


def test_the_cosine_under_a_warm_up_is_torchs() -> None:
    settings = TrainSettings.model_construct(schedule="cosine", epochs=3, learning_rate=1e-3, warmup_steps=5)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    both = torch.optim.lr_scheduler.ChainedScheduler(
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 5, total_iters=4),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12),
        ]
    )
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both.step()
    assert [learning_rate(settings, step, 4) for step in range(12)] == pytest.approx(expected, abs=1e-12)


def test_the_fused_optimizer_of_a_gpu_is_the_same_and_goes_on(standin_settings: Callable[..., Settings]) -> None:
    """On the processor, where torch has it too."""
    plan = standin_settings().train
    start = torch.randn(50, generator=torch.Generator().manual_seed(0))
    ends = []
    for device in ("cpu", "cuda"):
        weight = start.clone().requires_grad_()
        optimizer = steps.adamw(plan, [weight], torch.device(device))
        assert bool(optimizer.defaults["fused"]) == (device == "cuda")
        for step in range(4):
            if step == 2:  # as a run that goes on
                tensors = pack_optimizer(optimizer)
                optimizer = steps.adamw(plan, [weight], torch.device(device))
                unpack_optimizer(optimizer, tensors)
            (weight**3).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-7)
    assert (ends[0] - start).abs().min() > 0


class Killed(BaseException):
    """Goes through the loop as a signal would, without a checkpoint."""


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rows of the images of each graph that is compiled. Runs it as it is: inductor takes minutes here."""
    seen: list[int] = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        seen.append(next(len(value) for value in inputs if isinstance(value, torch.Tensor) and value.dim() == 4))
        return graph.forward

    monkeypatch.setattr(compiled, "BACKEND", backend)
    torch._dynamo.reset()
    yield seen
    torch._dynamo.reset()


def test_a_compiled_detector_is_the_same_and_goes_on_as_it_was(
    pipeline: Make, graphs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, whole, cut = pipeline(), pipeline("train.compile=true"), pipeline("train.compile=true")
    expected = weights(plain.detector())
    assert not graphs
    folder = undisturbed = whole.detector()
    assert graphs == [4, 7], "one of a micro-batch, and one of all that is held out"
    for name, found in weights(folder).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-6)
    assert folder.fingerprint != plain.graph.detector_of(read_index(plain.manifests, "tree")).fingerprint

    def kill(point: str) -> None:
        if point == "checkpoint-named" and last(folder).step == 3:
            raise Killed

    torch._dynamo.reset()
    folder = cut.graph.detector_of(read_index(cut.manifests, "tree"))
    monkeypatch.setattr(faults, "hook", kill)
    with pytest.raises(Killed):
        cut.detector()
    monkeypatch.setattr(faults, "hook", None)
    assert not last(folder).finished
    torch._dynamo.reset()
    assert last(cut.detector()).sha256 == last(undisturbed).sha256


def test_trackers_are_accelerates() -> None:
    names = set(get_args(TrainSettings.model_fields["tracker"].annotation))
    assert names == {str(logger) for logger in LoggerType} - {"all"} | {"none"}


def test_settings_are_logged_with_the_curves(pipeline: Make) -> None:
    tracked = pipeline("train.epochs=1", "note=a note")
    folder = tracked.detector()
    found: dict[str, Any] = {}
    for path in Path(folder.store.url).rglob("events.out.tfevents.*"):
        for plugin in EventAccumulator(str(path)).Reload().summary_metadata.values():
            data = HParamsPluginData.FromString(plugin.plugin_data.content)
            found |= dict(data.session_start_info.hparams)
    assert found["train.learning_rate"].number_value == 0.01
    assert found["detector.detector"].string_value == "image"
    assert json.loads(found["train.augment.noise_variance"].string_value) == [10, 50]
    assert found["detector.tune_image_encoder"].number_value == 1
    assert found["note"].string_value == "a note"
    assert "caption.server" not in found, "null"


def test_no_tracker_leaves_the_same_detector_and_no_events(pipeline: Make) -> None:
    tracked, silent = pipeline("train.epochs=1"), pipeline("train.epochs=1", "train.tracker=none")
    folders = tracked.detector(), silent.detector()
    assert folders[0].fingerprint == folders[1].fingerprint
    assert last(folders[0]).sha256 == last(folders[1]).sha256
    assert [bool(list(Path(folder.store.url).rglob("*tfevents*"))) for folder in folders] == [True, False]


def test_a_tracker_that_is_not_installed(pipeline: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sare_core.training.tracking.get_available_trackers", lambda: [LoggerType.TENSORBOARD])
    with pytest.raises(ConfigError, match=r"train\.tracker=wandb: not installed\. Run: pip install wandb; or set"):
        pipeline("train.tracker=wandb").detector()


def test_a_warm_up_longer_than_the_training_is_told(pipeline: Make, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for warmup in (0, 1000):
        folder = pipeline("train.epochs=1", "train.tracker=none", f"train.warmup_steps={warmup}").detector()
        told.append(f"train.warmup_steps={warmup} is more than the {last(folder).step} steps" in plain(capsys))
    assert told == [False, True]
    as_long = pipeline("train.epochs=1", "train.tracker=none", f"train.warmup_steps={last(folder).step}")
    as_long.detector()
    assert "train.warmup_steps" not in plain(capsys)


def plain(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("tf32", "precision"), [("true", "high"), ("false", "highest")])
def test_tf32_is_of_float32_products(pipeline: Make, tf32: str, precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        pipeline("train.epochs=1", f"train.tf32={tf32}").detector()
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
