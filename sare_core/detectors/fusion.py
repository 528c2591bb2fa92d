"""The fusion module of paper 3.3, equation 6: the image attends to its semantic-aware reconstruction error."""

from torch import Tensor, nn


class CrossAttentionFusion(nn.Module):
    """softmax(Q_x K_s^T / sqrt(d)) V_s with Q_x = f_x W_Q, K_s = f_s W_K, V_s = f_s W_V, over several heads.

    Around equation 6 stand the usual parts of a transformer block: an output projection, an optional residual from
    the query, and LayerNorm. With a single key the softmax is 1 whatever the query is: without the residual the image
    then drops out of the result.
    """

    def __init__(self, embed_dim: int, semantic_dim: int, heads: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.attention = nn.MultiheadAttention(embed_dim, heads, kdim=semantic_dim, vdim=semantic_dim, batch_first=True)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, image: Tensor, semantic: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse image tokens (B, Q, embed_dim) with semantic tokens (B, K, semantic_dim).

        Returns the fused tokens (B, Q, embed_dim), and the attention weights (B, heads, Q, K), which sum to 1 over K.
        """
        attended, weights = self.attention(image, semantic, semantic, average_attn_weights=False)
        return self.norm(image + attended if self.residual else attended), weights
