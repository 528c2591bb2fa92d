"""A checkpoint of another project as tensors by name. No code that lies in a file is run."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sare_core.errors import ConfigError

INSIDE = ("model", "netC", "state_dict")  # under which trainings keep the weights, beside an optimizer


def read_tensors(file: str) -> dict[str, Tensor]:
    """By name, in float32 where they are of floating point; "module." of DataParallel is left out.

    Raises ConfigError: no such file, a pickled module, or no tensors by name.
    """
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"{file}: no such file.")
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as opened:
            start = opened.read(2)
        if not start.startswith((b"\x80", b"PK")):  # neither a pickle nor a zip of pickles
            raise ConfigError(
                f"{file}: no weights, but perhaps a web page or a pointer to them. Download it again."
            ) from error
        raise ConfigError(
            f"{file}: holds more than tensors, such as a whole pickled module, and to load that runs code from the "
            "file. If you trust it, convert it once where its classes can be imported: "
            "torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW)."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{file}: not readable as weights ({repr(error)[:200]}).") from error
    inside = next((name for name in INSIDE if isinstance(found, dict) and isinstance(found.get(name), dict)), None)
    tensors = found[inside] if inside else found
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(each, Tensor) for each in tensors.values()):
        raise ConfigError(f"{file}: is no dictionary of tensors by name.")
    if odd := [name for name, each in tensors.items() if each.is_floating_point() and not each.isfinite().all()]:
        raise ConfigError(f"{file}: {odd[0]} holds numbers that are not finite. Download it again.")
    return {
        str(name).removeprefix("module."): each.float() if each.is_floating_point() else each
        for name, each in tensors.items()
    }
