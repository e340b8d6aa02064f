import pytest

from trainkit_example.halving import Halving


def test_the_rate_is_halved_at_each_interval():
    rates = [Halving(every=3).at(t, 10, 0.4, {}).lr for t in range(7)]
    assert rates == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1])
