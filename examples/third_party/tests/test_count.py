from types import SimpleNamespace

from trainkit_example.count import LiveCount


def test_a_restored_count_goes_on():
    seen = []
    state = SimpleNamespace(batch={"index": range(8)}, log=lambda name, value: seen.append(value))
    first, second = LiveCount(), LiveCount()
    first.on_step_end(state)
    second.load_state_dict(first.state_dict())
    second.on_step_end(state)
    assert seen == [8, 16]
