"""Bytes of each stage's output, estimated from the numbers below; tests/plan holds them against what is written."""

from sare_core.config import Settings
from sare_core.plan.images import PNG_BYTES_PER_PIXEL, Images

JSON_BYTES = 600
TAR_BYTES = 512 + 256  # a member's header, and half a block of padding
# Bytes a row in zstd parquet: an image_id takes 12, a file's digest 34; captions and paths repeat themselves.
CAPTION_ROW, PREDICTION_ROW, INDEX_ROW = 40, 22, 70
PARQUET_BYTES = 3000  # a file's schema and footer
RECORD_BYTES = 1500


def captions_bytes(images: int, shards: int) -> int:
    return images * CAPTION_ROW + shards * (PARQUET_BYTES + RECORD_BYTES)


def predictions_bytes(images: int, shards: int) -> int:
    return images * PREDICTION_ROW + shards * (PARQUET_BYTES + RECORD_BYTES)


def index_bytes(images: int) -> int:
    return images * INDEX_ROW + 2 * PARQUET_BYTES


def reconstructions_bytes(settings: Settings, images: Images) -> int:
    """All tars. Without the sources' own bytes where these are not known."""
    reconstruct, pixels = settings.reconstruct, images.pixels
    fields = 2 + bool(reconstruct.keep_source) + reconstruct.keep_reconstruction
    map_pixels = pixels if reconstruct.sare_size == "full" else images.images * reconstruct.sare_size**2
    stored = round((map_pixels + pixels * reconstruct.keep_reconstruction) * PNG_BYTES_PER_PIXEL)
    sources = (images.source_bytes or 0) * bool(reconstruct.keep_source)
    return stored + images.images * (JSON_BYTES + fields * TAR_BYTES) + sources + images.shards * RECORD_BYTES
