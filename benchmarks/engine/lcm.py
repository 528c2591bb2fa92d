"""A latent consistency model of the scale model: `python -m benchmarks.engine.lcm`, after `sare mini`.

Latent consistency distillation (Luo et al. 2023, arXiv 2310.04378) of the shipped U-Net. From anywhere on a path from
noise to image the student is to give the path's end: what it gives at one timestep is drawn to what it gives at the
next cleaner one, which the teacher reaches by a DDIM step, guided as in the mini preset. It has seen no other guidance.
Writes a Stable Diffusion folder that `reconstruct.model` takes with `reconstruct.sampler=lcm`; benchmarks.engine.turbo
measures it. Takes 20 minutes of one core; a training that was stopped goes on.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from sare_core.config import load_settings
from sare_core.miniature.contrast import tokenise
from sare_core.miniature.corpus import load_scenes
from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.latent import SCHEDULER, encode_scenes
from sare_core.miniature.scenes import Scenes
from sare_core.miniature.words import web_captions
from sare_core.reconstruction.consistency import told_guidance

MENTIONED = 0.7  # the world of the shipped models
NO_CAPTION = 0.2  # share of the pictures that are shown without their caption; the SARE map is compared with that
STEPS, BATCH, RATE, SEED = 1200, 16, 3e-4, 30
# A path's timesteps are 40 of 1000 apart: the teacher's steps are still finer than those of the preset.
SCHEDULE = SCHEDULER | {"original_inference_steps": 25}
TOLD = 64  # width of the embedding of w
HUBER = 1e-3  # of the pseudo-Huber loss, as in diffusers' script for such models
OUT = Path("models/mini-lcm")
ARTICLES = Path("/usr/share/datasets/fashion-mnist")  # Debian: dataset-fashion-mnist


def distil(folder: Path, teacher: Any, scenes: Scenes, guidance_scale: float, steps: int) -> Any:
    """The student of a pipeline `teacher`, for this guidance; or go on where `folder` stands."""
    student: Any = UNet2DConditionModel.from_config({**teacher.unet.config, "time_cond_proj_dim": TOLD})
    student.load_state_dict(teacher.unet.state_dict(), strict=False)
    torch.nn.init.zeros_(student.time_embedding.cond_proj.weight)  # so that it begins as the teacher
    student = student.to(memory_format=torch.channels_last)
    means, deviations = encode_scenes(teacher.vae, scenes.pixels, SEED)
    captions = web_captions(scenes, MENTIONED, seed=20)  # those that the teacher has learnt from
    texts = {text: number for number, text in enumerate(["", *sorted(set(captions))])}
    with torch.no_grad():
        states = teacher.text_encoder(tokenise(list(texts))).last_hidden_state
    caption_of = torch.tensor([texts[text] for text in captions])
    scheduler = LCMScheduler.from_config(SCHEDULE)
    scheduler.set_timesteps(scheduler.config.original_inference_steps)
    timesteps = scheduler.timesteps.flip(0)
    cleaner = torch.cat([torch.zeros(1, dtype=torch.long), timesteps[:-1]])
    told = told_guidance(guidance_scale, TOLD).expand(BATCH, -1)

    def ends(latents: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """Where the student sees the paths end that go through `latents`; at t = 0, where they are."""
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(t.view(-1, 1, 1, 1))
        noise = student(latents, t, text, timestep_cond=told).sample
        return skip * latents + out * clean(latents, noise, t)

    def clean(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        alpha = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (latents - (1 - alpha).sqrt() * noise) / alpha.sqrt()

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = torch.from_numpy(rng.integers(0, len(scenes), BATCH))
        text = states[caption_of[chosen].masked_fill(torch.from_numpy(rng.random(BATCH) < NO_CAPTION), 0)]
        place = torch.from_numpy(rng.integers(0, len(timesteps), BATCH))
        t, t_next = timesteps[place], cleaner[place]
        latents = means[chosen] + deviations[chosen] * torch.randn_like(means[chosen])
        latents = scheduler.add_noise(latents, torch.randn_like(latents), t)
        with torch.no_grad():
            both = torch.cat([states[:1].expand_as(text), text])
            null, captioned = teacher.unet(torch.cat([latents] * 2), torch.cat([t] * 2), both).sample.chunk(2)
            noise = null + guidance_scale * (captioned - null)
            later = scheduler.add_noise(clean(latents, noise, t), noise, t_next)  # a DDIM step
            target = ends(later, t_next, text)
        moved = ends(latents, t, text) - target
        yield "student", ((moved.square() + HUBER**2).sqrt() - HUBER).mean()

    fit(folder, {"student": Part(student, RATE, ema=0.995)}, steps, losses, SEED, warmup=100)
    return student


def main(
    articles: Annotated[Path, typer.Option(help="Fashion-MNIST's .gz files.")] = ARTICLES,
    work: Annotated[Path, typer.Option(help="Where the training is kept while it goes on.")] = Path("work/mini-lcm"),
    out: Annotated[Path, typer.Option(help="Where the model goes.")] = OUT,
    steps: Annotated[int, typer.Option(help="Of the training; fewer for a rehearsal.")] = STEPS,
) -> None:
    """Distil, and write the model."""
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(1)  # or the number of cores would show in the weights
    settings = load_settings("mini", [], "genimage").reconstruct
    teacher: Any = StableDiffusionPipeline.from_pretrained(settings.model, torch_dtype=torch.float32)
    for part in (teacher.unet, teacher.vae, teacher.text_encoder):
        part.requires_grad_(False).eval()
    scenes = load_scenes(work, articles, "models")
    student = distil(work / "unet", teacher, scenes, settings.guidance_scale, steps)
    parts = {name: teacher.components[name] for name in ("vae", "text_encoder", "tokenizer")}
    whole = {"scheduler": LCMScheduler.from_config(SCHEDULE), "safety_checker": None, "feature_extractor": None}
    model: Any = LatentConsistencyModelPipeline(unet=student, **parts, **whole, requires_safety_checker=False)
    model.to(dtype=torch.float16).save_pretrained(out)
    print(f"{out}: written")


if __name__ == "__main__":
    typer.run(main)
