"""Which group takes which parameter, held against sets worked out by hand and against fnmatch itself."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.errors import RecipeError
from trainkit.recipe.parameter_patterns import match_groups, takes_rest

NAMES = ["stem.weight", "stem.bias", "head.0.weight", "head.0.bias", "scale"]


@pytest.mark.parametrize("rest", ["rest", ("*",)])
def test_the_rest_is_what_no_other_group_names_whichever_group_is_written_first(rest: str | tuple[str, ...]) -> None:
    expected = {"biases": ["stem.bias", "head.0.bias"], "others": ["stem.weight", "head.0.weight", "scale"]}
    assert match_groups({"biases": ("*.bias",), "others": rest}, NAMES) == expected  # type: ignore[dict-item]
    assert match_groups({"others": rest, "biases": ("*.bias",)}, NAMES) == expected  # type: ignore[dict-item]


def test_a_pattern_with_an_exclamation_mark_takes_away_wherever_it_stands() -> None:
    for stem in (("stem.*", "!*.bias"), ("stem.*", "!stem.bias", "scale", "!scale")):
        assert match_groups({"stem": stem, "others": "rest"}, NAMES)["stem"] == ["stem.weight"]
    assert match_groups({"a": ("*.bias",), "b": ("!*.bias",)}, NAMES)["b"] == ["stem.weight", "head.0.weight", "scale"]
    assert match_groups({"a": ("*.bias", "scale"), "b": ("*", "!scale")}, NAMES)["b"] == [
        "stem.weight",
        "head.0.weight",
    ]


def test_only_a_bare_star_or_a_leading_exclamation_mark_makes_a_list_take_the_rest() -> None:
    assert [takes_rest(each) for each in ("rest", ("*",), ("!a",), ("*.a",), ("a", "!b"))] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"a": ("stm.*",)}, r'groups.a.parameters: "stm.\*" matches no parameter; '),
        ({"a": ("stem.wieght",)}, 'did you mean "stem.weight"'),
        ({"a": ("*", "!hed.*")}, r'groups.a.parameters: "!hed.\*" matches no parameter'),
        ({"a": ("stem.*",), "b": ("*.bias", "*.weight", "scale")}, '"stem.weight" is in two groups, a and b; "!stem.w'),
        ({"a": ("stem.*",)}, "in no group: head.0.weight, head.0.bias, scale; give them to one of a, or"),
        ({"a": ("stem.*", "scale"), "b": ("!head.*",)}, "groups.b.parameters: no parameter is left for this group"),
        ({"a": ("stem.*", "!stem.*"), "b": "rest"}, "groups.a.parameters: no parameter is left for this group"),
    ],
)
def test_what_does_not_put_each_parameter_in_one_group_is_refused(
    patterns: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        match_groups(patterns, NAMES)


def test_of_many_parameters_in_no_group_the_first_are_named() -> None:
    with pytest.raises(RecipeError, match=r"x0, x1, .*x7, … \(20 in all\)"):
        match_groups({"a": ("y",)}, ["y", *(f"x{number}" for number in range(20))])


PATTERNS = st.lists(st.sampled_from(["a*", "*b", "c", "!a*", "!*b", "!c"]), min_size=1, max_size=3).map(tuple)


@given(st.dictionaries(st.sampled_from("xyz"), PATTERNS | st.just("rest"), min_size=1))
def test_an_answer_is_a_partition_in_which_each_group_has_what_its_own_patterns_say(
    patterns: dict[str, tuple[str, ...]],
) -> None:
    names = ["ab", "a", "b", "c"]
    try:
        found = match_groups(patterns, names)
    except RecipeError:
        return
    assert sorted(name for members in found.values() for name in members) == sorted(names)
    for group, members in found.items():
        given = () if patterns[group] == "rest" else patterns[group]
        assert not [name for name in members for p in given if p[0] == "!" and fnmatchcase(name, p[1:])]
        if not takes_rest(patterns[group]):
            assert all(any(fnmatchcase(name, p) for p in given) for name in members)
