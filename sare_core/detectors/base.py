"""What every detector is to training and evaluation: its inputs, one logit an image, and the weights it learnt."""

from typing import Any, ClassVar, Self

from torch import Tensor, nn

from sare_core.errors import ConfigError


class Detector(nn.Module):
    """A network from the views that `inputs` names, each (B, 3, S, S), to logits (B,); above 0 means fake.

    It is built with (settings, image_encoder_dir, semantic_encoder_dir) and called with (image, sare).
    encoders: the pre-trained ones that it reads; the folder of any other is "", and its model need not be there.
    """

    inputs: ClassVar[tuple[str, ...]]
    maps: ClassVar[dict[str, dict[str, Any]]] = {"sare": {}}
    encoders: ClassVar[tuple[str, ...]] = ("image_encoder", "semantic_encoder")

    def __init__(self) -> None:
        super().__init__()
        self.frozen: set[str] = set()

    def freeze(self, child: str) -> None:
        """Keep a child module as it was loaded: no gradients, always in eval mode, not in checkpoints."""
        self.frozen.add(child)
        self.get_submodule(child).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for child in self.frozen:
            self.get_submodule(child).eval()
        return self

    def trained_state(self) -> dict[str, Tensor]:
        """The state dict without the frozen children: all that a checkpoint needs to hold."""
        return {name: value for name, value in self.state_dict().items() if name.partition(".")[0] not in self.frozen}

    def load_trained(self, state: dict[str, Tensor]) -> None:
        """Take over what `trained_state` gave.

        Raises ConfigError: names or shapes are not exactly those of this detector; nothing is loaded then.
        """
        own = self.trained_state()
        faults = {
            "missing": own.keys() - state.keys(),
            "unexpected": state.keys() - own.keys(),
            "of another shape": {name for name in own.keys() & state.keys() if own[name].shape != state[name].shape},
        }
        if any(faults.values()):
            text = "; ".join(f"{fault}: {', '.join(sorted(names))}" for fault, names in faults.items() if names)
            raise ConfigError(
                f"the checkpoint does not fit the detector ({text}). "
                "Use the detector settings and encoders that it was trained with."
            )
        self.load_state_dict(state, strict=False)  # the frozen children's names are missing on purpose
