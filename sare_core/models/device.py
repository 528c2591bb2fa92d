"""The device of a caller's choice, looked at before anything is loaded onto it."""

import torch

from sare_core.errors import ConfigError

Device = str | int | torch.device | None


def usable(device: Device) -> str:
    """As torch names it. Raises ConfigError: there is none such here."""
    if device is None:
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()
        return str(torch.device(device))
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(f"device={device!r}: cannot be used here ({why}). Name another, such as 'cpu'.") from error
