"""The SARE detector of paper 3.3, on DRCT's image branch: frozen CLIP, and a linear embedding of its projection."""

from torch import Tensor, nn

from sare_core.config.detectors import DetectorSettings
from sare_core.detectors.base import Detector
from sare_core.detectors.encoders import load_image_encoder, load_semantic_encoder, require_input_size
from sare_core.detectors.fusion import CrossAttentionFusion
from sare_core.errors import ConfigError


class SareDetector(Detector):
    """Equations 5 and 6 and a fully connected layer, trained with binary cross-entropy on its one logit.

    In the paper's sizes the query is one token of 1024, keys and values are 49 tokens of 2048, and 30.6 million of
    334.6 million parameters are trained.

    With `semantic_tokens` "pooled" and `residual` false the logit does not depend on the image: see `fusion`.

    Raises ConfigError: a model folder is unusable, or settings do not fit together or the image encoder.
    """

    inputs = ("image", "sare")

    def __init__(self, settings: DetectorSettings, image_encoder_dir: str, semantic_encoder_dir: str) -> None:
        super().__init__()
        if settings.embed_dim % settings.heads:
            raise ConfigError(
                f"detector.embed_dim {settings.embed_dim} does not divide by detector.heads {settings.heads}."
            )
        self.query = settings.query
        self.semantic_tokens = settings.semantic_tokens
        self.image_encoder = load_image_encoder(image_encoder_dir)
        self.semantic_encoder = load_semantic_encoder(semantic_encoder_dir)
        require_input_size(self.image_encoder, image_encoder_dir, settings.input_size)
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

    def forward(self, image: Tensor, sare: Tensor) -> Tensor:
        """Logits (B,) of image x and its map s, both (B, 3, S, S) and normalised; sigmoid gives the chance of fake."""
        fused, _ = self.fuse(image, sare)
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
