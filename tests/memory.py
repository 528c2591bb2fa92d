"""A device with little memory, made up."""

from collections.abc import Callable
from typing import Any

import torch


def short_of_memory(run: Callable[..., Any], rows: int, seen: list[int]) -> Callable[..., Any]:
    """`run`, on a device that takes so many rows of its first argument. seen: gets the rows of each call."""

    def limited(*args: Any, **kwargs: Any) -> Any:
        batch = next(iter((*args, *kwargs.values())))
        seen.append(len(batch))
        if len(batch) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(*args, **kwargs)

    return limited
