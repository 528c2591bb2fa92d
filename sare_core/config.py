"""One typed, validated configuration: a preset in YAML, with `--set section.key=value` on top.

A section's fields change the output and are part of its stage's fingerprint, except those that the section lists in
`runtime`: batch sizes, worker counts and the like, which may differ from run to run without touching a byte; and those
in `files`: models and tables, which count by their content or commit, not by their name.
Where the paper is silent the chosen reading and its alternatives stand at the field, here and nowhere else.
"""

import difflib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sare_core.data.adapters import layouts
from sare_core.errors import ConfigError
from sare_core.views import validate_view

Dtype = Literal["float32", "float16", "bfloat16"]


class Section(BaseModel):
    """A group of settings. Unknown keys are refused; values are never changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
    runtime: ClassVar[frozenset[str]] = frozenset()
    files: ClassVar[frozenset[str]] = frozenset()

    def fingerprint_fields(self) -> dict[str, Any]:
        """The fields that change the output, as plain JSON values: what a fingerprint hashes."""
        return self.model_dump(mode="json", exclude=set(self.runtime | self.files))


class CaptionSettings(Section):
    """Paper 3.2, "Image Captioning". Silent on decoding: greedy and short, the model card's own example."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    files: ClassVar[frozenset[str]] = frozenset({"model", "revision", "table", "text_tokenizer"})

    captioner: str  # a name in sare_core.captioning: blip, llava-next, none, table
    model: str | None = None  # hub id or folder; null for none and table
    revision: str | None = None  # of the hub model; null takes the newest commit and records it
    prompt: str | None = None  # BLIP: text that the caption continues; LLaVA-NeXT: the question
    max_new_tokens: int = Field(ge=1)
    num_beams: int = Field(ge=1)
    dtype: Dtype
    table: str | None = None  # parquet or CSV with image_id or path, and caption: the user's own captions
    text_tokenizer: str  # of the diffusion model's CLIP text encoder: captions are cut to what it takes
    batch_size: int = Field(ge=1)


class ReconstructSettings(Section):
    """Paper 3.2, equations 1 to 4, and 4.1."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    files: ClassVar[frozenset[str]] = frozenset({"model", "revision"})

    model: str  # a Stable Diffusion family folder or hub id
    revision: str | None = None
    longer_side: int = Field(ge=8)  # 4.1: 512; the shorter side is floored to the model's multiple, as diffusers does
    upscale: bool  # 4.1 says "resized to 512 on the longer side": smaller images grow; false leaves them
    resample: Literal["lanczos", "bicubic", "bilinear"]  # silent: diffusers' own default, Lanczos
    steps: int = Field(ge=1, le=1000)  # T_max; Stable Diffusion was trained on 1000
    strength: float = Field(ge=0, le=1)  # T = floor(strength * T_max); 0: x̂ = D(E(x)), the autoencoder alone
    guidance_scale: float = Field(ge=0)  # w of equation 2; 1 is the plain conditional model
    eta: float = Field(ge=0, le=1)  # 0: "DDIM sampling"; equation 3 as printed would add fresh noise
    latents: Literal["sample", "mean"]  # z_0 of equation 1: the VAE's posterior sampled (diffusers), or its mean
    dtype: Dtype
    keep_source: bool  # the source file's bytes in the shard
    keep_reconstruction: bool  # reconstruction.png in the shard
    sare_size: (
        Literal["full"] | Annotated[int, Field(ge=1)]
    )  # the stored map: at the size of x̂, or the whole map resized to a square
    lpips: Literal["alex", "vgg", "alex-random"] | None = None  # equation 7, per image, into the sample's JSON
    batch_size: int = Field(ge=1)


class DetectorSettings(Section):
    """Paper 3.3, equations 5 and 6. Silent on tokens, heads and residual; METHOD notes in README say why these."""

    files: ClassVar[frozenset[str]] = frozenset(
        {"image_encoder", "image_encoder_revision", "semantic_encoder", "semantic_encoder_revision"}
    )

    detector: str  # a name in sare_core.detectors
    image_encoder: str  # E_x: a CLIP vision model with projection (transformers)
    image_encoder_revision: str | None = None
    tune_image_encoder: bool  # DRCT, the backbone, freezes it
    query: Literal["projected", "patches"]  # f_x: the projected embedding (one token), or the patch tokens
    semantic_encoder: str  # E_s: a timm ResNet, by hub id or folder
    semantic_encoder_revision: str | None = None
    semantic_input: Literal["sare", "image", "zero"]  # what E_s is fed: the map; for controls the image, or a map of 0
    semantic_tokens: Literal["map", "pooled"]  # f_s: the last feature map's cells (49 at 224), or their mean
    embed_dim: int = Field(ge=1)  # DRCT's embedding: 1024
    heads: int = Field(ge=1)
    residual: bool  # without it, and with one key, the image would drop out of the result
    input_size: int = Field(ge=8)  # 4.1: 224
    image_view: Literal["crop", "resize"]  # native size, padded and cropped (DRCT); or resized first
    sare_view: Literal["whole", "crop"]  # the whole map resized; or cropped together with the image
    normalization: Literal["imagenet", "clip"]  # DRCT feeds CLIP with ImageNet's constants


class AugmentSettings(Section):
    """Paper 4.1: flip, Gaussian noise, Gaussian blur, rotation. Strengths are DRCT's. Probabilities in [0, 1]."""

    flip: float = Field(ge=0, le=1)
    rotate90: float = Field(ge=0, le=1)  # a random quarter turn; shared with the map, as the flip is
    noise: float = Field(ge=0, le=1)
    noise_variance: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]  # of 8-bit levels
    blur: float = Field(ge=0, le=1)
    blur_kernel: tuple[int, int]  # odd sizes, inclusive

    @field_validator("blur_kernel")
    @classmethod
    def odd(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] < 1 or value[0] % 2 == 0 or value[1] % 2 == 0 or value[0] > value[1]:
            raise ValueError("needs two odd sizes, the smaller first")
        return value


class TrainSettings(Section):
    """Paper 4.1. Weight decay and schedule are DRCT's, whose code the paper builds on."""

    runtime: ClassVar[frozenset[str]] = frozenset({"workers", "checkpoint_steps"})

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
    mixed_precision: Literal["no", "fp16", "bf16"]
    shuffle_shards: int = Field(ge=1)  # so many shards are mixed at a time: each epoch reads disks nearly in order
    augment: AugmentSettings
    workers: int = Field(ge=0)
    checkpoint_steps: int = Field(ge=1)

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def plain_no(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML reads a bare `no` as false


class EvaluateSettings(Section):
    """Paper 4.1: ACC at 0.5 and AUC. The dtype is explicit since it moves logits by rounding."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    dtype: Dtype
    batch_size: int = Field(ge=1)


class Settings(Section):
    """Everything that says what is computed. Where it is computed (work folder, device) is said on the command line."""

    note: str | None = None  # printed under every table: what a reader must know about these settings
    seed: int = Field(0, ge=0)  # of the noise of each image
    view: str = "raw"  # how a file is looked at, right after decoding: see sare_core.views
    # Whose train and val splits are worked on; null: all. A preset may say it by layout, {genimage: [sdv1.4]}: for data
    # in a layout that it does not name, all.
    train_subsets: tuple[str, ...] | None = None
    caption: CaptionSettings
    reconstruct: ReconstructSettings
    detector: DetectorSettings
    train: TrainSettings
    evaluate: EvaluateSettings

    @field_validator("view")
    @classmethod
    def known_view(cls, value: str) -> str:
        return validate_view(value)


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(Path(f.name).stem for f in files("sare_core.presets").iterdir() if f.name.endswith(".yaml"))


def load_settings(preset: str, overrides: list[str] | None = None, layout: str | None = None) -> Settings:
    """Read a preset, by name or as the path of a YAML file, and apply `section.key=value` overrides.

    layout: of the training data, which `train_subsets` may depend on.
    Raises ConfigError: no such preset, not YAML, an unknown key (with the nearest known one), a value out of range.
    """
    if preset in presets():
        text = (files("sare_core.presets") / f"{preset}.yaml").read_text()
    elif Path(preset).suffix in {".yaml", ".yml"}:
        if not Path(preset).is_file():
            raise ConfigError(f"{preset}: no such settings file. The presets are {', '.join(presets())}.")
        try:
            text = Path(preset).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{preset}: not UTF-8 text ({error}).") from error
    else:
        raise ConfigError(
            f"no preset {preset!r}.{_nearest(preset, presets())} "
            f"The presets are {', '.join(presets())}; or give the path of a .yaml file."
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{preset}: not readable as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{preset}: holds no settings; copy a preset and change it.")
    for override in overrides or []:
        _override(values, override)
    if isinstance(by_layout := values.get("train_subsets"), dict):
        if odd := sorted(str(name) for name in by_layout.keys() - set(layouts())):
            raise ConfigError(f"setting train_subsets: no layout {odd[0]!r}. The layouts are {', '.join(layouts())}.")
        values["train_subsets"] = by_layout.get(layout)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(fault) for fault in error.errors())) from None


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """All dotted keys, as `--set` takes them."""
    keys = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals:
        raise ConfigError(f"--set {override}: write it as key=value, for example reconstruct.strength=0.7.")
    if key not in known_keys():
        raise ConfigError(f"--set {override}: no setting {key!r}.{_nearest(key, known_keys())}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not readable as YAML: {error}") from error
    *path, leaf = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: the preset's {part} holds no settings.")
    values[leaf] = value


def _explain(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"no setting {key!r}.{_nearest(key, known_keys())}"
    if fault["type"] == "missing":
        return f"setting {key} is missing."
    return f"setting {key}: {fault['msg']} (given: {fault['input']!r})."


def _nearest(word: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not matches:  # a right leaf in the wrong section is the likeliest slip
        leaf = word.rpartition(".")[2]
        matches = [key for key in known if key.rpartition(".")[2] == leaf][:1]
    return f" Did you mean {matches[0]!r}?" if matches else ""
