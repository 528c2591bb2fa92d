"""token_merging against a loop over tokens, and what holds whatever the tokens are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention

from sare_core.config import Settings
from sare_core.errors import ConfigError
from sare_core.models import compiled
from sare_core.reconstruction import method_of
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.merging import Merging, merge, merged_places, merging, unmerge
from tests.reconstruction.test_caching import unet_of, x_hats

MakeSettings = Callable[..., Settings]


def by_token(tokens: np.ndarray, height: int, width: int, share: float) -> list[list[int]]:
    """The groups that tokens of one image fall into, token by token."""
    targets = [y * width + x for y in range(0, height, 2) for x in range(0, width, 2)]
    found = []
    for number in range(height * width):
        if number not in targets:
            cosines = [
                float(np.dot(tokens[number], tokens[t]) / np.linalg.norm(tokens[number]) / np.linalg.norm(tokens[t]))
                for t in targets
            ]
            found.append((max(cosines), number, targets[int(np.argmax(cosines))]))
    found.sort(reverse=True)
    groups = {number: [number] for number in range(height * width)}
    for _, number, target in found[: int(share * height * width)]:
        groups[target] += groups.pop(number)
    return list(groups.values())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 10), (5, 7), (1, 6), (2, 2)])
def test_attention_is_that_of_merged_tokens(height: int, width: int, share: float) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(3, height * width, 16)).astype(np.float32)
    torch.manual_seed(0)
    attention: Any = Attention(query_dim=16, heads=2, dim_head=8).eval().requires_grad_(False)
    expected = np.zeros_like(tokens)
    for image, out in zip(tokens, expected, strict=True):
        groups = by_token(image, height, width, share)
        means = torch.from_numpy(np.stack([image[group].mean(axis=0) for group in groups]))
        attended = attention(means.unsqueeze(0)).squeeze(0).numpy()
        for group, value in zip(groups, attended, strict=True):
            out[group] = value
    processor = Merging(share)
    processor.size = (height, width)
    attention.set_processor(processor)
    np.testing.assert_allclose(attention(torch.from_numpy(tokens)).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 7)])
def test_equal_tokens_merge_without_any_change(height: int, width: int) -> None:
    windows = torch.randn(2, (height + 1) // 2, (width + 1) // 2, 16)
    tokens = windows.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width].flatten(1, 2)
    for share in (0.1, 0.5, 0.75):
        places, count = merged_places(tokens, height, width, share)
        assert count == max(height * width - int(share * height * width), windows[0, ..., 0].numel())
        assert all(set(row.tolist()) == set(range(count)) for row in places)
        torch.testing.assert_close(unmerge(merge(tokens, places, count), places), tokens)


def test_equal_tokens_are_merged_first() -> None:
    tokens = torch.randn(1, 64, 16)
    tokens[0, [9, 30]] = tokens[0, 2].clone()  # no destinations, and the token of one, which lies in other windows
    places, _ = merged_places(tokens, 8, 8, 2 / 64)
    assert places[0, 9] == places[0, 30] == places[0, 2]
    assert len(set(places[0].tolist())) == 62


def merged_in(unet: Any) -> set[str]:
    return {name for name, processor in unet.attn_processors.items() if isinstance(processor, Merging)}


@pytest.mark.parametrize("highest", [0, 1])
def test_only_self_attention_of_the_highest_resolution_merges(highest: int, standin_models: Path) -> None:
    kinds = ("CrossAttnDownBlock2D",) * 2, ("CrossAttnUpBlock2D",) * 2
    if highest:
        kinds = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    unet = unet_of(standin_models, down_block_types=kinds[0], up_block_types=kinds[1], layers_per_block=1)
    latents, texts = torch.randn(2, 4, 8, 6), torch.randn(2, 5, 32)

    def run(part: Any) -> torch.Tensor:
        epsilon: torch.Tensor = part(latents, torch.tensor(601), encoder_hidden_states=texts, return_dict=False)[0]
        return epsilon

    before, changed = run(unet), merging(unet, 0.5)
    layers = [f"down_blocks.{highest}.attentions.0", *(f"up_blocks.{1 - highest}.attentions.{n}" for n in range(2))]
    assert merged_in(changed) == {f"{layer}.transformer_blocks.0.attn1.processor" for layer in layers}
    assert not torch.allclose(run(changed), before)
    assert torch.equal(run(unet), before) and not merged_in(unet), "the U-Net itself is as it was"
    assert merging(unet, 0) is unet
    pairs = zip(unet.parameters(), changed.parameters(), strict=True)
    assert all(one is other for one, other in pairs), "on the same weights"


def test_a_unet_without_self_attention_is_refused(standin_models: Path) -> None:
    unet = unet_of(standin_models, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
    with pytest.raises(ConfigError, match=r"token_merging=0\.5: .* U-Net has no self-attention\. Set it to 0"):
        merging(unet, 0.5)


def method(standin_settings: MakeSettings, standin_models: Path, *changes: str) -> Img2Img:
    settings = standin_settings(*(f"reconstruct.{change}" for change in ("steps=8", *changes))).reconstruct
    return Img2Img(settings, str(standin_models / "diffusion"), "cpu")


def test_a_share_of_0_is_exact_to_the_byte(standin_settings: MakeSettings, standin_models: Path) -> None:
    plain, none, half = (
        x_hats(method(standin_settings, standin_models, *changes), 0, 1, 2)
        for changes in ((), ("token_merging=0",), ("token_merging=0.5",))
    )
    assert all(map(torch.equal, none, plain))
    assert not any(map(torch.equal, half, plain))


@pytest.mark.parametrize("change", ["cache_interval=1", "cache_interval=3", "sampler=lcm"])
def test_an_image_does_not_depend_on_its_batch(
    change: str, standin_settings: MakeSettings, standin_models: Path
) -> None:
    model = method(standin_settings, standin_models, "token_merging=0.5", change)
    together = x_hats(model, 0, 1, 2)
    for number in (2, 0, 1):
        torch.testing.assert_close(x_hats(model, number)[0], together[number], atol=1e-4, rtol=0)
    plain = x_hats(method(standin_settings, standin_models, change), 0)
    assert not torch.allclose(plain[0], together[0], atol=1e-4), "else nothing is merged"


def test_it_compiles_to_one_graph(
    standin_settings: MakeSettings, standin_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "eager")  # inductor takes minutes here
    torch._dynamo.reset()
    changes = ("token_merging=0.5", "batch_size=3")
    ours = method(standin_settings, standin_models, *changes, "speed=rounding")
    exact = method(standin_settings, standin_models, *changes)
    for one, other in zip(x_hats(ours, 0, 1, 2), x_hats(exact, 0, 1, 2), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    torch._dynamo.reset()


def test_it_is_refused_without_a_unet(standin_settings: MakeSettings) -> None:
    settings = standin_settings("reconstruct.method=autoencoder", "reconstruct.token_merging=0.5").reconstruct
    with pytest.raises(ConfigError, match=r"token_merging=0\.5: plays no part in autoencoder\. Set .*merging=0"):
        method_of(settings)
