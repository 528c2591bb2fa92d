import pytest

from sare_core.errors import ConfigError
from sare_core.images.grids import USUAL, expand_views, step_and_number


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("raw,jpeg:70", ["raw", "jpeg:70"]),
        ("jpeg:95..50", ["jpeg:95", "jpeg:90", "jpeg:80", "jpeg:70", "jpeg:60", "jpeg:50"]),
        ("jpeg:92..85", ["jpeg:92", "jpeg:90", "jpeg:85"]),
        ("blur:0.5..2", ["blur:0.5", "blur:1", "blur:2"]),
        ("square+noise:10..2", ["square+noise:10", "square+noise:5", "square+noise:2"]),
        ("webp, webp:50", ["webp:90", "webp:75", "webp:50"]),
    ],
)
def test_ranges_are_their_ends_and_the_usual_places_between(text, views):
    assert expand_views(text) == views


def test_usual_is_all_usual_places_and_the_square():
    found = expand_views("usual")
    assert found[0] == "square" and len(found) == 1 + sum(map(len, USUAL.values()))
    assert {step for step, _ in filter(None, map(step_and_number, found))} == USUAL.keys()


@pytest.mark.parametrize(
    ("text", "said"), [("jpeg:a..b", "jpeg:95..50"), ("jpeg:95..500", "'500'"), ("gamma", "gamma")]
)
def test_what_is_no_view_is_named(text, said):
    with pytest.raises(ConfigError, match=said):
        expand_views(text)


def test_only_a_single_step_with_a_number_is_a_place_of_a_curve():
    assert step_and_number("blur:1.5") == ("blur", 1.5)
    assert step_and_number("square") is step_and_number("square+jpeg:70") is step_and_number("raw") is None
