import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.train.schedule import DECAYS, Pace, rate_factor


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_rate_warms_up_and_ends_at_zero(decay):
    assert rate_factor(0.0, 0.1, decay) == 0
    assert rate_factor(0.1, 0.1, decay) == pytest.approx(1)
    assert rate_factor(1.0, 0.1, decay) == pytest.approx(0)


@given(st.floats(0, 1), st.floats(0, 0.9), st.sampled_from(sorted(DECAYS)))
def test_the_factor_stays_between_zero_and_one(progress, warmup, decay):
    assert 0 <= rate_factor(progress, warmup, decay) <= 1 + 1e-12


@given(
    st.integers(2, 500),
    st.lists(st.tuples(st.integers(0, 499), st.integers(1, 1000)), min_size=1, max_size=4),
    st.sampled_from(sorted(DECAYS)),
)
def test_a_refit_bends_the_rate_of_every_schedule_without_a_jump_and_still_reaches_its_end(planned, refits, decay):
    pace, begun = Pace(planned), 0
    for step, more in refits:
        at = max(begun, min(step, pace.planned - 1))
        refitted = pace.refitted(at, at + more)
        assert refitted.progress(at) == pace.progress(at)
        assert rate_factor(refitted.progress(at), 0.1, decay) == rate_factor(pace.progress(at), 0.1, decay)
        assert refitted.progress(at + more) == 1
        pace, begun = refitted, at
    assert rate_factor(pace.progress(pace.planned), 0.1, decay) == rate_factor(1.0, 0.1, decay)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100)), max_size=8))
def test_progress_never_falls(refits):
    pace, step, seen = Pace(60), 0, [0.0]
    for ahead, more in refits:
        step = min(step + ahead, pace.planned)
        seen.append(pace.progress(step))
        pace = pace.refitted(step, step + more)
        seen.append(pace.progress(step))
    assert seen == sorted(seen)


def test_a_plan_cannot_end_in_the_past():
    with pytest.raises(ValueError, match="cannot plan"):
        Pace(10).refitted(5, 4)
