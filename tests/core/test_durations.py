"""The list of tests that are not fast."""

from __future__ import annotations

import durations


def test_the_list_names_tests_that_there_are() -> None:
    listed = durations.LIST.read_text(encoding="utf-8").splitlines()
    assert listed == sorted(set(listed))
    assert durations.gone(listed) == [], "take these lines out of tests/not_fast.txt, or give them their new names"


def test_a_name_that_is_gone_is_found() -> None:
    here = "tests/core/test_durations.py"
    names = [f"{here}::test_a_name_that_is_gone_is_found", f"{here}::test_of_yesterday", "tests/core/gone.py::test_it"]
    assert durations.gone(names) == names[1:]


def test_what_was_measured_is_brought_up_to_date_and_the_rest_stays() -> None:
    listed = ["quick by now", "about as slow as before", "not measured"]
    measured = {"quick by now": 0.02, "about as slow as before": 0.045, "new and slow": 0.06, "new and quick": 0.045}
    assert durations.renewed(listed, measured) == ["about as slow as before", "new and slow", "not measured"]
