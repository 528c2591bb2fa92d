"""What a file says of its own origin. Anybody can write it, and most ways of sharing an image strip it.

So it stands beside the score and never changes it. Each thing that is shown is cut to LONGEST characters, at most MOST
things of a kind; XML is searched as text and never parsed, so that entities mean nothing.
"""

import io
import re
from contextlib import suppress

from PIL import ExifTags, Image

from sare_core.detection.content_credentials import read_credentials
from sare_core.detection.results import Found, Provenance
from sare_core.detection.text import cut
from sare_core.images.decoding import DECODING_ERRORS, EXTENSIONS

LONGEST = 500  # characters of a value
MOST = 20  # values of a kind
SEARCHED = 1 << 20  # characters of XMP
_XMP = "XML:com.adobe.xmp"

# Keys of PNG text, and what begins or stands in the comments of other formats, by the programs that write them:
# AUTOMATIC1111's web UI and its kin, ComfyUI, InvokeAI, Fooocus, NovelAI (Comment beside Software), DreamStudio.
_GENERATOR_KEYS = {
    *("parameters", "prompt", "workflow", "invokeai_metadata", "invokeai_graph", "invokeai_workflow"),
    *("sd-metadata", "dream", "fooocus_scheme", "negative_prompt", "generation_data", "generation_time"),
}
_GENERATOR_WORDS = re.compile(
    r"\bSteps: \d+.*\bSampler: |\bNegative prompt: |\"class_type\"|\b(NovelAI|Stable ?Diffusion|Midjourney|ComfyUI"
    r"|InvokeAI|Fooocus|DALL.?E|Adobe Firefly|Google Imagen|Imagen \d|Flux\.1)\b",  # an imagen is an image in Spanish
    re.IGNORECASE | re.DOTALL,
)
_SOURCE_TYPE = re.compile(
    r"DigitalSourceType(?:\s*=\s*[\"']|[^<>]{0,200}>\s*|[^<>]{0,200}rdf:resource=[\"'])([^\"'<>]{1,500})"
)
_EXIF = {tag: ExifTags.TAGS[tag] for tag in (0x010E, 0x010F, 0x0110, 0x0131, 0x013B)}  # description … artist
_USER_COMMENT, _EXIF_PART = 0x9286, 0x8769


def read_provenance(data: bytes) -> Provenance:
    """Of an image file's bytes. What cannot be read counts as absent."""
    credentials, types = read_credentials(data)
    said, xmp = list[Found](), ""
    # Damaged metadata of a readable image: what was read until then is told.
    with suppress(*DECODING_ERRORS), Image.open(io.BytesIO(data), formats=tuple(EXTENSIONS)) as file:
        # Text may follow a PNG's pixels, which then have to be read. Pillow limits how much text it decompresses.
        texts: dict[str, str] = getattr(file, "text", {}) if file.format == "PNG" else {}
        packet = file.info.get("xmp") or texts.get(_XMP, "")
        xmp = (packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet))[:SEARCHED]
        said += [_found("PNG text", name, value) for name, value in texts.items() if name != _XMP]
        said += [_found("comment", str(file.format), file.info["comment"])] if file.info.get("comment") else []
        exif = file.getexif()
        said += [_found("EXIF", name, value) for tag, name in _EXIF.items() if (value := exif.get(tag))]
        if comment := exif.get_ifd(_EXIF_PART).get(_USER_COMMENT):
            said.append(_found("EXIF", "UserComment", _without_charset(comment)))
    types += [_found("XMP", "DigitalSourceType", value) for value in _SOURCE_TYPE.findall(xmp)]
    generator = [each for each in said if _of_generator(each)]
    return Provenance(
        content_credentials=credentials,
        digital_source_types=list(dict.fromkeys(types))[:MOST],
        generator_text=generator[:MOST],
        other=[each for each in said if each not in generator][:MOST],
    )


def _without_charset(comment: object) -> object:
    """EXIF's UserComment begins with eight bytes that name its characters."""
    if isinstance(comment, bytes) and comment[:8] == b"UNICODE\0":
        rest = comment[8 : 8 + 4 * LONGEST]
        return rest.decode("utf-16-be" if rest[:1] == b"\0" else "utf-16-le", errors="replace")
    return comment[8:] if isinstance(comment, bytes) and comment[:5] == b"ASCII" else comment


def _of_generator(found: Found) -> bool:
    return found.name.lower() in _GENERATOR_KEYS or _GENERATOR_WORDS.search(found.value) is not None


def _found(where: str, name: str, value: object) -> Found:
    """value: text, or bytes that should be; a damaged file may hold something else."""
    text = value[: 4 * LONGEST].decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
    return Found(where=where, name=cut(name, 60), value=cut(text.strip("\0"), LONGEST))
