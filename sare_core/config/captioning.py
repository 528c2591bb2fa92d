"""Settings of captions: `caption.*`."""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from sare_core.config.section import Dtype, Section


class CaptionSettings(Section):
    """Paper 3.2, "Image Captioning". Silent on decoding: greedy and short, the model card's own example."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size", "server", "server_timeout"})
    neutral: ClassVar[dict[str, Any]] = {"server_model": None, "max_tiles": None}
    models: ClassVar[dict[str, str]] = {"model": "revision", "text_tokenizer": "text_tokenizer_revision"}
    files: ClassVar[frozenset[str]] = frozenset({*models, *models.values(), "table"})

    captioner: str  # a name in sare_core.captioning: blip, llava-next, none, server, table
    model: str | None = None  # hub id or folder; null for none, server and table
    revision: str | None = None
    prompt: str | None = None  # BLIP: text that the caption continues; LLaVA-NeXT and server: the question
    # LLaVA-NeXT: the most tiles that an image is cut into, beside the whole of it; null: the model's own, 4. Its cost
    # grows with them.
    max_tiles: int | None = Field(None, ge=1)
    max_new_tokens: int = Field(ge=1)
    num_beams: int = Field(ge=1)
    dtype: Dtype
    table: str | None = None  # parquet or CSV with image_id or path, and caption: the user's own captions
    server: str | None = None  # of captioner server: its address, as http://localhost:8000/v1
    server_model: str | None = None  # the name of the model there
    server_timeout: float = Field(60.0, gt=0)  # seconds that it may take for an image
    text_tokenizer: str  # of the diffusion model's CLIP text encoder: captions are cut to what it takes
    text_tokenizer_revision: str | None = None
    batch_size: int = Field(ge=1)  # of captioner server: requests at a time

    @model_validator(mode="after")
    def _tiles_are_of_llava(self) -> Self:
        if self.max_tiles is not None and self.captioner != "llava-next":
            raise ValueError(f"max_tiles={self.max_tiles} plays no part in {self.captioner}: set it to null")
        return self
