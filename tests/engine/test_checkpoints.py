import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from sare_core.engine import faults
from sare_core.engine.checkpoints import (
    Checkpoint,
    digest_of,
    load_tensors,
    pack_optimizer,
    read_checkpoint,
    save_checkpoint,
    unpack_optimizer,
)
from sare_core.errors import ConfigError
from sare_core.store.storage import Store

FACTS: dict[str, Any] = {
    "step": 7,
    "epoch": 1,
    "finished": False,
    "history": [{"accuracy": 0.5, "auc": None, "loss": 0.7}],
    "loss_sum": 1.5,
    "unreadable": 2,
    "scaler": {"scale": 65536.0},
    "about": {"stage": "detectors", "settings": {"epochs": 2}},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "detector"))


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "model.weight": torch.randn(3, 4, generator=random).t(),  # not contiguous
        "model.half": torch.randn(5, generator=random).half(),
        "model.count": torch.tensor(3),
    }


def saved(store: Store, seed: int = 0) -> Checkpoint:
    save_checkpoint(store, "last", tensors(seed), **FACTS)
    checkpoint = read_checkpoint(store, "last")
    assert checkpoint is not None
    return checkpoint


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def network() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.GELU(), torch.nn.Linear(5, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=4e-5)


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    batch = torch.randn(8, 6, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    model(batch).square().mean().backward()
    optimizer.step()


def test_what_is_saved_is_loaded(store: Store) -> None:
    checkpoint = saved(store)
    assert_same(load_tensors(store, checkpoint), tensors())
    assert checkpoint.model_dump(exclude={"file", "sha256"}) == FACTS
    assert store.names() == sorted(["last.json", checkpoint.file])
    assert checkpoint.file == f"last-{hashlib.sha256(store.read(checkpoint.file)).hexdigest()[:12]}.safetensors"
    assert read_checkpoint(store, "best") is None


def test_the_file_is_plain_safetensors(store: Store) -> None:
    with safe_open(store.local(saved(store).file), "pt") as file:
        assert_same({name: file.get_tensor(name) for name in file.keys()}, tensors())  # noqa: SIM118 (no iterator)


def test_the_same_tensors_are_the_same_file(store: Store) -> None:
    first = saved(store)
    save_checkpoint(store, "last", dict(reversed(tensors().items())), **FACTS | {"step": 8})
    second = read_checkpoint(store, "last")
    assert second is not None
    assert (second.file, second.step) == (first.file, 8)
    assert_same(load_tensors(store, second), tensors())


def test_a_new_checkpoint_takes_the_old_ones_place(store: Store) -> None:
    first, second = saved(store, 0), saved(store, 1)
    save_checkpoint(store, "best", tensors(1), **FACTS)
    assert first.file not in store.names()
    assert len(store.names()) == 4
    assert_same(load_tensors(store, second), tensors(1))


def test_training_goes_on_bit_for_bit(store: Store) -> None:
    model, optimizer = network()
    for number in range(3):
        step(model, optimizer, number)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    save_checkpoint(store, "last", state | pack_optimizer(optimizer), **FACTS)
    for number in range(3, 6):
        step(model, optimizer, number)

    again, its_optimizer = network()
    checkpoint = read_checkpoint(store, "last")
    assert checkpoint is not None
    loaded = load_tensors(store, checkpoint)
    again.load_state_dict({name.removeprefix("model."): t for name, t in loaded.items() if name.startswith("model.")})
    unpack_optimizer(its_optimizer, loaded)
    for number in range(3, 6):
        step(again, its_optimizer, number)

    assert_same(again.state_dict(), model.state_dict())
    assert_same(pack_optimizer(its_optimizer), pack_optimizer(optimizer))
    assert its_optimizer.param_groups[0]["lr"] == 1e-2


def test_an_optimizer_that_has_not_stepped_packs_to_nothing() -> None:
    model, optimizer = network()
    assert pack_optimizer(optimizer) == {}
    unpack_optimizer(optimizer, {})
    step(model, optimizer, 0)


def damage(data: bytes, how: str) -> bytes:
    if how == "flipped":
        return data[:-1] + bytes([data[-1] ^ 1])
    return data[: {"cut": len(data) - 1, "half": len(data) // 2, "empty": 0}[how]]


@pytest.mark.parametrize("how", ["cut", "half", "empty", "flipped"])
def test_damaged_tensors_are_refused(store: Store, how: str) -> None:
    checkpoint = saved(store)
    store.write(checkpoint.file, damage(store.read(checkpoint.file), how))
    with pytest.raises(ConfigError, match="not the bytes that its JSON names; delete the JSON") as error:
        load_tensors(store, checkpoint)
    assert store.path(checkpoint.file) in str(error.value)


def test_tensors_that_are_gone(store: Store) -> None:
    checkpoint = saved(store)
    store.delete(checkpoint.file)
    with pytest.raises(ConfigError, match="named by a checkpoint's JSON but gone"):
        load_tensors(store, checkpoint)


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("honest", [True, False])
def test_a_pickle_is_never_opened(store: Store, tmp_path: Path, honest: bool) -> None:
    """Under the name of the tensors, and even with the digest that the JSON names."""
    checkpoint = saved(store)
    torch.save(Trap(tmp_path / "sprung"), store.local(checkpoint.file))
    digest = hashlib.sha256(store.read(checkpoint.file)).hexdigest() if honest else checkpoint.sha256
    with pytest.raises(ConfigError, match="not a safetensors file" if honest else "not the bytes"):
        load_tensors(store, checkpoint.model_copy(update={"sha256": digest}))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.99])
def test_a_cut_json_is_told(store: Store, part: float) -> None:
    saved(store)
    data = store.read("last.json")
    store.write("last.json", data[: int(len(data) * part)])
    with pytest.raises(ConfigError, match=r"last\.json: not a whole checkpoint record; delete it"):
        read_checkpoint(store, "last")


@pytest.mark.parametrize(
    "changes",
    [
        {"step": -5},
        {"step": 10**30},
        {"epoch": -1},
        {"file": "../victim.safetensors"},
        {"file": "last-/../../victim"},
        {"file": "/victim"},
        {"file": "best-0123456789ab.safetensors"},  # of the other JSON
        {"sha256": ""},
    ],
)
def test_a_json_that_says_what_it_may_not(store: Store, changes: dict[str, Any]) -> None:
    saved(store)
    said = json.loads(store.read("last.json"))
    store.write("last.json", json.dumps(said | changes).encode())
    with pytest.raises(ConfigError, match=r"last\.json: not a whole checkpoint record; delete it"):
        read_checkpoint(store, "last")


def test_no_file_outside_is_deleted(store: Store, tmp_path: Path) -> None:
    """What a new checkpoint replaces is the file that the JSON names."""
    (tmp_path / "victim").write_bytes(b"precious")
    saved(store)
    said = json.loads(store.read("last.json"))
    store.write("last.json", json.dumps(said | {"file": "../victim"}).encode())
    with pytest.raises(ConfigError, match=r"last\.json"):
        save_checkpoint(store, "last", tensors(1), **FACTS)
    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize(("point", "survivor"), [("checkpoint-put", 0), ("checkpoint-named", 1)])
def test_a_kill_leaves_one_whole_checkpoint(store: Store, point: str, survivor: int) -> None:
    saved(store, 0)
    pid = os.fork()
    if pid == 0:
        faults.hook = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == point else None
        try:
            save_checkpoint(store, "last", tensors(1), **FACTS)
        finally:
            os._exit(77)  # the hook was to end this process
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    checkpoint = read_checkpoint(store, "last")
    assert checkpoint is not None
    assert_same(load_tensors(store, checkpoint), tensors(survivor))
    saved(store, 2)
    assert store.names()[-1] == "last.json"


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"b": [1, 2], "a": None}) == digest_of({"a": None, "b": [1, 2]})
    assert digest_of([1, 2]) == hashlib.sha256(b"[1, 2]").hexdigest() != digest_of([2, 1])


def test_a_loss_scaler_comes_back_as_it_was(tmp_path):
    """As whole numbers where it had them: torch refuses to grow a scale by an interval of 2000.0."""
    scaler = torch.amp.GradScaler("cpu").state_dict()
    store = Store(str(tmp_path))
    facts = {"step": 1, "epoch": 0, "finished": False, "history": [], "about": {}}
    save_checkpoint(store, "last", {"a": torch.zeros(1)}, scaler=scaler, **facts)
    back = read_checkpoint(store, "last").scaler
    assert back == scaler
    assert {key: type(value) for key, value in back.items()} == {key: type(value) for key, value in scaler.items()}
