"""Names as JSON files may hold them: of a folder, or of a file beside the JSON, never a path that leads elsewhere.

What is read or deleted by such a name therefore lies in the folder of the JSON, whoever wrote it.
"""

from typing import Annotated

from pydantic import Field

DATASET = r"[a-z0-9][a-z0-9._-]*"

DatasetName = Annotated[str, Field(pattern=f"^{DATASET}$")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-z]+$")]
OutputName = Annotated[str, Field(pattern=r"^[0-9]{5,}-[0-9a-z]+\.(tar|parquet)$")]
RecordsName = Annotated[str, Field(pattern=r"^records-[0-9a-f]{12}\.parquet$")]
CheckpointName = Annotated[str, Field(pattern=r"^(last|best)-[0-9a-f]{12}\.safetensors$")]
ImagesName = Annotated[str, Field(pattern=r"^images-[0-9a-f]{12}\.parquet$")]
ShardsName = Annotated[str, Field(pattern=r"^shards-[0-9a-f]{12}\.parquet$")]
