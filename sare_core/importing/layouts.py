"""How other projects name their tensors, and how sare does.

Facts are from their public code and files; nothing of it is copied. A head of two logits becomes one, their difference:
the softmax of the two is its sigmoid.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor

from sare_core.errors import ConfigError

Tensors = dict[str, Tensor]


class Layout(NamedTuple):
    """A detector's name, settings of it that the tensors decide, and its tensors by sare's names.

    differs: what sare does to an image otherwise than the project, as a sentence; else empty.
    """

    detector: str
    settings: dict[str, Any]
    tensors: Tensors
    differs: str = ""


def drct(found: Tensors) -> Layout:
    """DRCT, on CLIP or on ConvNeXt; or one of the baselines that its code trains, UnivFD and Conv-B."""
    clip = any(name.startswith("model.model.visual.") for name in found)
    if clip or "model.stem.0.weight" in found:
        rules = {r"model\.fc\.(.*)": r"embedding.\1", r"fc\.(.*)": r"head.\1"}
        if clip:
            tensors = _renamed(_clip(found, "model.model."), rules)
            return Layout("drct", {"embed_dim": _rows(tensors, "embedding.weight")}, _one_logit(tensors, 2))
        rules = {r"model\.head\.fc\.(.*)": r"embedding.\1", **rules, r"model\.(.*)": r"backbone.network.\1"}
        tensors = _renamed(found, rules)
        conv = {"image_encoder": None, "backbone": None, "architecture": "convnext_base"}
        return Layout("drct", conv | {"embed_dim": _rows(tensors, "embedding.weight")}, _one_logit(tensors, 2))
    if "stem.0.weight" in found:
        tensors = _renamed(found, {r"head\.fc\.(.*)": r"head.\1", r"(.*)": r"backbone.network.\1"})
        return Layout("conv_b", {"backbone": None, "architecture": "convnext_base"}, _one_logit(tensors, 2))
    tensors = _one_logit(_renamed(_clip(found, "model."), {r"fc\.(.*)": r"head.\1"}), 2)
    return Layout("image", {"normalization": "imagenet"}, tensors)


def univfd(found: Tensors) -> Layout:
    """The linear layer alone, as it was released; or a training's file, with CLIP."""
    tensors = _renamed(_clip(found, "model."), {r"(?:fc\.)?(weight|bias)": r"head.\1"})
    return Layout("univfd", {}, _one_logit(tensors, 1))


def dire(found: Tensors) -> Layout:
    tensors = _renamed(found, {r"fc\.(.*)": r"head.\1", r"(.*)": r"semantic_encoder.\1"})
    return Layout(
        "dire",
        {},
        _one_logit(tensors),
        "DIRE's own maps are made by ADM, a diffusion model of 256×256 pixels, and cropped; here they are made by "
        "reconstruct.model, and the whole map is resized.",
    )


def de_fake(found: Tensors) -> Layout:
    """The perceptron alone; the CLIP that belongs to it was released as a pickled module."""
    places = {"fc1": "hidden.0", "fc2": "hidden.3", "fc3": "head"}
    tensors = _renamed(found, {rf"{theirs}\.(.*)": rf"{ours}.\1" for theirs, ours in places.items()})
    return Layout(
        "de_fake",
        {},
        _one_logit(tensors),
        "It was released with a CLIP of its own: convert that to a folder and name it by detector.image_encoder and "
        "detector.text_encoder, or scores mean little. Its captions are by beam search under the prompt "
        "'a picture of '; images are squashed to a square.",
    )


def gramnet(found: Tensors) -> Layout:
    """Of the ports that take 1 for fake (DRCT, AIGCDetectBenchmark, sidbench), not of its authors."""
    rules = {r"scale\.scale": "scale", r"fcnewr\.0\.(.*)": r"hidden.0.\1", r"fcnewr\.3\.(.*)": r"head.\1"}
    for number, name in enumerate("i01234"):
        first, second = ("g_fc1r", "g_fc2r") if name == "1" else (f"g{name}_fc1", f"g{name}_fc2")
        rules |= {
            rf"conv_inter{name}_0\.(.*)": rf"branches.{number}.features.\1",
            rf"{first}\.(.*)": rf"branches.{number}.summary.0.\1",
            rf"{second}\.(.*)": rf"branches.{number}.summary.1.\1",
        }
    tensors = _one_logit(_renamed(found, rules | {r"(.*)": r"backbone.network.\1"}))
    if "scale" in tensors:
        tensors["scale"] = tensors["scale"].reshape(1)
    return Layout(
        "gramnet",
        {"backbone": None, "architecture": "resnet18"},
        tensors,
        "The weights of its authors call a real image 1 and see BGR levels of images squashed to 512 pixels: those "
        "would be wrong here.",
    )


def c2p_clip(found: Tensors) -> Layout:
    """CLIP in transformers' names, with what its authors' LoRA has changed, and a linear layer."""
    rules = {r"model\.fc\.(.*)": r"head.\1", r"model\.(.*)": r"image_encoder.\1"}
    kept = {name: each for name, each in found.items() if not name.endswith("position_ids")}  # 0, 1, 2 …
    return Layout("c2p_clip", {}, _one_logit(_renamed(kept, rules)))


LAYOUTS: dict[str, Callable[[Tensors], Layout]] = {
    "c2p-clip": c2p_clip,
    "de_fake": de_fake,
    "dire": dire,
    "drct": drct,
    "gramnet": gramnet,
    "univfd": univfd,
}


def _renamed(found: Tensors, rules: dict[str, str]) -> Tensors:
    """Each tensor by the first rule that its whole name fits. Raises ConfigError: one fits none, or two become one."""
    out: Tensors = {}
    for name, tensor in found.items():
        new = name if name.startswith("image_encoder.") else None
        for pattern, replacement in rules.items() if new is None else ():
            if match := re.fullmatch(pattern, name):
                new = match.expand(replacement)
                break
        if new is None or new in out:
            raise ConfigError(f"{name}: no tensor of this layout. Is it a file of this project?")
        out[new] = tensor
    return out


def _one_logit(tensors: Tensors, rows: int | None = None) -> Tensors:
    """Of a head of two rows, real and fake, the second less the first. rows: that the project's heads have.

    Raises ConfigError: another number of them, which is another project's: its images are normalised otherwise.
    """
    found = _rows(tensors, "head.weight")
    if found not in (1, 2) or rows not in (None, found):
        raise ConfigError(
            f"a head of {found} outputs, where this project's have {rows or '1 or 2'}. DRCT's files, also of the "
            "UnivFD that it trains, have 2; UnivFD's own have 1."
        )
    head = {name: each[1:] - each[:1] for name, each in tensors.items() if name.startswith("head.") and len(each) == 2}
    return tensors | head


def _rows(tensors: Tensors, name: str) -> int:
    if name not in tensors:
        raise ConfigError(f"{name}: missing in the file.")
    return len(tensors[name])


_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_CLIP = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}
_TEXT = ("transformer.", "token_embedding.", "ln_final.", "positional_embedding", "text_projection", "logit_scale")


def _clip(found: Tensors, prefix: str) -> Tensors:
    """OpenAI's CLIP below a prefix: its image tower as transformers names it, its text tower left out."""
    out: Tensors = {}
    for name, tensor in found.items():
        if not name.startswith(prefix):
            out[name] = tensor
        elif (inner := name.removeprefix(prefix)).startswith("visual."):
            out |= {f"image_encoder.{ours}": each for ours, each in _clip_visual(inner[len("visual.") :], tensor)}
        elif not inner.startswith(_TEXT):
            out[name] = tensor
    return out


def _clip_visual(name: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
    if name == "proj":
        return [("visual_projection.weight", tensor.T)]
    if name in _CLIP:
        return [(_CLIP[name], tensor)]
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)", name)
    if match is None:
        raise ConfigError(f"visual.{name}: no tensor of CLIP's image tower.")
    layer, part, kind = f"vision_model.encoder.layers.{match[1]}", match[2], match[3]
    if part == "attn.in_proj":
        return [(f"{layer}.self_attn.{q}_proj.{kind}", each) for q, each in zip("qkv", tensor.chunk(3), strict=True)]
    return [(f"{layer}.{_CLIP_LAYER.get(part, part)}.{kind}", tensor)]
