"""Checkpoints of a detector: tensors in safetensors under their digest's name, then the JSON that names them.

`last.json` is where a killed run goes on; `best.json` is the epoch that the held-out images chose. No pickle anywhere.
"""

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError

from sare_core.engine.faults import point
from sare_core.engine.names import CheckpointName, Digest
from sare_core.errors import ConfigError
from sare_core.store.storage import Store

if TYPE_CHECKING:  # `sare status` reads checkpoints' JSON and needs no torch
    import torch

Tensors = dict[str, "torch.Tensor"]


class Checkpoint(BaseModel):
    """What a checkpoint's JSON says. `step` optimizer steps and `epoch` epochs are done; `history` holds an entry an
    epoch, of the best checkpoint of a whole training also those after it. finished: the training has come to its end.

    loss_sum, unreadable: of the epoch under way so far: losses of its steps, and images that could not be read.
    """

    model_config = ConfigDict(extra="forbid")

    file: CheckpointName
    sha256: Digest
    step: Annotated[int, Field(ge=0, le=10**12)]
    epoch: Annotated[int, Field(ge=0, le=10**9)]
    finished: bool
    history: list[dict[str, float | None]]
    loss_sum: float = 0.0
    unreadable: int = 0
    scaler: dict[str, int | float] | None = None  # of mixed precision's loss
    about: dict[str, Any]

    def entry(self) -> dict[str, float | None]:
        """The history's entry of the last epoch that is done here."""
        return next(entry for entry in self.history if entry["epoch"] == self.epoch)


def save_checkpoint(store: Store, name: str, tensors: Tensors, **facts: Any) -> None:
    """Put `<name>-<digest>.safetensors` in place, then `<name>.json`; the file that it named before goes."""
    from safetensors.torch import save

    data = save({key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())})
    digest = hashlib.sha256(data).hexdigest()
    before = read_checkpoint(store, name)
    file = f"{name}-{digest[:12]}.safetensors"
    store.write(file, data)
    point("checkpoint-put")
    checkpoint = Checkpoint(file=file, sha256=digest, **facts)
    store.write(f"{name}.json", checkpoint.model_dump_json(indent=1).encode())
    point("checkpoint-named")
    if before is not None and before.file != file:
        store.delete(before.file)


def read_checkpoint(store: Store, name: str) -> Checkpoint | None:
    """What `<name>.json` says, or None. Raises ConfigError when it cannot be read."""
    try:
        checkpoint = Checkpoint.model_validate_json(store.read(f"{name}.json"))
        if not checkpoint.file.startswith(f"{name}-"):
            raise ValueError(f"{checkpoint.file} is not its own file")
    except FileNotFoundError:
        return None
    except ValueError as error:  # pydantic's is one
        raise ConfigError(
            f"{store.path(name + '.json')}: not a whole checkpoint record; delete it, train again."
        ) from error
    return checkpoint


def load_tensors(store: Store, checkpoint: Checkpoint) -> Tensors:
    """The tensors that a checkpoint names. Raises ConfigError: gone, cut, changed, or not safetensors at all."""
    from safetensors.torch import load

    where = store.path(checkpoint.file)
    try:
        data = store.read(checkpoint.file)
    except FileNotFoundError as error:
        raise ConfigError(f"{where}: named by a checkpoint's JSON but gone; delete the JSON, train again.") from error
    if hashlib.sha256(data).hexdigest() != checkpoint.sha256:
        raise ConfigError(f"{where}: not the bytes that its JSON names; delete the JSON, train again.")
    try:
        return load(data)
    except SafetensorError as error:
        raise ConfigError(f"{where}: not a safetensors file ({error}); delete the JSON, train again.") from error


def pack_optimizer(optimizer: "torch.optim.Optimizer") -> Tensors:
    """An optimizer's state as named tensors: `optimizer.<parameter>.<what>`."""
    import torch

    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{key}": torch.as_tensor(value)
        for number, values in state.items()
        for key, value in values.items()
    }


def unpack_optimizer(optimizer: "torch.optim.Optimizer", tensors: Tensors) -> None:
    """Give an optimizer the state that `pack_optimizer` took; its groups keep their settings."""
    state: dict[int, Tensors] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def digest_of(value: Any) -> str:
    """SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
