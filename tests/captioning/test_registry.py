from importlib import import_module

import pytest
from PIL import Image

from sare_core.captioning import CAPTIONERS, load_captioner
from sare_core.errors import ConfigError


def test_unknown_captioner_names_the_known_ones(settings):
    with pytest.raises(ConfigError, match=r"'blop'.*blip, llava-next, none, server, table"):
        load_captioner(settings(captioner="blop"), None, "cpu")


def test_none_gives_empty_captions(settings):
    captioner = load_captioner(settings(captioner="none"), None, "cpu")
    assert captioner.caption([Image.new("RGB", (8, 8))] * 3, [{}] * 3) == ["", "", ""]


def test_every_captioner_has_a_loader():
    for module in CAPTIONERS.values():
        assert callable(import_module(f"sare_core.captioning.{module}").load)
