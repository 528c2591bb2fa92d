"""This process's place among those that accelerate or torchrun started together."""

import os
from dataclasses import dataclass, field


@dataclass
class Rank:
    """This process's place among those that share the work, as accelerate and torchrun tell it."""

    number: int = field(default_factory=lambda: int(os.environ.get("RANK", "0")))
    world: int = field(default_factory=lambda: int(os.environ.get("WORLD_SIZE", "1")))
    local: int = field(default_factory=lambda: int(os.environ.get("LOCAL_RANK", "0")))

    @property
    def first(self) -> bool:
        return self.number == 0

    def title(self, text: str) -> str:
        """The title of the first rank's progress bar, which counts what all ranks have finished."""
        return f"{text} (all {self.world} processes)" if self.world > 1 else text

    def device(self) -> str:
        """`cuda:<local rank>` where there is a GPU, else `cpu`."""
        import torch

        return f"cuda:{self.local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
