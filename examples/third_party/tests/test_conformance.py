"""trainkit's own suite, over all parts of this package."""

import pytest
from trainkit.testing import cases


@pytest.mark.parametrize("case", cases("trainkit-example"), ids=str)
def test_conformance(case):
    case.check()
