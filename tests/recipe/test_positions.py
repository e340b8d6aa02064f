"""The scanner is held against tomli: it finds a place for all that tomli reads, and what stands there is that."""

from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.recipe.positions import dotted_key, positions

BLANKS = st.sampled_from(["", " ", "\t", "  "])
LINES = st.sampled_from(["", "\n", " # a ] } \" ' [comment]\n", "\n\n"])
CHARACTERS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8)
NUMBERS = st.sampled_from(["0", "-7", "1_000", "0xFF", "3.5", "-1e-3", "inf", "nan", "true", "false"])
TIMES = st.sampled_from(["1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.5"])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@st.composite
def strings(draw: st.DrawFn) -> str:
    text = draw(CHARACTERS)
    form = draw(st.integers(0, 3))
    if form == 0:
        return f'"{_escaped(text)}"'
    if form == 1:
        return "'" + text.replace("'", "") + "'"
    if form == 2:
        return '"""' + draw(LINES) + _escaped(text) + '\\\n  "a" ""' + draw(st.sampled_from(["", '"', '""'])) + 'b"""'
    return "'''" + draw(LINES) + text.replace("'", "") + draw(st.sampled_from(["", "'", "''"])) + "'''"


@st.composite
def keys(draw: st.DrawFn) -> str:
    form = draw(st.integers(0, 2))
    if form == 0:
        return draw(st.text("abcXYZ019_-", min_size=1, max_size=6))
    text = draw(CHARACTERS)
    return f'"{_escaped(text)}"' if form == 1 else "'" + text.replace("'", "") + "'"


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> str:
    form = draw(st.integers(0, 5 if depth < 3 else 3))
    if form == 4:
        items = draw(st.lists(values(depth=depth + 1), max_size=3))
        return "[" + draw(LINES) + ("," + draw(LINES)).join(items) + draw(LINES) + "]"
    if form == 5:
        pairs = draw(st.lists(st.tuples(dotted_keys(), values(depth=depth + 1)), max_size=3))
        return "{" + " , ".join(f"{key} = {value}" for key, value in pairs) + "}"
    return draw([NUMBERS, TIMES, strings(), strings()][form])


@st.composite
def dotted_keys(draw: st.DrawFn) -> str:
    return (draw(BLANKS) + "." + draw(BLANKS)).join(draw(st.lists(keys(), min_size=1, max_size=3)))


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Valid TOML: statements that tomli takes, one after the other."""
    text = ""
    headers: list[str] = []
    for _ in range(draw(st.integers(0, 8))):
        form = draw(st.integers(0, 5))
        if form <= 3:
            more = f"{draw(BLANKS)}{draw(dotted_keys())}{draw(BLANKS)}={draw(BLANKS)}{draw(values())}"
        else:
            header = draw(dotted_keys())
            if headers and draw(st.booleans()):
                header = draw(st.sampled_from(headers)) + draw(st.sampled_from(["", f".{header}"]))
            headers.append(header)
            more = f"[{draw(BLANKS)}{header}{draw(BLANKS)}]" if form == 4 else f"[[{header}]]"
        more = text + more + draw(st.sampled_from(["\n", " # comment = [\n"])) + draw(LINES)
        try:
            tomli.loads(more)
        except tomli.TOMLDecodeError:
            continue  # a key twice
        text = more
    return text


def _places(value: Any, where: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, each in pairs:
        found += [((*where, key), each), *_places(each, (*where, key))]
    return found


@pytest.mark.slow
@settings(max_examples=300)
@given(documents())
def test_every_key_has_a_place_and_the_text_there_is_that_key_and_that_value(text: str) -> None:
    read = tomli.loads(text)
    found = positions(text)
    assert {where for where, _ in _places(read)} == set(found)
    for where, value in _places(read):
        key, span = (text[slice(*each)] for each in found[where])
        if isinstance(where[-1], str):
            assert list(tomli.loads(f"{key} = 0")) == [where[-1]]
        if key != span or not isinstance(value, dict | list):
            again = tomli.loads(f"value = {span}")["value"]
            assert again == value or repr(again) == repr(value)  # nan


def test_a_table_stands_where_its_own_header_is_not_where_a_part_of_it_comes_first() -> None:
    text = "[a.b]\nx = 1\n[a]\ny = 2\n"
    assert text[positions(text)["a",].key[0] :].startswith("a]\ny")


def test_items_of_arrays_of_tables_are_counted_each_in_its_own() -> None:
    text = "[[a]]\n[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n[[a]]\n[[a.b]]\nx = 3\n"
    found = positions(text)
    values = {where: text[slice(*found[where].value)] for where in found if where[-1] == "x"}
    assert values == {("a", 0, "b", 0, "x"): "1", ("a", 0, "b", 1, "x"): "2", ("a", 1, "b", 0, "x"): "3"}


def test_a_dotted_key_is_read_up_to_what_follows_it() -> None:
    assert dotted_key('a . "b.c".d = 3') == (("a", "b.c", "d"), 11)
    assert dotted_key("= 3") is None
    assert dotted_key("a.=3") is None
