"""The one rule from tables to settings, on settings classes as unlike each other as plugins may write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

import attrs
import pytest
from attrs import validators
from recipe_toys import GOOD, toys

from trainkit import Context, Hook, MetricName, RecipeError, Scheduler, aliases, component, registry
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import Resolved, resolve, resolve_text, write
from trainkit.recipe.shipped import shipped
from trainkit.recipe.source import PathString
from trainkit.recipe.tables import walk_settings
from trainkit.recipe.wording import reword_validator

if TYPE_CHECKING:
    from decimal import Decimal


@component
class Inner:
    """Settings without a kind."""

    size: int = 1
    names: tuple[MetricName, ...] = ()


@component
class Odd(Hook):
    """Fields of every sort."""

    number_or_schedule: float | Scheduler = 0.5
    one_or_many: int | list[int] = 1
    word_or_truth: bool | str = "auto"
    old_style: Optional[Union[int, str]] = None  # noqa: UP007, UP045 (plugins may write it so)
    inner: Inner = attrs.Factory(Inner)
    inners: Sequence[Inner] = ()
    plain_list: list[Any] = attrs.Factory(list)
    folder: Path = Path("somewhere")
    folders: Mapping[str, Path] = attrs.Factory(dict)
    level: Literal[1, 2, "high"] = 1
    rounded: float = attrs.field(default=0.0, converter=round, validator=attrs.validators.le(3))
    upper: int = 5
    lower: int = attrs.field(default=0)
    _hidden: int = 3
    counted: int = attrs.field(default=7, init=False)

    @lower.validator
    def _below(self, attribute: attrs.Attribute[int], value: int) -> None:
        if value > self.upper:
            raise ValueError(f"must not be above upper ({self.upper}), got {value}")

    def build(self, context: Context) -> object:
        raise NotImplementedError


@component
class Late(Hook):
    """Judges itself as a whole."""

    a: int = 0

    def __attrs_post_init__(self) -> None:
        if self.a == 3:
            raise RuntimeError("three is too much")

    def build(self, context: Context) -> object:
        raise NotImplementedError


@component
class TypesMissing(Hook):
    """Its field's type is only there for type checkers."""

    price: Decimal

    def build(self, context: Context) -> object:
        raise NotImplementedError


@component
class TypeUnknown(Hook):
    """Its field's type is none that TOML can hold."""

    point: complex = 0j

    def build(self, context: Context) -> object:
        raise NotImplementedError


@pytest.fixture(scope="module", autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with toys(tmp_path_factory.mktemp("toys")):
        yield


def resolved(*lines: str, use: str = "Odd", base: str = GOOD) -> Resolved:
    text = "\n".join([base, "[hooks.h]", f'use = "{__name__}:{use}"', *lines])
    return resolve_text(text, Path("/recipes"), source="x")


def odd(*lines: str) -> Odd:
    found = resolved(*lines)
    assert resolve_text(write(found.tree), Path("/elsewhere")).recipe == found.recipe
    hook = found.recipe.hooks["h"]
    assert isinstance(hook, Odd)
    return hook


def said(*lines: str, use: str = "Odd", base: str = GOOD) -> list[str]:
    with pytest.raises(InvalidRecipe) as caught:
        resolved(*lines, use=use, base=base)
    return [str(finding).splitlines()[0].split(": error: ")[1] for finding in caught.value.findings]


def test_a_value_of_a_union_becomes_the_member_that_it_is() -> None:
    assert odd("number_or_schedule = 1").number_or_schedule == 1.0
    assert type(odd("number_or_schedule.use = 'flat'").number_or_schedule).__name__ == "Flat"
    assert odd("one_or_many = [1, 2]").one_or_many == [1, 2]
    assert (odd("word_or_truth = false").word_or_truth, odd("word_or_truth = 'x'").word_or_truth) == (False, "x")
    assert (odd("old_style = 3").old_style, odd("old_style = 'x'").old_style, odd().old_style) == (3, "x", None)


def test_a_component_in_a_union_is_among_those_used() -> None:
    used = resolved("number_or_schedule = { use = 'flat' }").used
    assert ("hooks.h.number_or_schedule", "trainkit.schedulers", "flat", "toy", "1.0") in map(attrs.astuple, used)


def test_a_value_that_fits_no_member_names_them_all() -> None:
    assert said("number_or_schedule = 'x'", "one_or_many = { a = 1 }", "word_or_truth = 1") == [
        'hooks.h.number_or_schedule: must be a number or a table with "use", got "x"',
        "hooks.h.one_or_many: must be a whole number or a list, each item a whole number, got a table",
        "hooks.h.word_or_truth: must be true or false or a string, got 1",
    ]


def test_settings_within_settings_are_read_and_judged_with_their_path() -> None:
    assert odd("inner.size = 3", "inners = [{ size = 4 }, {}]").inners == (Inner(size=4), Inner())
    assert said("inner.siz = 3", "inners = [{}, { size = 'x' }, 3]", "inner.names = ['val/los']") == [
        "hooks.h.inner.siz: unknown key",
        'hooks.h.inners[1].size: must be a whole number, got "x"',
        "hooks.h.inners[2]: must be a table, got 3",
        'hooks.h.inner.names[0]: no value "val/los" is computed',
    ]


def test_paths_become_absolute_defaults_too() -> None:
    hook = odd("folders = { a = 'x/../y', b = '/z' }")
    assert hook.folders == {"a": Path("/recipes/y"), "b": Path("/z")}
    assert hook.folder == Path.cwd() / "somewhere"


def test_a_literal_takes_its_values_alone() -> None:
    assert (odd("level = 2").level, odd("level = 'high'").level) == (2, "high")
    assert said("level = true") == ['hooks.h.level: must be one of 1, 2, "high", got true']


def test_converters_run_before_validators_and_private_fields_have_their_public_name() -> None:
    assert odd("rounded = 3.2", "hidden = 4") == Odd(rounded=3.2, hidden=4, folder=Path.cwd() / "somewhere")
    assert said("rounded = 3.7") == ["hooks.h.rounded: must be at most 3, got 4"]
    assert said("_hidden = 4", "counted = 3") == ["hooks.h._hidden: unknown key", "hooks.h.counted: unknown key"]


@pytest.mark.parametrize(
    ("validator", "value", "message"),
    [
        (validators.ge(1), 0, "must be at least 1, got 0"),
        (validators.optional(validators.gt(0.0)), -1e-3, "must be above 0.0, got -0.001"),
        (validators.and_(validators.ge(1), validators.le(32)), 33, "must be at most 32, got 33"),
        (validators.lt(0.5), 0.5, "must be below 0.5, got 0.5"),
        (validators.min_len(2), [1], "must have a length of at least 2, got 1"),
        (validators.in_((1, 2, 4)), 3, "must be one of 1, 2, 4, got 3"),
        (validators.in_(("a", "b")), "c", 'must be one of "a", "b", got "c"'),
        (validators.matches_re("[a-z]+"), "A", 'must match the pattern [a-z]+, got "A"'),
        (validators.deep_iterable(validators.ge(0)), [1, -1], "must be at least 0, got -1"),
    ],
)
def test_what_attrs_validators_say_is_worded_like_all_else(validator: Any, value: Any, message: str) -> None:
    cls = attrs.make_class("Settings", {"size": attrs.field(validator=validator)})
    with pytest.raises(ValueError, match="must") as caught:
        cls(size=value)
    assert reword_validator(caught.value, attrs.fields(cls).size) == message


def test_a_validator_speaks_although_another_field_is_wrong_but_not_about_one_that_is() -> None:
    assert said("lower = 9", "level = 5") == [
        "hooks.h.lower: must not be above upper (5), got 9",
        'hooks.h.level: must be one of 1, 2, "high", got 5',
    ]
    assert said("lower = 9", "upper = 'x'") == ['hooks.h.upper: must be a whole number, got "x"']


def test_whatever_a_settings_class_does_wrong_is_a_message() -> None:
    assert said("a = 3", use="Late") == ["hooks.h: three is too much"]
    assert "'Decimal' is not defined at run time" in said(use="TypesMissing")[0]
    assert said("point = 3", use="TypeUnknown")[0].startswith("hooks.h.point: ")


def test_no_string_of_the_recipe_keeps_its_folder() -> None:
    found = resolved("plain_list = ['a', { b = 'c' }]", "old_style = 'x'", "folders = { a = 'b' }")

    def strings(value: Any) -> Iterator[Any]:
        if isinstance(value, Mapping):
            for key, each in value.items():
                yield from (key, *strings(each))
        elif isinstance(value, list | tuple):
            for each in value:
                yield from strings(each)
        elif attrs.has(type(value)):
            for field in attrs.fields(type(value)):
                yield from strings(getattr(value, field.name))
        elif isinstance(value, str):
            yield value

    everywhere = [*strings(found.recipe), *strings(found.tree)]
    assert {"a", "c", "x"} <= set(everywhere)
    assert not [each for each in everywhere if isinstance(each, PathString)]


def test_parts_are_all_settings_with_their_places() -> None:
    places = {where for where, _, _ in walk_settings(resolved("inners = [{}]").recipe)}
    assert {(), ("run",), ("model", "shape"), ("hooks", "h", "inner"), ("hooks", "h", "inners", 0)} <= places


# ---- no false alarm from what could not be read ---------------------------------------------------------------------


def test_rules_are_silent_about_what_could_not_be_read() -> None:
    wrong_epochs = GOOD.replace("epochs = 10", "epochs = 'x'") + "[groups.body]\nstart_epoch = 50\n"
    assert said(base=wrong_epochs) == ['run.epochs: must be a whole number, got "x"']
    wrong_loss = GOOD.replace('"square"', '"squar"') + '[monitor]\nmetric = "val/data"\n'
    assert [each[:15] for each in said(base=wrong_loss)] == ["losses.data.use"]
    wrong_model = GOOD.replace('"line"', '"lin"') + "[groups.any]\nlr = 1\n"
    assert [each[:9] for each in said(base=wrong_model)] == ["model.use"]
    wrong_start = GOOD + "[groups.head]\nlr = 1\nstart_epoch = 'x'\nstop_epoch = 3\n"
    assert said(base=wrong_start) == ['groups.head.start_epoch: must be a whole number, got "x"']
    wrong_optimizer = GOOD.replace('"steep"', '"stee"') + "[groups.body]\nanything = 1\n"
    assert [each[:13] for each in said(base=wrong_optimizer)] == ["optimizer.use"]


def test_rules_speak_about_all_else() -> None:
    base = GOOD.replace('"flat"', '"fla"') + "[groups.body]\nlr = -1\nstart_epoch = 50\n[groups.hed]\nlr = 1\n"
    assert said("lower = 9", base=base) == [
        'scheduler.use: no component "fla" is registered in trainkit.schedulers',
        "groups.body.lr: must be at least 0, got -1.0",
        "groups.body.start_epoch: the run ends before: it has 10 epochs",
        "groups.hed: the model has no such group",
        "hooks.h.lower: must not be above upper (5), got 9",
    ]


@pytest.mark.parametrize("name", ["ReduceLROnPlateau", "plateau", "reduce-on-plateau"])
def test_a_name_from_another_program_is_taken_for_the_one_here_and_that_is_said(name: str, tmp_path: Path) -> None:
    text = shipped()["segmentation_synthetic"].read_text().replace('use = "unet"', 'use = "UNet"')
    found = resolve_text(text, tmp_path, (f"scheduler.use={name}",))
    assert registry.name_of(type(found.recipe.scheduler)) == "reduce_on_plateau"
    assert registry.name_of(type(found.recipe.model)) == "unet"
    said = "\n".join(str(note) for note in found.notes)
    assert f'scheduler.use: "{name}" is taken for "reduce_on_plateau"' in said
    assert 'model.use: "UNet" is taken for "unet"' in said
    again = resolve_text(write(found.tree), tmp_path, (), resolved=True)
    assert again.recipe == found.recipe
    with pytest.raises(InvalidRecipe, match="did you mean"):
        resolve_text(text, tmp_path, ("scheduler.use=reduce_on_platoon",))


_TABLES = {
    "trainkit.schedulers": "scheduler",
    "trainkit.optimizers": "optimizer",
    "trainkit.losses": "losses.other",
    "trainkit.metrics": "metrics.other",
    "trainkit.models": "model",
    "trainkit.data": "data",
    "trainkit.hooks": "hooks.other",
}


@pytest.mark.measured_every(10)
@pytest.mark.parametrize(
    ("table", "names", "way"),
    [
        (_TABLES[kind], [name for name, each in ways.items() if each == way], way)
        for kind, ways in aliases._WAYS.items()
        for way in dict.fromkeys(ways.values())
    ],
)
def test_what_is_advised_instead_of_a_name_is_what_a_recipe_can_hold(table: str, names: list[str], way: str) -> None:
    written, _, _ = way.partition(";")
    sets = [f"{table}={{ {written} }}" if written.startswith("use") else written, "run.epochs=100"]
    if " = " not in written:  # a sentence
        sets = []
    elif table == "metrics.other":  # two metrics of the same values are refused
        sets[0] = sets[0].replace("other", written.split('"')[1])
    mistakes = []
    for path in (shipped()["segmentation_synthetic"], shipped()["ptycho_staged"]):
        for name in names:
            with pytest.raises(RecipeError) as said:
                resolve(path, (f"{table}.use={name}",))
            assert way in str(said.value)
        try:
            resolve(path, sets)
        except RecipeError as error:
            mistakes.append(error)
    assert len(mistakes) < 2, mistakes  # what it advises fits the recipes of one field at least


def test_every_alias_means_a_component_that_there_is() -> None:
    kinds = [{each.name for each in registry.registered(group)} for group in registry.entry_point_groups()]
    for alias, name in aliases._ALIASES.items():
        assert any(name in known for known in kinds)
        assert not any({alias, name} <= known for known in kinds)
