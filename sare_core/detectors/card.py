"""The model card of a detector: what made it, what was measured of it, and what it cannot say, from its own folder."""

import hashlib
import json

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from sare_core.detectors.folder import DetectorFolder, calibrations
from sare_core.engine.about import About

_REDRAWS = ", which has a diffusion model draw an image again under its caption and looks at what changed"
_MEASURES = {"auc": "AUC", "accuracy": "accuracy"}  # as training's history names them
LIMITS = (
    "A score puts images in an order. It is not a probability, and not evidence about a person.",
    "Thresholds hold for images like those that they were measured on. For other cameras, sites or edits nobody knows.",
    "The map shows what changed when the image was drawn again under its caption, not where anything is fake.",
    "An edited photograph, a drawing, a picture of a screen and a generator of tomorrow may get any verdict.",
)
_USE = """\
```python
import sare_core

detector = sare_core.Detector.from_pretrained("{name}")
detector("photo.jpg")          # [{{label, score}}], as transformers' image-classification pipeline
detector.explain("photo.jpg")  # logit, caption, x̂ and maps
```

    sare detect photo.jpg --detector {name}
"""


def model_card(detector: DetectorFolder, scoring: str, name: str) -> str:
    """README.md of a folder or repository. scoring: fingerprint of all that decides a score."""
    about = detector.about
    models, note = _models(about), (about.settings or {}).get("note")
    lines = [
        f"# {name}",
        "",
        f"A `{about.made_by['detector']['detector']}` detector of AI-generated images, made by sare"
        f"{_REDRAWS * bool(about.upstream)}.",
        "",
        *([note, ""] if note else []),
        "## Use",
        "",
        _USE.format(name=name),
        "The models below have to be where these names lead, or named by `overrides`; other weights are refused.",
        "",
        "## What it cannot say",
        "",
        *(f"- {limit}" for limit in LIMITS),
        "",
        "## What was measured",
        "",
        *_held_out(detector),
        *_calibrated(detector, scoring),
        "",
        "## What made it",
        "",
        _trained_on(about),
        *(f"- {role.replace('_', ' ')}: `{model}` ({digest})" for role, (model, digest) in models.items()),
        f"- Weights of the detector: `{detector.best.file}`, SHA-256 `{detector.best.sha256}`",
        f"- Fingerprints: training `{detector.folder().fingerprint}`, scoring `{scoring}`",
        "",
        "All settings are in about.json.",
    ]
    data = ModelCardData(
        library_name="sare",
        pipeline_tag="image-classification",
        tags=["ai-generated-image-detection", "image-forensics"],
        base_model=sorted({model for model, digest in models.values() if digest.startswith("commit:")}) or None,
        model_name=name,
        eval_results=_results(detector) or None,
    )
    card = str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"))
    return card + _mark(card.encode())


def is_own_card(readme: bytes) -> bool:
    """Whether a README.md is what `model_card` made of some detector, and nobody has changed it since."""
    card, mark, _ = readme.rpartition(b"\n<!-- sare ")
    return readme == (card := card + b"\n") + _mark(card).encode() if mark else False


def _mark(card: bytes) -> str:
    """A last line that is not shown."""
    return f"<!-- sare {hashlib.sha256(card).hexdigest()[:16]} -->\n"


def _trained_on(about: About) -> str:
    if imported := (about.model_extra or {}).get("imported"):
        return f"- Published by {imported['project']} as `{imported['file']}`, SHA-256 `{imported['sha256']}`"
    subsets = (about.settings or {}).get("train_subsets") or ["all"]
    return f"- Trained on: {about.dataset}, {', '.join(subsets)} of its generators"


def _models(about: About) -> dict[str, tuple[str, str]]:
    """Name and digest of each model, by role: the encoders, then what made the maps."""
    own, found = about.made_by.get("weights", {}), dict[str, tuple[str, str]]()
    for role, model in about.models.items():
        found[role] = model, own.get(role, "")
    before = list(about.upstream.values())
    while before:
        made = before.pop(0)
        before += made.upstream.values()
        for role, model in made.models.items():
            name = role if role != "model" else made.stage
            found[name] = model, made.made_by.get("weights", {}).get(role, "")
    return found


def _held_out(detector: DetectorFolder) -> list[str]:
    entry = detector.best.entry()
    told = [f"{name} {entry[key]:.3f}" for key, name in _MEASURES.items() if entry.get(key) is not None]
    seen = "images that its training held out, of the same generators"
    return [f"- On {seen}: {', '.join(told)}."] if told else [f"- Nothing was measured on {seen}."]


def _results(detector: DetectorFolder) -> list[EvalResult]:
    """The same as the hub's own page of results takes it."""
    entry, name = detector.best.entry(), detector.about.dataset or "images"
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=name,
            dataset_name=f"{name}, held out in training",
            metric_type=key,
            metric_name=told,
            metric_value=entry[key],
        )
        for key, told in _MEASURES.items()
        if entry.get(key) is not None
    ]


def _calibrated(detector: DetectorFolder, scoring: str) -> list[str]:
    """A line for each threshold that holds for this scoring, with its measured rate."""
    lines = []
    for name, data in calibrations(detector).items():
        found = json.loads(data)
        for verdict, kind in (("likely_ai", "real photographs"), ("likely_real", "generated images")):
            if found.get("scoring") != scoring or not (threshold := found["thresholds"].get(verdict)):
                continue
            low, high = (1000 * rate for rate in threshold["interval"])
            lines.append(
                f"- `{name}`: `{verdict}` from logit {threshold['logit']:.3f}, crossed by {threshold['crossed']:,} of "
                f"{threshold['images']:,} {kind} of “{threshold['measured_on']}”; of 1,000 like them, {low:.1f} to "
                f"{high:.1f} would (95 % interval)."
            )
    return lines or ["- It is not calibrated: without `sare calibrate` no image is called likely AI-generated."]
