import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

from sare_core.config import load_settings
from sare_core.detectors import build_detector, register
from sare_core.detectors.encoders import load_image_encoder, load_semantic_encoder
from sare_core.detectors.fusion import CrossAttentionFusion
from sare_core.detectors.sare import SareDetector
from sare_core.errors import ConfigError
from tests.conftest import STANDIN

BATCH, SIZE, CELLS, PATCHES = 3, 64, 4, 16


@pytest.fixture
def build(image_encoder_dir, semantic_encoder_dir):
    def build(seed=0, **changes):
        settings = load_settings(STANDIN).detector.model_copy(update=changes)
        torch.manual_seed(seed)
        folders = {"image_encoder": image_encoder_dir, "semantic_encoder": semantic_encoder_dir}
        return build_detector(settings, folders)

    return build


def both(x, s):
    return {"image": x, "sare": s}


def blobs(seed):
    """Coarse random colours: white noise would average out to nearly the same features everywhere."""
    coarse = torch.randn(BATCH, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(2 * coarse, SIZE)


VARIANTS = [(query, tokens) for query in ("projected", "patches") for tokens in ("map", "pooled")]


@pytest.mark.parametrize(("query", "tokens"), VARIANTS)
def test_logits_depend_on_the_image_and_on_the_map(build, query, tokens):
    detector = build(query=query, semantic_tokens=tokens).eval()
    logits = detector(both(blobs(1), blobs(2)))
    assert logits.shape == (BATCH,)
    assert logits.dtype == torch.float32
    assert (detector(both(blobs(3), blobs(2))) - logits).abs().min() > 1e-4
    assert (detector(both(blobs(1), blobs(4))) - logits).abs().min() > 1e-4


def test_each_image_is_judged_alone(build):
    detector = build().eval()
    x, s = blobs(1), blobs(2)
    single = torch.cat([detector(both(x[i : i + 1], s[i : i + 1])) for i in range(BATCH)])
    torch.testing.assert_close(detector(both(x, s)), single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("query", "queries"), [("projected", 1), ("patches", PATCHES)])
def test_attention_differs_over_cells_and_images(build, query, queries):
    detector = build(query=query).eval()
    fused, attention = detector.fuse(blobs(1), blobs(2))
    assert fused.shape == (BATCH, queries, 64)
    assert attention.shape == (BATCH, 4, queries, CELLS)
    torch.testing.assert_close(attention.sum(-1), torch.ones(BATCH, 4, queries))
    assert attention.std(-1).min() > 1e-4
    assert (detector.fuse(blobs(3), blobs(2))[1] - attention).abs().max() > 1e-4


def test_without_residual_the_image_still_counts_through_the_attention(build):
    detector = build(residual=False).eval()
    assert (detector(both(blobs(3), blobs(2))) - detector(both(blobs(1), blobs(2)))).abs().min() > 1e-5


def test_one_key_without_residual_drops_the_image(build):
    detector = build(semantic_tokens="pooled", residual=False).eval()
    logits = detector(both(blobs(1), blobs(2)))
    torch.testing.assert_close(detector(both(blobs(3), blobs(2))), logits, rtol=0, atol=1e-6)
    assert (detector(both(blobs(1), blobs(3))) - logits).abs().min() > 1e-4


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("semantic_dim", [16, 40])
def test_fusion_is_equation_6(residual, semantic_dim):
    torch.manual_seed(0)
    dim, heads = 16, 2
    fusion = CrossAttentionFusion(dim, semantic_dim, heads, residual)
    nn.init.normal_(fusion.attention.in_proj_bias)
    nn.init.normal_(fusion.attention.out_proj.bias)
    nn.init.normal_(fusion.norm.weight)
    f_x, f_s = torch.randn(2, 5, dim), torch.randn(2, 7, semantic_dim)

    part = fusion.attention
    if semantic_dim == dim:  # torch packs the three matrices when their widths agree
        weights = part.in_proj_weight.chunk(3)
    else:
        weights = (part.q_proj_weight, part.k_proj_weight, part.v_proj_weight)
    projected = [f @ w.T + b for f, w, b in zip((f_x, f_s, f_s), weights, part.in_proj_bias.chunk(3), strict=True)]
    outputs, maps = [], []
    for head in range(heads):
        q, k, v = (t[..., head * dim // heads : (head + 1) * dim // heads] for t in projected)
        maps.append(torch.softmax(q @ k.transpose(1, 2) / (dim / heads) ** 0.5, dim=-1))
        outputs.append(maps[-1] @ v)
    expected = torch.cat(outputs, dim=-1) @ part.out_proj.weight.T + part.out_proj.bias
    expected = expected + f_x if residual else expected
    centred = expected - expected.mean(-1, keepdim=True)
    expected = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * fusion.norm.weight + fusion.norm.bias

    fused, attention = fusion(f_x, f_s)
    torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention, torch.stack(maps, dim=1), rtol=1e-4, atol=1e-5)


def test_queries_come_from_clip_and_keys_from_the_resnet(build, image_encoder_dir, semantic_encoder_dir):
    clip = CLIPVisionModelWithProjection.from_pretrained(image_encoder_dir)
    resnet = timm.create_model(f"local-dir:{semantic_encoder_dir}", pretrained=True).eval()
    with torch.no_grad():
        output, features = clip(blobs(1), output_hidden_states=True), resnet.forward_features(blobs(2))
        detector = build().eval()
        expected = detector.embedding(output.image_embeds)[:, None]
        torch.testing.assert_close(detector.encode_image(blobs(1)), expected)
        torch.testing.assert_close(detector.encode_sare(blobs(2))[:, 1], features[:, :, 0, 1])  # row 0, column 1
        torch.testing.assert_close(detector.encode_sare(blobs(2))[:, 2], features[:, :, 1, 0])

        detector = build(query="patches", semantic_tokens="pooled").eval()
        patches = clip.vision_model.post_layernorm(output.hidden_states[-1])[:, 1:]
        torch.testing.assert_close(detector.encode_image(blobs(1)), detector.embedding(patches))
        torch.testing.assert_close(detector.encode_sare(blobs(2))[:, 0], features.mean((2, 3)))


@pytest.mark.parametrize(("query", "tokens"), VARIANTS)
@pytest.mark.parametrize("tune", [False, True])
def test_gradients_reach_all_that_is_trained_and_nothing_else(build, query, tokens, tune):
    detector = build(query=query, semantic_tokens=tokens, tune_image_encoder=tune).train()
    detector(both(blobs(1), blobs(2))).sum().backward()
    assert detector.image_encoder(blobs(1)).last_hidden_state.requires_grad == tune  # frozen: no graph, no memory
    for name, parameter in detector.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
        if name.startswith("image_encoder."):
            unused = query == "patches" and name.endswith("visual_projection.weight")
            assert parameter.requires_grad == (tune and not unused), name
        else:
            assert parameter.requires_grad, name
    if tokens == "map":
        for part in (detector.semantic_encoder.conv1, detector.embedding, detector.fusion.attention, detector.head):
            assert all(parameter.grad.abs().sum() > 0 for parameter in part.parameters())


def test_frozen_clip_stays_in_eval_mode_while_batch_norm_learns(build):
    detector = build().train()
    assert not any(module.training for module in detector.image_encoder.modules())
    assert all(module.training for module in detector.semantic_encoder.modules())
    before = detector.semantic_encoder.bn1.running_mean.clone()
    detector(both(blobs(1), blobs(2)))
    assert not torch.equal(detector.semantic_encoder.bn1.running_mean, before)
    assert not detector.eval().semantic_encoder.training
    assert build(tune_image_encoder=True).train().image_encoder.training


@pytest.mark.parametrize("tune", [False, True])
def test_trained_state_carries_a_detector_over(build, tmp_path, tune):
    detector = build(seed=1, tune_image_encoder=tune).train()
    optimizer = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], lr=1e-2)
    detector(both(blobs(1), blobs(2))).sum().backward()
    optimizer.step()
    state = detector.trained_state()
    assert any(name.startswith("image_encoder.") for name in state) == tune
    save_file(state, tmp_path / "detector.safetensors")

    other = build(seed=2, tune_image_encoder=tune)
    x, s = blobs(3), blobs(4)
    assert not torch.equal(other.eval()(both(x, s)), detector.eval()(both(x, s)))
    other.load_trained(load_file(tmp_path / "detector.safetensors"))
    assert torch.equal(other.eval()(both(x, s)), detector.eval()(both(x, s)))


def test_a_foreign_checkpoint_is_refused_whole(build):
    detector = build()
    head = detector.head.weight.clone()
    state = build(seed=1).trained_state()
    del state["head.bias"]
    state["image_encoder.visual_projection.weight"] = torch.zeros(20, 24)
    state["embedding.bias"] = torch.zeros(5)
    with pytest.raises(ConfigError) as caught:
        detector.load_trained(state)
    message = str(caught.value)
    assert "missing: head.bias" in message
    assert "unexpected: image_encoder.visual_projection.weight" in message
    assert "of another shape: embedding.bias" in message
    assert torch.equal(detector.head.weight, head)


def test_the_papers_sizes():
    vit_l14 = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
        projection_dim=768,
    )
    settings = load_settings("paper").detector
    with torch.device("meta"):
        resnet = timm.create_model("resnet50", num_classes=0)
        encoders = {"image_encoder": CLIPVisionModelWithProjection(vit_l14), "semantic_encoder": resnet}
        detector = SareDetector(settings, encoders)
        x = torch.empty(2, 3, settings.input_size, settings.input_size)
        assert detector.encode_image(x).shape == (2, 1, 1024)
        assert detector.encode_sare(x).shape == (2, 49, 2048)
        assert detector.fuse(x, x)[1].shape == (2, 8, 1, 49)
        assert detector(both(x, x)).shape == (2,)
    sizes = {True: 0, False: 0}
    for parameter in detector.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    # ResNet-50 without its classifier, the embedding, four projections, LayerNorm, head
    assert sizes[True] == 23_508_032 + 769 * 1024 + 1024 * (1024 + 2048 + 2048 + 1024 + 4) + 2 * 1024 + 1025
    assert sizes[False] == 303_966_208  # the vision half of CLIP ViT-L/14


def test_a_whole_clip_gives_its_vision_tower(tmp_path):
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=CLIPTextConfig(**small, vocab_size=50, projection_dim=12).to_dict(),
        vision_config=CLIPVisionConfig(**small, image_size=64, patch_size=32, projection_dim=12).to_dict(),
        projection_dim=12,
    )
    clip = CLIPModel(config).eval()
    clip.half().save_pretrained(tmp_path)
    loaded = load_image_encoder(str(tmp_path))
    assert loaded.dtype == torch.float32
    with torch.no_grad():
        expected = clip.float().get_image_features(blobs(1)).pooler_output
        torch.testing.assert_close(loaded(blobs(1)).image_embeds, expected)


LOADERS = [("image_encoder_dir", load_image_encoder), ("semantic_encoder_dir", load_semantic_encoder)]


@pytest.mark.parametrize(("source", "load"), LOADERS)
def test_unusable_model_folders_are_named(request, tmp_path, source, load):
    with pytest.raises(ConfigError, match="absent: no such model folder"):
        load(str(tmp_path / "absent"))
    folder = tmp_path / "model"
    shutil.copytree(request.getfixturevalue(source), folder)
    weights = load_file(folder / "model.safetensors")

    def refused(match):
        with pytest.raises(ConfigError, match=match) as caught:
            load(str(folder))
        assert str(folder) in str(caught.value)

    removed = next(name for name in weights if name.endswith("weight") and "fc" not in name)
    save_file({k: v for k, v in weights.items() if k != removed}, folder / "model.safetensors", {"format": "pt"})
    refused(f"lacks .*{removed.rpartition('.')[2]}")
    save_file(weights | {removed: torch.zeros(3, 3)}, folder / "model.safetensors", {"format": "pt"})
    refused("not readable as")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    refused("model.safetensors: cut or damaged")
    (folder / "model.safetensors").unlink()
    refused("holds no model.safetensors")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    load(str(folder))
    (folder / "config.json").write_text("{}")
    refused("not readable as|lacks")
    for text in ("not json", "[]", ""):
        (folder / "config.json").write_text(text)
        refused("not readable as|config.json: cut or damaged")
    (folder / "config.json").unlink()
    refused("holds no config.json")


def test_batch_counters_may_be_absent(semantic_encoder_dir, tmp_path):
    shutil.copytree(semantic_encoder_dir, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "num_batches_tracked" not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors")
    load_semantic_encoder(str(tmp_path))


def test_another_kind_of_timm_model_is_refused(tmp_path):
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "pretrained_cfg": {"num_classes": 0}}
    Path(tmp_path, "config.json").write_text(json.dumps(config))
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="holds a VisionTransformer"):
        load_semantic_encoder(str(tmp_path))


def test_settings_that_do_not_fit_are_refused(build):
    with pytest.raises(ConfigError, match="does not divide by"):
        build(heads=7)
    with pytest.raises(ConfigError, match="input_size=64"):
        build(input_size=224)
    with pytest.raises(ConfigError, match="no detector 'sara'"):
        build(detector="sara")


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'sare' is registered already"):
        register("sare", "elsewhere:Other")
