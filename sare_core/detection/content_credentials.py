"""C2PA manifests ("content credentials"), by c2pa-python and without any request.

The library fetches manifests that lie elsewhere, and asks certificate authorities, unless it is told not to.
"""

import io
import json
from functools import lru_cache
from typing import Any

from sare_core.detection.results import ContentCredentials, Found
from sare_core.detection.text import cut

LARGEST = 64 << 20  # bytes of a file, and of a manifest as JSON a sixteenth of it, that are looked at
LONGEST = 200  # characters of a name
MOST = 20  # source types, and problems
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
_MARKS = (b"c2pa", b"dcterms:provenance")  # a file with neither has no manifest; most do not reach the library


def read_credentials(data: bytes) -> tuple[ContentCredentials, list[Found]]:
    """Of a file's bytes: its manifest, and the digital source types that the manifest names."""
    if not any(mark in data for mark in _MARKS):
        return ContentCredentials(status="absent"), []
    if len(data) > LARGEST:
        return _unchecked(f"the file has more than {LARGEST >> 20} MB"), []
    try:
        import c2pa
    except ModuleNotFoundError:
        return _unchecked("c2pa-python is not installed: pip install 'sare[provenance]'"), []
    try:
        reader = c2pa.Reader.try_create(io.BytesIO(data), context=_context())
        if reader is None:
            return ContentCredentials(status="absent"), []
        with reader:
            text, state = reader.json(), reader.get_validation_state()
    except c2pa.C2paError as error:
        return _failed(str(error)), []
    if len(text) > LARGEST >> 4:
        return _unchecked("its manifest is too large"), []
    return _read(json.loads(text), state)


@lru_cache
def _context() -> Any:
    import c2pa

    return c2pa.Context.from_dict(_OFFLINE)


def _read(store: Any, state: str | None) -> tuple[ContentCredentials, list[Found]]:
    """The library checks signatures and digests, but a manifest may hold any JSON in any place."""
    manifest = _dict(_dict(_dict(store).get("manifests")).get(str(_dict(store).get("active_manifest"))))
    generators = _dicts(manifest.get("claim_generator_info")) or [{"name": manifest.get("claim_generator")}]
    signature = _dict(manifest.get("signature_info"))
    codes = {_cut(each.get("code")) for each in _dicts(_dict(store).get("validation_status"))}
    found = ContentCredentials(
        status="invalid" if state == "Invalid" else "valid",
        generator=_cut(" ".join(str(generators[0][key]) for key in ("name", "version") if generators[0].get(key))),
        signer=_cut(", ".join(str(signature[key]) for key in ("common_name", "issuer") if signature.get(key))),
        problems=sorted(code for code in codes if code)[:MOST],
    )
    types = [
        Found(where="C2PA", name="digitalSourceType", value=value)
        for assertion in _dicts(manifest.get("assertions"))
        if str(assertion.get("label")).startswith("c2pa.actions")
        for action in _dicts(_dict(assertion.get("data")).get("actions"))
        if (value := _cut(action.get("digitalSourceType")))
    ]
    return found, types[:MOST]


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[Any, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _failed(error: str) -> ContentCredentials:
    said, _, url = error.partition("must fetch remote manifests from url ")
    if url:
        return ContentCredentials(status="remote", url=_cut(url))
    return ContentCredentials(status="invalid", problems=[_cut(said) or ""])


def _unchecked(why: str) -> ContentCredentials:
    return ContentCredentials(status="not_checked", problems=[why])


def _cut(text: Any) -> str | None:
    return cut(str(text), LONGEST) or None if text else None
