"""References to environment variables and to other settings, and that values of the former are not written down."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli
from recipe_toys import GOOD, toys

from trainkit.printable import printable
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.references import variables
from trainkit.recipe.resolve import Resolved, resolve, resolve_text, write

SECRET = "k3y-of-mine"


@pytest.fixture(scope="module", autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with toys(tmp_path_factory.mktemp("toys")):
        yield


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("API_KEY", SECRET)
    monkeypatch.setenv("DATA_ROOT", "/data")
    monkeypatch.setenv("BATCH", "8")


def resolved(text: str, *sets: str) -> Resolved:
    Path("x.toml").write_text(text)
    return resolve("x.toml", sets)


def again(found: Resolved, *sets: str) -> Resolved:
    """The recipe as a checkpoint gives it back."""
    return resolve_text(write(found.tree), Path("/elsewhere"), sets, resolved=True)


def test_a_value_of_the_environment_is_used_and_only_its_reference_is_written() -> None:
    text = (
        GOOD + '[data.extra]\nkey = "${env.API_KEY}"\nurl = ["user:${env.API_KEY}@${run.seed}", "${data.extra.key}"]\n'
    )
    found = resolved(text)
    extra = found.recipe.data.extra  # type: ignore[attr-defined]
    assert extra == {"key": SECRET, "url": [f"user:{SECRET}@0", SECRET]}
    assert found.tree["data"]["extra"] == {"key": "${env.API_KEY}", "url": ["user:${env.API_KEY}@0", "${env.API_KEY}"]}
    assert SECRET not in write(found.tree)
    assert variables(found.tree) == {"API_KEY": ("data", "extra", "key")}


def test_it_is_read_again_from_a_resolved_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolved(GOOD + '[data.extra]\nkey = "${env.API_KEY}"\n')
    monkeypatch.setenv("API_KEY", "another-key")
    assert again(found).recipe.data.extra == {"key": "another-key"}  # type: ignore[attr-defined]
    assert again(found).tree == found.tree
    monkeypatch.delenv("API_KEY")
    with pytest.raises(InvalidRecipe, match=r"data.extra.key: the environment variable API_KEY is not set"):
        again(found)


def test_in_a_path_and_in_a_number_it_has_their_types() -> None:
    text = GOOD.replace('use = "points"', 'use = "points"\npath = "${env.DATA_ROOT}/a.h5"\nbatch_size = "${env.BATCH}"')
    found = resolved(text, "run.dir=out/${env.BATCH}")
    data = found.recipe.data
    assert (data.path, data.batch_size) == (Path("/data/a.h5"), 8)  # type: ignore[attr-defined]
    assert found.tree["data"]["path"] == "${env.DATA_ROOT}/a.h5"
    assert found.tree["data"]["batch_size"] == "${env.BATCH}"
    assert found.tree["run"]["dir"] == f"{Path.cwd()}/out/${{env.BATCH}}"
    assert again(found).recipe == found.recipe
    with pytest.raises(
        InvalidRecipe, match=r"x.toml:6:8: error: data.path: the environment variable NO_ROOT is not set"
    ):
        resolved(text.replace("DATA_ROOT", "NO_ROOT"))
    with pytest.raises(InvalidRecipe, match=r"data.batch_size: must be a whole number"):
        resolved(text.replace("env.BATCH", "env.API_KEY"))


def test_no_message_shows_a_secret() -> None:
    with pytest.raises(InvalidRecipe) as caught:
        resolved(GOOD, "run.device=${env.API_KEY}")
    assert SECRET not in str(caught.value)
    assert "${env.API_KEY}" in str(caught.value)
    resolved(GOOD, "data.extra.x=${env.API_KEY}")
    assert printable(f"401 for https://{SECRET}@host") == "401 for https://${env.API_KEY}@host"


def test_no_message_shows_a_secret_of_a_list_inside_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "key-in-a-list")  # another one: what is hidden stays hidden
    resolved(GOOD + '[data.extra]\nurl = [{ of = ["user:${env.API_KEY}@"] }]\n')
    assert printable("401 for user:key-in-a-list@host") == "401 for user:${env.API_KEY}@host"


def test_it_is_in_no_name_of_a_run_since_its_folder_shows_the_name() -> None:
    with pytest.raises(InvalidRecipe, match=r"run.name: the run folder has this name(.|\n)*run.name=\"a_\$\{BATCH\}\""):
        resolved(GOOD, "run.name=a_${env.BATCH}")
    older = write(resolved(GOOD).tree).replace('name = "x"', 'name = "a_${env.BATCH}"')
    assert resolve_text(older, Path.cwd(), resolved=True).recipe.run.name == "a_8"  # a run of an older version resumes


def test_two_dollars_stand_for_the_characters_themselves_and_survive() -> None:
    found = resolved(GOOD + '[data.extra]\na = "$${run.name} $$${x} $$ ${run.seed}$"\n')
    assert found.recipe.data.extra == {"a": "${run.name} $${x} $$ 0$"}  # type: ignore[attr-defined]
    assert again(found).recipe == found.recipe
    assert again(again(found)).tree == found.tree
    assert resolve_text(write(found.tree), Path.cwd()).recipe == found.recipe


def test_a_resolved_recipe_names_no_other_file_and_no_other_setting(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("password: open sesame\n")
    with pytest.raises(InvalidRecipe) as caught:
        resolve_text(f'extends = ["{tmp_path}/secret.txt"]\ndrop = ["x"]\n' + GOOD, tmp_path, resolved=True)
    assert "sesame" not in str(caught.value)
    assert str(caught.value).count("unknown key") == 2
    text = write(resolved(GOOD).tree) + '[data.extra]\na = "${run.name} ${x"\n'
    found = resolve_text(text.replace("[data.extra]\n\n", ""), tmp_path, ["run.name=n${run.seed}"], resolved=True)
    assert found.recipe.data.extra == {"a": "${run.name} ${x"}  # type: ignore[attr-defined]
    assert found.recipe.run.name == "n0"
    assert tomli.loads(write(found.tree))["data"]["extra"]["a"] == "$${run.name} $${x"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ('"$DATA_ROOT/x"', r'\$DATA_ROOT is taken literally(.|\n)*write "\$\{env.DATA_ROOT\}"'),
        ('"a/$${DATA_ROOT}/x"', r'\$\{DATA_ROOT\} is taken literally(.|\n)*write "\$\{env.DATA_ROOT\}"'),
        ('"${env}/x"', r'"\$\{env\}" names no environment variable'),
        ('"${env.a-b}/x"', r'"\$\{env.a-b\}" names no environment variable'),
        (r'"D:\new\train"', "contains a line break(.|\n)*single quotes"),
        (r'"C:\data\train"', "this is not TOML(.|\n)*single quotes"),
        ('"~nobody-is-here/x"', "no file can have this name"),
    ],
)
def test_paths_with_slips_are_pointed_out(path: str, message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        resolved(GOOD.replace('use = "points"', f'use = "points"\npath = {path}'))


def test_a_folder_whose_name_has_a_dollar_is_taken() -> None:
    Path("$DATA_ROOT").mkdir()
    found = resolved(GOOD.replace('use = "points"', 'use = "points"\npath = "$DATA_ROOT"'))
    assert again(found).recipe == found.recipe


@pytest.mark.parametrize("text", ["nan", "7", "1e3", "true", "2026", "a b"])
def test_what_looks_like_a_number_on_the_command_line_is_a_string_where_one_is_wanted(text: str) -> None:
    found = resolved(GOOD, f"run.name={text}", f"data.path={text}")
    assert found.recipe.run.name == text
    assert found.recipe.data.path == Path.cwd() / text  # type: ignore[attr-defined]
    with pytest.raises(InvalidRecipe, match=r"run.name: must be a string, got 7"):
        resolved(GOOD.replace("epochs = 10", "epochs = 10\nname = 7"))
