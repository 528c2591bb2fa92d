"""Does the premise hold? Whether generated images hold less beside their prompt than photographs do, and what it does.

Measured before any detector is trained, on photographs of the validation part, which no test counts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from PIL import Image
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score
from torch import Tensor

from sare_core.config import load_settings
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.evaluation.statistics import held_out_scores, pixel_statistics, regression
from sare_core.miniature.contrast import encoder_input
from sare_core.miniature.words import class_prompt
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.mapper import Mapper

BATCH = 100
# One row an image. prompted: the class that it was drawn for, or shows. right: does the captioner say so. extras: how
# many the counter sees. fit: mean log-likelihood of a token of "a photo of a <class>" under the captioner, in nats.
# kept: does x̂ show the class that x shows. The others: mean |x − x̂| in 8-bit levels, of the autoencoder alone, under
# the captioner's caption, and under none; the image encoder's embedding, and statistics of the pixels.
COLUMNS: dict[str, Any] = {
    "prompted": pl.Int8,
    "right": pl.Boolean,
    "extras": pl.Int8,
    "fit": pl.Float64,
    "kept": pl.Boolean,
    "autoencoder": pl.Float64,
    "captioned": pl.Float64,
    "uncaptioned": pl.Float64,
    "embedding": pl.List(pl.Float32),
    "pixels": pl.List(pl.Float64),
}
IMAGES = pl.Schema(COLUMNS)
# What was set before anything was measured: the least and the most that a row may show for the premise to hold there.
GATES = {
    "extras_fewer": (0.5, np.inf),  # than photographs hold
    "fit_auc": (55.0, 90.0),
    "autoencoder_auc": (45.0, 60.0),
    "encoder_auc": (85.0, np.inf),
    "kept": (80.0, np.inf),
}


class Instruments(NamedTuple):
    """What images are measured with: classifier, counter, CLIP, captioner and its processor, and a folder of Stable
    Diffusion's layout."""

    classifier: Any
    counter: Any
    clip: Any
    captioner: Any
    processor: Any
    diffusion: str


def measure(
    images: np.ndarray, classes: np.ndarray, names: list[str], instruments: Instruments, **settings: Any
) -> pl.DataFrame:
    """IMAGES of photographed images ((n, 32, 32) uint8), prompted by or showing these classes.

    names: decide the noise of each. settings: of `reconstruct` in the mini preset, where they are to be others.
    """
    chosen: ReconstructSettings = load_settings("mini").reconstruct.model_copy(update=settings)
    mapper = Mapper(chosen, 0, Img2Img(chosen, instruments.diffusion, "cpu"))
    parts = []
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        parts.append(_measure(images[part], classes[part], names[part], instruments, mapper))
    return pl.concat(parts)


@torch.inference_mode()
def _measure(
    images: np.ndarray, classes: np.ndarray, names: list[str], instruments: Instruments, mapper: Mapper
) -> pl.DataFrame:
    gray = torch.from_numpy(images).float().unsqueeze(1) / 255
    shown = [Image.fromarray(image).convert("RGB") for image in images]
    captions, fit = _captions(shown, classes, instruments)
    pixels = [np.asarray(image) for image in shown]
    under: dict[str, list[Any]] = {
        kind: mapper.maps(pixels, texts, names)
        for kind, texts in (("captioned", captions), ("uncaptioned", [""] * len(images)))
    }
    again = np.stack([each.reconstruction for each in under["captioned"]]).mean(axis=3)
    vae: Any = mapper.reconstructor.vae  # type: ignore[attr-defined]
    decoded = vae.decode(vae.encode((gray * 2 - 1).expand(-1, 3, -1, -1)).latent_dist.mean).sample.mean(1) / 2 + 0.5
    best: Callable[[Tensor], np.ndarray] = lambda x: instruments.classifier(encoder_input(x)).argmax(1).numpy()  # noqa: E731
    return pl.DataFrame(
        {
            "prompted": classes,
            "right": [said == class_prompt(int(n)) for said, n in zip(captions, classes, strict=True)],
            "extras": (instruments.counter(encoder_input(gray)) > 0).sum(1).numpy(),
            "fit": fit,
            "kept": best(gray) == best(torch.from_numpy(again).float().unsqueeze(1) / 255),
            "autoencoder": (decoded.clamp(0, 1) - gray[:, 0]).abs().mean((1, 2)).numpy() * 255,
            **{kind: [float(each.sare.mean()) for each in found] for kind, found in under.items()},
            "embedding": list(
                instruments.clip.get_image_features(pixel_values=encoder_input(gray)).pooler_output.numpy()
            ),
            "pixels": [pixel_statistics(image) for image in shown],
        },
        schema=IMAGES,
        strict=False,
    )


def _captions(shown: list[Image.Image], classes: np.ndarray, instruments: Instruments) -> tuple[list[str], np.ndarray]:
    """What the captioner says of each image, and how likely it holds "a photo of a <class>" to be."""
    captioner, processor = instruments.captioner, instruments.processor
    pixels = processor.image_processor(shown, return_tensors="pt").pixel_values
    said = processor.batch_decode(captioner.generate(pixel_values=pixels, max_new_tokens=16), skip_special_tokens=True)
    tokens = processor.tokenizer([class_prompt(int(n)) for n in classes], padding=True, return_tensors="pt")
    ids = tokens.input_ids.clone()
    ids[:, 0] = processor.tokenizer.bos_token_id
    logits = captioner(pixel_values=pixels, input_ids=ids, attention_mask=tokens.attention_mask).logits
    told = tokens.attention_mask[:, 1:].bool()
    each = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2).masked_fill(~told, 0)
    return [text.strip() for text in said], (each.sum(1) / told.sum(1)).numpy()


def compare(photographs: pl.DataFrame, drawn: pl.DataFrame, training: pl.DataFrame) -> dict[str, Any]:
    """A row of the premise table: photographs against the images of one generator, both from `measure`.

    training: images of the generator that a detector would be trained on, for `pixels_auc`: how far a regression on
    pixel statistics fitted to it carries over. delta*: mean error of photographs less that of generated images
    (equation 7 with L1), in levels, with the ends of a 95 % interval over images; captioned, uncaptioned, and the first
    less the second (`share`). AUCs are in percent. missed: the GATES that are not met.
    """
    share = [(table["captioned"] - table["uncaptioned"]).to_numpy() for table in (photographs, drawn)]
    row: dict[str, Any] = {
        "captioner_right": _percent(drawn, "right"),
        "extras": float(drawn["extras"].to_numpy().mean()),
        "extras_fewer": float(photographs["extras"].to_numpy().mean() - drawn["extras"].to_numpy().mean()),
        "fit_auc": _auc(photographs["fit"].to_numpy(), drawn["fit"].to_numpy()),
        "kept": _percent(drawn, "kept"),
        "autoencoder_auc": _auc(drawn["autoencoder"].to_numpy(), photographs["autoencoder"].to_numpy()),
        "encoder_auc": _encoder_auc(photographs, drawn),
        "pixels_auc": _carried_over(photographs, training, drawn),
        **{
            f"delta_{kind}": _difference(photographs[kind].to_numpy(), drawn[kind].to_numpy())
            for kind in ("captioned", "uncaptioned")
        },
        "delta_share": _difference(*share),
        "captioned_auc": _auc(drawn["captioned"].to_numpy(), photographs["captioned"].to_numpy()),
        "share_auc": _auc(share[1], share[0]),
    }
    return row | {"missed": [name for name, (low, high) in GATES.items() if not low <= row[name] <= high]}


def _percent(table: pl.DataFrame, column: str) -> float:
    return 100 * float(table[column].to_numpy().mean())


def _encoder_auc(photographs: pl.DataFrame, drawn: pl.DataFrame) -> float:
    """Of a regression on the image encoder's features, fitted to the generator itself, on held-out folds."""
    features = np.stack(photographs["embedding"].to_list() + drawn["embedding"].to_list())
    labels = np.repeat([0, 1], [len(photographs), len(drawn)])
    return 100 * float(roc_auc_score(labels, held_out_scores(features, labels, seed=0)))


def _carried_over(photographs: pl.DataFrame, training: pl.DataFrame, drawn: pl.DataFrame) -> float:
    """Of a regression on pixel statistics: fitted to one half of the photographs and of the training generator's
    images, tried on the other half of the photographs and of `drawn`, which may be the training generator itself."""
    half = len(photographs) // 2
    real = np.stack(photographs["pixels"].to_list())
    known, tried = (np.stack(table["pixels"].to_list()) for table in (training, drawn))
    fitted = regression().fit(np.concatenate([real[:half], known[:half]]), np.repeat([0, 1], half))
    return _auc(fitted.decision_function(real[half:]), fitted.decision_function(tried[half:]))


def _difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    found = bootstrap(
        (first, second),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(first.mean() - second.mean()), float(found.low), float(found.high)


def _auc(low: np.ndarray, high: np.ndarray) -> float:
    """How often, in percent, one of `high` exceeds one of `low`."""
    truth = np.repeat([0, 1], [len(low), len(high)])
    return 100 * float(roc_auc_score(truth, np.concatenate([low, high])))
