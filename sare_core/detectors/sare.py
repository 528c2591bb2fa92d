"""The SARE detector of paper 3.3, on DRCT's image branch: frozen CLIP, and a linear embedding of its projection."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from sare_core.config.detectors import DetectorSettings
from sare_core.config.training import AugmentSettings
from sare_core.detectors.base import Detector
from sare_core.detectors.encoders import require_input_size
from sare_core.detectors.fusion import CrossAttentionFusion
from sare_core.detectors.transforms import Parts, as_tensor
from sare_core.errors import ConfigError


class SareSettings(DetectorSettings):
    """Paper 3.3, equations 5 and 6. Silent on tokens, heads and residual; docs/settings.md lists the choices."""

    tune_image_encoder: bool = False  # DRCT, the backbone, freezes it
    query: Literal["projected", "patches"] = "projected"  # f_x: the embedding (one token), or the patch tokens
    semantic_input: Literal["sare", "image", "zero"] = "sare"  # of E_s: the map; for controls x, or a map of 0
    semantic_tokens: Literal["map", "pooled"] = "map"  # f_s: the last feature map's cells (49 at 224), or their mean
    embed_dim: int = Field(1024, ge=1)  # DRCT's embedding
    heads: int = Field(8, ge=1)
    residual: bool = True  # without it, and with one key, the image would drop out of the result
    # A trained `drct`, by folder, URL or fingerprint: the embedding, and CLIP where it was tuned, start from its own.
    start_from: str | None = None

    files: ClassVar[frozenset[str]] = DetectorSettings.files | {"start_from"}


class SareDetector(Detector):
    """Equations 5 and 6 and a fully connected layer, trained with binary cross-entropy on its one logit.

    In the paper's sizes the query is one token of 1024, keys and values are 49 tokens of 2048, and 30.6 million of
    334.6 million parameters are trained.

    With `semantic_tokens` "pooled" and `residual` false the logit does not depend on the image: see `fusion`.

    Raises ConfigError: settings do not fit together or the image encoder.
    """

    Settings = SareSettings
    needs = frozenset({"image", "sare"})
    encoders = ("image_encoder", "semantic_encoder")
    source = "the paper"

    def __init__(self, settings: SareSettings, encoders: dict[str, Any]) -> None:
        super().__init__(settings, encoders)
        if settings.embed_dim % settings.heads:
            raise ConfigError(
                f"detector.embed_dim {settings.embed_dim} does not divide by detector.heads {settings.heads}."
            )
        self.query = settings.query
        self.semantic_tokens = settings.semantic_tokens
        self.image_encoder, self.semantic_encoder = encoders["image_encoder"], encoders["semantic_encoder"]
        require_input_size(self.image_encoder, settings.input_size)
        vision = self.image_encoder.config
        if not settings.tune_image_encoder:
            self.freeze("image_encoder")
        elif settings.query == "patches":
            self.image_encoder.visual_projection.requires_grad_(False)  # unused: it would never see a gradient

        width = vision.projection_dim if settings.query == "projected" else vision.hidden_size
        self.embedding = nn.Linear(width, settings.embed_dim)
        self.fusion = CrossAttentionFusion(
            settings.embed_dim, self.semantic_encoder.num_features, settings.heads, settings.residual
        )
        self.head = nn.Linear(settings.embed_dim, 1)

    @classmethod
    def prepare(
        cls,
        parts: Parts,
        settings: SareSettings,
        augment: AugmentSettings | None = None,
        rng: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """As of every detector; by `semantic_input` the image, brought to the size of the map, or a map of zeros takes
        the place of the map, and is treated as the map would be."""
        x, s = as_tensor(parts["image"]), as_tensor(parts["sare"])
        if settings.semantic_input == "image":
            s = F.resize(x, list(s.shape[-2:]), antialias=True)
        elif settings.semantic_input == "zero":
            s = torch.zeros_like(s)
        return super().prepare({"image": x, "sare": s}, settings, augment, rng)

    def start(self, state: dict[str, Tensor]) -> None:
        """Take over DRCT's embedding, and its CLIP where that was tuned.

        Raises ConfigError: there is no embedding, or not all of it has a place here.
        """
        own = self.trained_state()
        given = {name: value for name, value in state.items() if name.startswith(("embedding.", "image_encoder."))}
        odd = sorted(name for name, value in given.items() if name not in own or own[name].shape != value.shape)
        if "embedding.weight" not in given or odd:
            raise ConfigError(
                f"detector.start_from: {odd[0] if odd else 'embedding'} is not what it is here. Name a trained "
                "drct on CLIP, and set embed_dim, tune_image_encoder and query=projected as it has them."
            )
        self.load_state_dict(given, strict=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of image x and map s ("sare"), both (B, 3, S, S) and normalised; sigmoid: the chance of fake."""
        fused, _ = self.fuse(batch["image"], batch["sare"])
        return self.head(fused.mean(dim=1)).squeeze(-1)

    def fuse(self, image: Tensor, sare: Tensor) -> tuple[Tensor, Tensor]:
        """f_fused (B, Q, embed_dim), and the attention (B, heads, Q, K) that each query pays to the map's cells."""
        return self.fusion(self.encode_image(image), self.encode_sare(sare))

    def encode_image(self, image: Tensor) -> Tensor:
        """f_x as queries (B, Q, embed_dim): Q is 1, or with query "patches" the number of patches."""
        output = self.image_encoder(pixel_values=image)
        if self.query == "projected":
            features = output.image_embeds.unsqueeze(1)
        else:  # CLIP normalises only the class token, the first; the patches need it likewise
            features = self.image_encoder.vision_model.post_layernorm(output.last_hidden_state[:, 1:])
        return self.embedding(features)

    def encode_sare(self, sare: Tensor) -> Tensor:
        """f_s as keys and values (B, K, C): the last feature map's h * w cells, row by row, or their mean (K = 1)."""
        tokens = self.semantic_encoder.forward_features(sare).flatten(2).transpose(1, 2)
        return tokens if self.semantic_tokens == "map" else tokens.mean(dim=1, keepdim=True)
