"""Every recipe of the scale model's second edition: what is trained on what, with which seed and for how long.

A recipe trains, or goes on, or loads what is kept; so calling one calls what it needs. A *world* is what captions on
the web mention: two worlds differ in that alone, and share autoencoder, encoders, captioner and measuring networks.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sare_core.scale_model.corpus import load_scenes
from sare_core.scale_model.scenes import CLASSES, Scenes
from sare_core.scale_model.words import class_prompt, clip_tokenizer, web_captions

# Shares of the extras that captions mention. At 0 their silence says nothing; at 0.7 what goes unmentioned is there in
# 17 % of the pictures, instead of 40 %.
MENTIONED = (0.0, 0.7)
GUIDANCE = (1.0, 7.5)  # none, and Stable Diffusion's usual one


class World:
    """Recipes by name, in a work folder. `scale` shortens all in proportion: 1 is what ships, 0.001 a rehearsal."""

    def __init__(self, work: str | Path, articles: str | Path, scale: float = 1.0) -> None:
        self.work, self.articles, self.scale = Path(work), articles, scale

    def steps(self, full: int) -> int:
        return max(2, round(full * self.scale))

    @cached_property
    def scenes(self) -> Scenes:
        return load_scenes(self.work, self.articles, "models")

    def autoencoder(self) -> Any:
        from sare_core.scale_model.autoencoder import train_autoencoder

        return train_autoencoder(self.work / "autoencoder", self.scenes, (16, 32, 64), self.steps(3000), seed=1)

    def clip(self) -> Any:
        from sare_core.scale_model.contrast import train_clip

        return train_clip(self.work / "clip", self.scenes, self.steps(800), seed=2)

    def captioner(self) -> Any:
        from sare_core.scale_model.captioner import train_captioner

        return train_captioner(self.work / "captioner", self.scenes, self.steps(4000), seed=3)

    def semantic_encoder(self) -> Any:
        from sare_core.scale_model.classifier import train_classifier

        return train_classifier(self.work / "semantic_encoder", self.scenes, self.steps(700), seed=5)

    def counter(self) -> Any:
        from sare_core.scale_model.classifier import train_counter

        return train_counter(self.work / "counter", self.scenes, self.steps(800), seed=11)

    def unet(self, mentioned: float) -> Any:
        """The reconstruction model of a world, which is also its Stable Diffusion 1.4."""
        from sare_core.miniature.latent import new_unet
        from sare_core.scale_model.latent import train_unet

        captions = web_captions(self.scenes, mentioned, seed=20)
        vae, text = self.autoencoder(), self.clip().text_model
        folder = self.work / f"unet-{mentioned}"
        return train_unet(folder, new_unet((64, 96), 6), vae, text, self.scenes, captions, self.steps(6000), seed=6)

    def diffusion(self, mentioned: float) -> Any:
        """The parts of a world's reconstruction model, as a StableDiffusionPipeline."""
        from sare_core.miniature.latent import assemble

        return assemble(self.autoencoder(), self.clip().text_model, self.unet(mentioned), clip_tokenizer())

    def draw(self, mentioned: float, guidance: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Images of a world's reconstruction model, (n, 32, 32) in [0, 1], and their classes, one after another."""
        from sare_core.miniature.latent import sample_prompts

        classes = np.arange(count) % len(CLASSES)
        prompts = [class_prompt(int(number)) for number in classes]
        return sample_prompts(self.diffusion(mentioned), prompts, seed, guidance), classes


# By the name that the command line takes.
RECIPES: dict[str, Callable[[World], Any]] = {
    "autoencoder": World.autoencoder,
    "clip": World.clip,
    "captioner": World.captioner,
    "semantic-encoder": World.semantic_encoder,
    "counter": World.counter,
    **{f"unet-{share}": lambda world, share=share: world.unet(share) for share in MENTIONED},  # type: ignore[misc]
}
