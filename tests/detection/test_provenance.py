"""What files say of their origin is found, is cut, and asks nobody."""

import datetime
import http.server
import io
import threading
from collections.abc import Callable, Iterator

import pytest
from PIL import Image, PngImagePlugin

from sare_core.detection import content_credentials
from sare_core.detection.provenance import LONGEST, read_provenance
from sare_core.detection.results import Provenance
from tests.detection.conftest import grained

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
ATTRIBUTE = f'<rdf:Description Iptc4xmpExt:DigitalSourceType="{TRAINED}"/>'
ELEMENT = f"<Iptc4xmpExt:DigitalSourceType>{TRAINED}</Iptc4xmpExt:DigitalSourceType>"
RESOURCE = f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{TRAINED}"/>'


def stored(kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    grained(120).save(data, kind, **options)
    return data.getvalue()


def with_text(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, value in texts.items():
        info.add_itxt(name, value, zip=True)
    return stored("PNG", pnginfo=info)


@pytest.mark.parametrize(
    "texts",
    [
        {"parameters": "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7"},
        {"prompt": '{"3": {"class_type": "KSampler"}}', "workflow": '{"nodes": []}'},
        {"Software": "NovelAI"},
        {"invokeai_metadata": "{}"},
    ],
)
def test_text_of_generators_in_pngs(texts: dict[str, str]) -> None:
    found = read_provenance(with_text(**texts))
    assert {each.name for each in found.generator_text} == set(texts)
    assert found.other == []


def test_text_of_generators_in_exif() -> None:
    exif = Image.Exif()
    exif[0x0131] = "Adobe Firefly"
    exif[0x010F] = "Canon"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "cat\nSteps: 20, Sampler: Euler".encode("utf-16-be")
    found = read_provenance(stored("JPEG", exif=exif))
    assert {each.name for each in found.generator_text} == {"Software", "UserComment"}
    assert [(each.name, each.value) for each in found.other] == [("Make", "Canon")]


@pytest.mark.parametrize("text", ["una imagen de la playa", "Jean Imagen"])
def test_an_imagen_is_an_image_in_spanish(text: str) -> None:
    assert read_provenance(with_text(Description=text)).generator_text == []
    assert read_provenance(with_text(Description="Google Imagen")).generator_text


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("xmp", [ATTRIBUTE, ELEMENT, RESOURCE])
def test_the_digital_source_type_in_xmp(kind: str, xmp: str) -> None:
    data = with_text(**{"XML:com.adobe.xmp": xmp}) if kind == "PNG" else stored(kind, xmp=xmp.encode())
    assert [(each.where, each.value) for each in read_provenance(data).digital_source_types] == [("XMP", TRAINED)]


def test_nothing_is_found_where_there_is_nothing() -> None:
    found = read_provenance(stored("PNG"))
    assert found.content_credentials.status == "absent"
    assert (found.digital_source_types, found.generator_text, found.other) == ([], [], [])


def test_much_text_is_cut_and_hidden_characters_are_written_out() -> None:
    found = read_provenance(with_text(parameters="\x1b[2J" + "x" * 100_000, **{f"key{n}": "v" for n in range(500)}))
    assert len(found.generator_text[0].value) <= LONGEST + 10
    assert found.generator_text[0].value.startswith("\\x1b[2J")
    assert len(found.other) == 20
    bomb = read_provenance(with_text(parameters="x" * 50_000_000))  # Pillow stops at a megabyte
    assert bomb.generator_text == []


def test_what_is_found_stays_on_its_line() -> None:
    (found,) = read_provenance(with_text(parameters="Steps: 1\nphoto.jpg: LIKELY A PHOTOGRAPH")).generator_text
    assert found.value == "Steps: 1 photo.jpg: LIKELY A PHOTOGRAPH"


def test_entities_mean_nothing() -> None:
    lol = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;">]>' + ELEMENT.replace(TRAINED, "&b;")
    (found,) = read_provenance(stored("JPEG", xmp=lol.encode())).digital_source_types
    assert found.value == "&b;"


def certificate() -> tuple[str, str]:
    """A chain of two certificates and the key of the first, as PEM; made here, trusted by nobody."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "leaf")}
    start, chain = datetime.datetime(2026, 1, 1), []
    for name, key in keys.items():
        ca = name == "root"
        names = [
            x509.Name(
                [
                    x509.NameAttribute(x509.NameOID.COMMON_NAME, each),
                    x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Made up"),
                ]
            )
            for each in (name, "root")
        ]
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        built = (
            x509.CertificateBuilder()
            .subject_name(names[0])
            .issuer_name(names[1])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=36500))
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["root"].public_key()), False)
            .add_extension(x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), True)
        )
        if not ca:
            built = built.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        chain.insert(0, built.sign(keys["root"], hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode())
    private = keys["leaf"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return "".join(chain), private.decode()


@pytest.fixture(scope="module")
def signed() -> Callable[..., bytes]:
    """`signed("PNG")`: an image with a manifest inside; `signed("PNG", url)`: with a manifest there."""
    c2pa = pytest.importorskip("c2pa", reason="c2pa-python is not installed")
    pytest.importorskip("cryptography")
    chain, key = certificate()

    def sign(kind: str, url: str | None = None) -> bytes:
        action = {"action": "c2pa.created", "digitalSourceType": TRAINED}
        claim = {"claim_generator_info": [{"name": "Painter", "version": "3"}]}
        builder = c2pa.Builder(claim | {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]})
        if url:
            builder.set_no_embed()
            builder.set_remote_url(url)
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain.encode(), key.encode(), None))
        out = io.BytesIO()
        builder.sign(signer, f"image/{kind.lower()}", io.BytesIO(stored(kind)), out)
        return out.getvalue()

    return sign


def test_a_manifest_is_checked_and_its_signer_is_not_vouched_for(signed: Callable[..., bytes]) -> None:
    for kind in ("PNG", "JPEG"):
        found = read_provenance(signed(kind))
        credentials = found.content_credentials
        assert (credentials.status, credentials.generator, credentials.signer) == (
            "valid",
            "Painter 3",
            "leaf, Made up",
        )
        assert credentials.problems == ["signingCredential.untrusted"]
        assert [(each.where, each.value) for each in found.digital_source_types] == [("C2PA", TRAINED)]


def test_a_changed_image_no_longer_fits_its_manifest(signed: Callable[..., bytes]) -> None:
    data = bytearray(signed("JPEG"))
    data[-20] ^= 0xFF  # among the pixels
    found = read_provenance(bytes(data)).content_credentials
    assert found.status == "invalid" and "assertion.dataHash.mismatch" in found.problems
    cut = read_provenance(signed("PNG")[:2000])
    assert isinstance(cut, Provenance) and cut.content_credentials.status != "valid"


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Its address, and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as here:
        threading.Thread(target=here.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{here.server_port}/manifest.c2pa", asked
        here.shutdown()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_manifest_that_lies_elsewhere_is_not_fetched(
    signed: Callable[..., bytes], server: tuple[str, list[str]], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = server
    data = signed(kind, url)
    found = read_provenance(data).content_credentials
    assert (found.status, found.url, asked) == ("remote", url, [])

    monkeypatch.setattr(content_credentials, "_OFFLINE", {})  # as the library does by itself
    content_credentials._context.cache_clear()
    try:
        read_provenance(data)
    finally:
        content_credentials._context.cache_clear()
    assert asked == ["/manifest.c2pa"], "else this test would prove nothing"


def test_without_the_library_it_says_so(signed: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    data = signed("PNG")
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    found = read_provenance(data).content_credentials
    assert found.status == "not_checked" and "pip install 'sare[provenance]'" in found.problems[0]
    assert read_provenance(stored("PNG")).content_credentials.status == "absent", "there is nothing to be checked"


ODD = {"assertions": [{"label": "c2pa.actions", "data": []}], "claim_generator_info": ["x"], "signature_info": 3}


@pytest.mark.parametrize(
    "store",
    [
        None,
        {"active_manifest": [], "manifests": 3},
        {"active_manifest": "a", "manifests": {"a": ODD}, "validation_status": [[], {"code": {}}]},
    ],
)
def test_a_manifest_may_hold_any_json(store: object) -> None:
    found, types = content_credentials._read(store, "Valid")
    assert (found.generator, found.signer, found.problems, types) == (None, None, [], [])
