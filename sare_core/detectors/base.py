"""What every detector is to training and evaluation: what it needs of an image, one logit, and what it learnt."""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from sare_core.config.detectors import DetectorSettings
from sare_core.config.training import AugmentSettings
from sare_core.detectors import transforms
from sare_core.detectors.transforms import Parts
from sare_core.errors import ConfigError

NEEDS = frozenset({"image", "sare", "reconstruction", "caption"})


class Detector(nn.Module):
    """A network from a batch to logits (B,); above 0 means fake. Loader, trainer and predictor read no more than this:

    Settings: the class of its settings: those that all detectors share, and its own with their defaults.
    needs: what is read of each image, out of NEEDS. Parts are named so, but each map by its name in `maps`.
    maps: the SARE maps by name, each with the settings, by dotted key, that differ from the run's where it is made.
        x̂ and caption are those of the first. Without any ({}) no image needs to be reconstructed.
    scored_alone: whether maps, x̂ and captions serve training only: then the image is all that is read to score it.
    encoders: roles of the pre-trained encoders that it loads; detector.<role> names each one's model. Where that
        depends on the settings, `roles` says it.
    source: the paper that it follows, and its year. released: whether weights are published that its layers can take.
    """

    Settings: ClassVar[type[DetectorSettings]] = DetectorSettings
    needs: ClassVar[frozenset[str]] = frozenset({"image", "sare"})
    maps: ClassVar[dict[str, dict[str, Any]]] = {"sare": {}}
    scored_alone: ClassVar[bool] = False
    encoders: ClassVar[tuple[str, ...]] = ()
    source: ClassVar[str] = ""
    released: ClassVar[bool] = False

    def __init__(self, settings: Any, encoders: dict[str, Any]) -> None:
        """settings: of the class `Settings`. encoders: by role, loaded."""
        super().__init__()
        self.frozen: set[str] = set()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of what `prepare` gave, stacked. In training `batch` has the labels, too: label (B,)."""
        raise NotImplementedError

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """What training minimises, a mean over the batch. A loss of more than logits keeps the rest in `forward`.

        logits: (B,) float32. batch: with label (B,), 1 for fake.
        """
        return binary_cross_entropy_with_logits(logits, batch["label"].float())

    @classmethod
    def roles(cls, settings: Any) -> tuple[str, ...]:
        """The roles of the encoders that it loads under these settings."""
        return cls.encoders

    @classmethod
    def load_encoder(cls, role: str, folder: str) -> Any:
        """The encoder of a role from its model's folder. A class with roles of its own loads those itself.

        Raises ConfigError: the folder does not hold what it should.
        """
        from sare_core.detectors import encoders  # transformers, timm

        return getattr(encoders, f"load_{role}")(folder)

    @classmethod
    def samples(cls, settings: Any) -> tuple[str, ...]:
        """Names of the training samples that an image gives. What is held out and scored gives the first alone."""
        return ("image",)

    @classmethod
    def sample(cls, name: str, parts: Parts, label: int) -> tuple[Parts, int]:
        """Parts and label of the sample `name` of an image that has these; a further fake may be its x̂."""
        return parts, label

    @classmethod
    def prepare(
        cls, parts: Parts, settings: Any, augment: AugmentSettings | None = None, rng: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """From the parts of an image to the tensors that `forward` reads of it; see `transforms.prepare`."""
        return transforms.prepare(parts, settings, augment, rng)

    def start(self, state: dict[str, Tensor]) -> None:
        """Before training: take over what is of use in the state of the trained detector that `start_from` names.

        For a class whose settings have that. Raises ConfigError: it does not fit.
        """
        raise NotImplementedError

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
