"""Networks with the names and shapes of other projects' files, written from what is known of those; small widths."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn
from torch.nn.functional import normalize, relu
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection


def randomized(model: nn.Module) -> Any:
    """Every tensor drawn, those of batch normalization too, so that two that are exchanged do not give the same."""
    torch.manual_seed(5)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            spread = torch.rand(tensor.shape) + 0.5 if name.endswith("running_var") else torch.randn(tensor.shape) * 0.2
            tensor.copy_(spread)
    return model.eval()


def openai_clip(models: Path) -> CLIP:
    """OpenAI's layout, which open_clip shares, in the size of the stand-in's image tower."""
    config = json.loads((models / "image-encoder" / "config.json").read_text())
    width, heads = config["hidden_size"], config["num_attention_heads"]
    vision = CLIPVisionCfg(
        layers=config["num_hidden_layers"],
        width=width,
        head_width=width // heads,
        mlp_ratio=config["intermediate_size"] / width,
        patch_size=config["patch_size"],
        image_size=config["image_size"],
    )
    text = CLIPTextCfg(context_length=8, vocab_size=20, width=16, heads=2, layers=1)
    return CLIP(config["projection_dim"], vision, text, quick_gelu=True)


class Wrapped(nn.Module):
    """An encoder and a linear layer on it: `model.…` and `fc.…`."""

    def __init__(self, model: CLIP, outputs: int) -> None:
        super().__init__()
        self.model = model
        self.fc = nn.Linear(model.visual.output_dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.model.encode_image(x))


class Contrastive(nn.Module):
    """DRCT: a backbone that ends in an embedding, and a linear layer."""

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model = model
        self.fc = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.model(x))


class C2PClip(nn.Module):
    def __init__(self, models: Path) -> None:
        super().__init__()
        self.model = CLIPVisionModelWithProjection(CLIPVisionConfig.from_pretrained(models / "image-encoder"))
        self.model.fc = nn.Linear(self.model.config.projection_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.model.fc(normalize(self.model(pixel_values=x).image_embeds))


class Perceptron(nn.Module):
    """DE-FAKE's, on image and text features side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(width, 512), nn.Linear(512, 256), nn.Linear(256, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(relu(self.fc2(relu(self.fc1(x)))))


class GramNet(nn.Module):
    """A ResNet-18 with six branches, as its ports have it."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        trunk = timm.create_model("resnet18", num_classes=0)
        for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, name, getattr(trunk, name))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.scale = nn.Module()
        self.scale.scale = nn.Parameter(torch.ones(1))
        for name, channels in zip("i01234", (3, 64, 64, 64, 128, 256), strict=True):
            first, second = ("g_fc1r", "g_fc2r") if name == "1" else (f"g{name}_fc1", f"g{name}_fc2")
            setattr(self, f"conv_inter{name}_0", layer(channels, 32, 1))
            setattr(self, first, layer(1, 16, 2))
            setattr(self, second, layer(16, 32, 2))
        self.fcnewr = nn.Sequential(nn.Linear(704, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, outputs))

    def branch(self, name: str, x: Tensor) -> Tensor:
        features = getattr(self, f"conv_inter{name}_0")(x)
        b, c, h, w = features.shape
        gram = torch.einsum("bchw,bdhw->bcd", features, features) / (c * h * w)
        first, second = ("g_fc1r", "g_fc2r") if name == "1" else (f"g{name}_fc1", f"g{name}_fc2")
        return getattr(self, second)(getattr(self, first)(gram.reshape(b, 1, c, c))).mean((2, 3)) * self.scale.scale

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.branch("i", x)]
        x = relu(self.bn1(self.conv1(x)))
        parts.append(self.branch("0", x))
        x = self.pool(x)
        parts.append(self.branch("1", x))
        for name in "234":
            x = getattr(self, f"layer{int(name) - 1}")(x)
            parts.append(self.branch(name, x))
        return self.fcnewr(torch.cat([self.layer4(x).mean((2, 3)), *parts], dim=1))


def layer(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )
