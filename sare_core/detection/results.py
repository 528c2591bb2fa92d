"""What is found out about one image, as programs read it. `sare detect --schema` prints its JSON schema.

A published field keeps its name and meaning. SCHEMA_VERSION goes up when one changes or goes, not when one is added.
"""

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = 1

Verdict = Literal["likely_ai", "inconclusive", "likely_real", "no_verdict"]
Code = Literal[
    "above_threshold",
    "below_threshold",
    "between_thresholds",
    "unlike_both",
    "not_calibrated",
    "outside_calibration",
    "unstable_encoding",
    "unstable_noise",
    "unreadable",
    "too_small",
    "blank",
    "scale_model",
    "not_scored",
]
Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """Unknown fields are refused, so that the schema says all there is."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Reason(Record):
    """Why the verdict is what it is: a code for programs, a sentence for people."""

    code: Code
    text: str


class Threshold(Record):
    """Where a verdict begins, and how often images of the other kind cross it.

    promised: the share of them that was asked for, at most, on average over calibrations. crossed, images: how many of
    those that the threshold was set on lie beyond it. rate: crossed / images. interval: exact 95 % interval of the true
    rate on images drawn as those were. measured_on: the name of their set.
    """

    logit: float
    score: Share
    promised: Share
    rate: Share
    interval: tuple[Share, Share]
    crossed: int = Field(ge=0)
    images: int = Field(ge=1)
    measured_on: str


class Thresholds(Record):
    """likely_ai: above it, crossed by real photographs. likely_real: below it, crossed by generated images."""

    likely_ai: Threshold
    likely_real: Threshold | None


class DetectorId(Record):
    """fingerprint: of its training. checkpoint: SHA-256 of its weights. scoring: fingerprint of all that decides a
    score: weights, view, and the settings of captions and reconstruction."""

    fingerprint: str
    checkpoint: str
    scoring: str


class Pictures(Record):
    """Paths of PNG files: x̂, and each SARE map by its name. null: not saved, or there is none."""

    reconstruction: str | None
    maps: dict[str, str]


class ContentCredentials(Record):
    """A C2PA manifest, checked offline. The signer is only what the certificate says: no list of trusted ones is used.

    status: absent; remote: kept elsewhere, not fetched; valid: signature and digests fit this file; invalid: they do
    not, or it cannot be read; not_checked: c2pa-python is not installed, or the file is too large.
    """

    status: Literal["absent", "remote", "valid", "invalid", "not_checked"]
    generator: str | None = None
    signer: str | None = None
    problems: list[str] = []
    url: str | None = None


class Found(Record):
    """One thing that metadata say. where: PNG text, EXIF, XMP or C2PA. name: of the field. value: cut."""

    where: str
    name: str
    value: str


class Provenance(Record):
    """What the file says of its origin. It never changes the score or the verdict: it can be forged and stripped."""

    content_credentials: ContentCredentials
    digital_source_types: list[Found]
    generator_text: list[Found]
    other: list[Found]


class Result(Record):
    """One image. path: as it was given; bytes that are no UTF-8 as \\udcNN. score: sigmoid(logit), no probability.

    examined: digest of detector, calibration and checks; the same file with the same digest gets the same answer.
    encodings, draws: logits of the image encoded anew, and under other draws of the noise; empty: not checked.
    milliseconds: the image's share of its batch.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    path: str
    sha256: str | None
    bytes: int | None
    width: int | None
    height: int | None
    format: str | None
    verdict: Verdict
    reasons: list[Reason]
    score: Share | None = None
    logit: float | None = None
    caption: str | None = None
    thresholds: Thresholds | None
    calibration: str | None
    detector: DetectorId
    examined: str
    encodings: dict[str, float] = {}
    draws: list[float] = []
    pictures: Pictures | None = None
    provenance: Provenance | None
    warnings: list[str]
    milliseconds: float


def schema() -> dict[str, Any]:
    """The JSON schema of one result, as in the package's schema.json."""
    made = Result.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def schema_text() -> str:
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
