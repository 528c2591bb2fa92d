"""Settings of reconstructions: `reconstruct.*`."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sare_core.config.section import Dtype, Section


class ReconstructSettings(Section):
    """Paper 3.2, equations 1 to 4, and 4.1."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size", "shards_together"})
    models: ClassVar[dict[str, str]] = {"model": "revision"}
    files: ClassVar[frozenset[str]] = frozenset({*models, *models.values()})
    neutral: ClassVar[dict[str, Any]] = {
        "method": "img2img",
        "noise_draws": 1,
        "speed": "exact",
        "attention": "default",
        "pad_heads": False,
        "size_multiple": None,
        "sampler": "ddim",
        "cache_interval": 1,
        "token_merging": 0.0,
        "rounds": 1,
    }

    # A name in sare_core.reconstruction: img2img (3.2), one_step, autoencoder, ddim_inversion, inpaint.
    method: str = "img2img"
    model: str  # a Stable Diffusion family folder or hub id
    revision: str | None = None
    longer_side: int = Field(ge=8)  # 4.1: 512; the shorter side is floored to the model's multiple, as diffusers does
    upscale: bool  # 4.1 says "resized to 512 on the longer side": smaller images grow; false leaves them
    # Of pixels, that both sides of x̂ are floored to; null: the model's own, 8 for Stable Diffusion. A coarser one, such
    # as 64, makes fewer sizes, so fuller batches and fewer compilations.
    size_multiple: int | None = Field(None, ge=1)
    resample: Literal["lanczos", "bicubic", "bilinear"]  # silent: diffusers' own default, Lanczos
    # "DDIM sampling"; lcm: as latent consistency models are sampled (arXiv 2310.04378), with fresh noise at every step
    # but the last. There steps is the number of steps that are run, from the noise that strength says.
    sampler: Literal["ddim", "lcm"] = "ddim"
    steps: int = Field(ge=1, le=1000)  # T_max; Stable Diffusion was trained on 1000
    strength: float = Field(ge=0, le=1)  # T = floor(strength * T_max); 0: x̂ = D(E(x)), the autoencoder alone
    guidance_scale: float = Field(ge=0)  # w of equation 2; 1 is the plain conditional model
    eta: float = Field(ge=0, le=1)  # 0: "DDIM sampling"; equation 3 as printed would add fresh noise
    noise_draws: int = Field(1, ge=1)  # independent draws of the noise an image: the map is the mean of theirs
    # 2: x̂ is reconstructed again, with the same noise and caption, and its map is that of x̂ in place of x: the second
    # order of difference-in-difference (arXiv 2602.23732).
    rounds: Literal[1, 2] = 1
    latents: Literal["sample", "mean"]  # z_0 of equation 1: the VAE's posterior sampled (diffusers), or its mean
    dtype: Dtype
    # The source file's bytes in the shard. recoded: of a PNG instead its pixels as `decode` gives them, written anew:
    # training then reads it about four times as fast, and what else the file says is left out.
    keep_source: Literal[True, False, "recoded"]
    keep_reconstruction: bool  # reconstruction.png in the shard; of the first draw
    sare_size: (
        Literal["full"] | Annotated[int, Field(ge=1)]
    )  # the stored map: at the size of x̂, or the whole map resized to a square
    lpips: Literal["alex", "vgg", "alex-random"] | None = (
        None  # equation 7, per image, the mean of the draws, into its JSON
    )
    # DeepCache's: all of the U-Net runs at one of so many steps; at the others its outermost layers alone do, on the
    # deep features of the last of these. 1: at every step. Faster, and another x̂ (docs/speed.md).
    cache_interval: int = Field(1, ge=1)
    # Share of the tokens that the U-Net's self-attention at its highest resolution leaves out: each goes into the one
    # most like it (ToMe, arXiv 2303.17604). 0: none. Faster, and another x̂ (docs/speed.md).
    token_merging: float = Field(0.0, ge=0, le=0.75)
    # exact: as PyTorch runs it. rounding: compiled, channels last, all batches of a size alike; differs by rounding.
    # quantised: likewise, and linear layers of the U-Net multiply 8-bit integers; another x̂ (docs/speed.md).
    speed: Literal["exact", "rounding", "quantised"] = "exact"
    # torch's kernel for the U-Net's attention; default: as torch chooses. And its heads padded with zeros to multiples
    # of 64. Both differ by rounding; `sare bench --only attention` says what pays.
    attention: Literal["default", "flash", "cudnn", "efficient", "math"] = "default"
    pad_heads: bool = False
    batch_size: int = Field(ge=1)
    # Shards that a process computes together, so that batches of rare sizes are filled from all of them. A process that
    # is killed has so many to do again.
    shards_together: int = Field(1, ge=1)

    @property
    def denoising_steps(self) -> int:
        """T of equation 1, in steps: as many lead from z_T to z_0."""
        if self.sampler == "lcm":
            return self.steps if self.strength > 0 else 0
        return min(int(self.steps * self.strength), self.steps)

    @model_validator(mode="after")
    def _grid_fits(self) -> Self:
        if self.size_multiple is not None and self.size_multiple > self.longer_side:
            raise ValueError(f"size_multiple={self.size_multiple} is above longer_side={self.longer_side}")
        return self

    @model_validator(mode="after")
    def _sampler_fits(self) -> Self:
        for name, value in {"eta": 0, "cache_interval": 1}.items():
            if self.sampler == "lcm" and getattr(self, name) != value:
                raise ValueError(
                    f"sampler=lcm: {name}={getattr(self, name)} plays no part in it. Set reconstruct.{name}={value}."
                )
        return self
