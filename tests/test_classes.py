"""Taxonomies: what they hold, how they travel through JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s5mars.classes import (
    AI4MARS,
    AI4MARS_CODING,
    IGNORE,
    S5MARS,
    S5MARS_CODING,
    Class,
    MaskCoding,
    Taxonomy,
    hex_colour,
    plain_name,
    require_same_classes,
    rgb,
)
from s5mars.errors import UserError

channel = st.integers(0, 255)


@pytest.mark.parametrize("taxonomy", [S5MARS, AI4MARS])
def test_survives_json(taxonomy: Taxonomy) -> None:
    assert Taxonomy.from_dict(json.loads(json.dumps(taxonomy.to_dict()))) == taxonomy


@given(st.tuples(channel, channel, channel))
def test_colours_survive_text(colour: tuple[int, int, int]) -> None:
    assert rgb(hex_colour(colour)) == colour


@pytest.mark.parametrize(("taxonomy", "classes"), [(S5MARS, 9), (AI4MARS, 4)])
def test_classes_can_be_told_apart(taxonomy: Taxonomy, classes: int) -> None:
    assert len(taxonomy) == len(set(taxonomy.names)) == classes
    assert len({c.colour for c in taxonomy.classes}) == classes
    assert all(c.criterion for c in taxonomy.classes)


def test_codings_of_the_papers() -> None:
    assert S5MARS_CODING.index_of == {i + 1: i for i in range(9)}
    assert S5MARS_CODING.ignored == {0}
    assert MaskCoding({0: 0, 1: 1, 2: 2, 3: 3}, frozenset({IGNORE})) == AI4MARS_CODING


def test_blanks_case_and_hyphens_do_not_tell_classes_apart() -> None:
    assert {plain_name(name) for name in ("Big rock", "big_rock", " BIG -rock_")} == {"big rock"}
    criteria = {each.criterion for each in Taxonomy.of_names("x", ["big-rock", "Big Rock"]).classes}
    assert criteria == {AI4MARS.classes[3].criterion}


def test_several_classes_make_one() -> None:
    assert S5MARS.joined([4, 5]).name == "bedrock+rock"
    assert S5MARS.joined([4, 5]).colour == S5MARS.classes[4].colour


def test_other_classes_are_named_with_the_way_out() -> None:
    require_same_classes(S5MARS, S5MARS, run=Path("run"), data=Path("data"))
    with pytest.raises(UserError, match=r"^data has .* big_rock, but run was .* hole: leave$"):
        require_same_classes(S5MARS, AI4MARS, run=Path("run"), data=Path("data"), remedy="leave")


def test_palette_is_what_pillow_takes() -> None:
    palette = AI4MARS.palette
    assert len(palette) == 768
    assert tuple(palette[3:6]) == AI4MARS.classes[1].colour
    assert palette[3 * IGNORE :] == [0, 0, 0]


@pytest.mark.parametrize("names", [[str(i) for i in range(254)], [f"rock {i}" for i in range(254)]])
def test_missing_colours_are_chosen_and_differ(names: list[str]) -> None:
    taxonomy = Taxonomy.from_dict({"classes": [{"name": name} for name in names]})
    assert taxonomy.name == "custom"
    assert len({c.colour for c in taxonomy.classes}) == 254


def test_missing_colours_follow_the_names() -> None:
    names = ["Soil", "bed rock", "big_rocks", "hazy sky", "rover", "wheel tracks", "sand ripples"]
    entries: list[dict[str, str]] = [{"name": name} for name in names]
    colours = [c.colour for c in Taxonomy.from_dict({"classes": entries}).classes]
    known = {c.name: c.colour for c in S5MARS.classes}
    wanted = ["soil", "bedrock", "rock", "sky", "rover", "trace", "sand"]
    assert colours == [known[name] for name in wanted]


def test_only_the_sky_is_sky_blue() -> None:
    entries = [{"name": "a"}, {"name": "soil"}, {"name": "sky"}, {"name": "b"}]
    for order in (entries, entries[::-1]):
        classes = Taxonomy.from_dict({"classes": order}).classes
        assert [c.name for c in classes if c.colour == (100, 200, 255)] == ["sky"]


def test_a_colour_that_is_given_stays_and_is_not_taken() -> None:
    entries = [{"name": "rock"}, {"name": "moss", "color": "#dc3c3c"}, {"name": "stone"}]
    first, second, third = (c.colour for c in Taxonomy.from_dict({"classes": entries}).classes)
    assert second == (220, 60, 60)
    assert len({first, second, third}) == 3
    assert first[0] > 2 * first[1]  # a darker red


def test_black_and_repeated_colours_are_replaced_for_names_alone() -> None:
    names, red = ("moss", "Big Rock", "shadow", "lichen"), (220, 60, 60)
    found = Taxonomy.of_names("mine", names, [red, red, (0, 0, 0)]).classes
    assert found[0].colour == red
    assert found[2].colour == (60, 60, 80)  # that of its name
    assert len({c.colour for c in found}) == 4
    assert [bool(c.criterion) for c in found] == [False, True, False, False]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "at least one entry"),
        ({"classes": []}, "at least one entry"),
        ({"classes": [{"color": "#ffffff"}]}, "class 0 has no `name`"),
        ({"classes": ["soil"]}, r"class 0 must have the form .name: soil.* .got 'soil'."),
        ({"classes": [{"name": "a", "color": "red"}]}, "'red' is not a colour"),
        ({"classes": [{"name": "a", "color": "#12345g"}]}, "'#12345g' is not a colour"),
        ({"classes": [{"name": "a"}, {"name": "a"}]}, r"has the class name 'a' twice: rename one"),
        ({"classes": [{"name": str(i)} for i in range(255)]}, "1 to 254 classes .got 255"),
    ],
)
def test_what_is_no_taxonomy(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Taxonomy.from_dict(data)


def test_as_many_classes_as_fit_below_ignore() -> None:
    assert len(Taxonomy("many", tuple(Class(str(i), (0, 0, 0)) for i in range(254)))) == 254
