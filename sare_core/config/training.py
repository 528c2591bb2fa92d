"""Settings of training: `train.*`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from sare_core.config.section import Section


class AugmentSettings(Section):
    """Paper 4.1: flip, Gaussian noise, Gaussian blur, rotation. Strengths are DRCT's. Probabilities in [0, 1]."""

    flip: float = Field(ge=0, le=1)
    rotate90: float = Field(ge=0, le=1)  # a random quarter turn; shared with the map, as the flip is
    noise: float = Field(ge=0, le=1)
    noise_variance: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]  # of 8-bit levels
    blur: float = Field(ge=0, le=1)
    blur_kernel: tuple[int, int]  # odd sizes, inclusive
    # The rest of DRCT's list, off unless a probability is given; docs/detectors.md has all of its values.
    jpeg: float = Field(0.0, ge=0, le=1)
    jpeg_quality: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(le=100)]] = (30, 100)
    scale: float = Field(0.0, ge=0, le=1)  # of the image, and of a map that is cropped with it
    scale_factor: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.5, 1.5)
    color: float = Field(0.0, ge=0, le=1)  # either brightness and contrast, or hue, saturation and value
    dropout: float = Field(0.0, ge=0, le=1)  # either eight black squares, or a grid of them
    gray: float = Field(0.0, ge=0, le=1)
    affine: float = Field(0.0, ge=0, le=1)  # shifted, scaled and turned; shared with the map
    affine_shift: float = Field(0.1, ge=0, le=1)  # at most, of the side
    affine_scale: float = Field(0.2, ge=0, lt=1)  # at most, up or down
    affine_degrees: float = Field(10.0, ge=0, le=180)  # at most, either way

    neutral: ClassVar[dict[str, Any]] = {
        "jpeg": 0.0,
        "scale": 0.0,
        "color": 0.0,
        "dropout": 0.0,
        "gray": 0.0,
        "affine": 0.0,
        "jpeg_quality": (30, 100),
        "scale_factor": (0.5, 1.5),
        "affine_shift": 0.1,
        "affine_scale": 0.2,
        "affine_degrees": 10.0,
    }

    @property
    def further(self) -> bool:
        """Whether any of the rest of DRCT's list is on."""
        return any((self.jpeg, self.scale, self.color, self.dropout, self.gray, self.affine))

    @field_validator("jpeg_quality", "scale_factor")
    @classmethod
    def ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("needs two numbers, the smaller first")
        return value

    @field_validator("blur_kernel")
    @classmethod
    def odd(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] < 1 or value[0] % 2 == 0 or value[1] % 2 == 0 or value[0] > value[1]:
            raise ValueError("needs two odd sizes, the smaller first")
        return value


class TrainSettings(Section):
    """Paper 4.1. Weight decay and schedule are DRCT's, whose code the paper builds on."""

    runtime: ClassVar[frozenset[str]] = frozenset({"workers", "checkpoint_steps", "tracker"})
    neutral: ClassVar[dict[str, Any]] = {"warmup_steps": 0, "max_grad_norm": None, "tf32": False, "compile": False}

    seed: int = Field(0, ge=0)  # of initial weights, of the order of the images and of their augmentation
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)  # images an optimizer step, over all processes
    micro_batch_size: int = Field(ge=1)  # images a forward pass on one device: BatchNorm sees so many at a time
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    # cosine_annealing: DRCT's, stepped once an epoch with period 2 * t_max, so that it goes down and up again;
    # cosine: stepped each step, down to 0 at the end of the training
    schedule: Literal["cosine_annealing", "cosine", "constant"]
    t_max: int = Field(5, ge=1)  # epochs; of cosine_annealing only
    warmup_steps: int = Field(0, ge=0)  # n: the rate is 1/n, 2/n, … of the schedule's in the first n steps
    max_grad_norm: float | None = Field(None, gt=0)  # gradients of a step are scaled down to this L2 norm; null: never
    mixed_precision: Literal["no", "fp16", "bf16"]
    # Products of float32 matrices in TF32, where the GPU has it: 10 bits of mantissa, so other weights, as under
    # mixed_precision. false is torch's own default, under which only convolutions are in TF32.
    tf32: bool = False
    compile: bool = False  # the detector by torch.compile, one graph a shape: the same weights up to rounding
    shuffle_shards: int = Field(ge=1)  # so many shards are mixed at a time: each epoch reads disks nearly in order
    augment: AugmentSettings
    workers: int = Field(ge=0)
    checkpoint_steps: int = Field(ge=1)
    # Where curves and settings go: accelerate's names, each also that of the package to install; or nowhere.
    tracker: Literal[
        "tensorboard", "wandb", "trackio", "aim", "comet_ml", "mlflow", "clearml", "dvclive", "swanlab", "none"
    ] = "tensorboard"

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def plain_no(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML reads a bare `no` as false
