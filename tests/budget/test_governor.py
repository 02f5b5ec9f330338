from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from thriftune.budget.governor import Governor, Overheads
from thriftune.clock import ManualClock

NOTHING = Overheads(validation=0.0, validate_every=100, checkpoint=0.0, checkpoint_every=30.0)


def governor(remaining: float, full: int = 1000, tail: float = 5.0) -> Governor:
    return Governor(remaining=lambda: remaining, tail_seconds=tail, full_steps=full, overheads=NOTHING)


def test_an_ample_limit_plans_every_step():
    assert governor(10_000).planned(0.1) == 1000


def test_a_tight_limit_plans_what_fits_beside_the_tail():
    planned = governor(25).planned(0.1)
    assert 180 < planned <= 200


def test_what_follows_training_is_never_spent_on_steps():
    assert governor(4).planned(0.1) == 0


def test_small_deviations_leave_the_plan_alone():
    tight = governor(25)
    planned = tight.planned(0.1)
    assert tight.review(0, planned, 0.102) is None


def test_a_slower_machine_shortens_the_plan_and_a_faster_one_lengthens_only_a_cut_plan():
    tight = governor(25)
    planned = tight.planned(0.1)
    assert tight.review(0, planned, 0.2) < planned
    assert tight.review(0, planned, 0.05) > planned
    assert replace(tight, full_steps=planned).review(0, planned, 0.05) is None


def test_a_last_step_that_does_not_fit_is_not_taken_from_what_follows():
    """Each of two long steps to go fits by itself; both do not, and a step is more than the dead band."""
    long = governor(5.0 + 1.9 * 6.0)
    assert long.review(38, 40, 6.0) == 39


def test_a_validation_just_before_the_end_is_paid_before_a_step_beyond_it():
    """Two steps fit, and so does a tenth of the validation between them, but not the whole of it."""
    validating = Overheads(validation=10.0, validate_every=10, checkpoint=0.0, checkpoint_every=30.0)
    assert replace(governor(5.0 + 4.2), overheads=validating).review(9, 11, 1.0) == 10
    assert replace(governor(5.0 + 12.5), overheads=validating).review(9, 11, 1.0) is None


@given(
    st.floats(5, 500),
    st.floats(0.01, 1.0),
    st.lists(st.floats(0.3, 3.0), min_size=1, max_size=30),
)
def test_training_ends_before_the_tail_must_begin_however_the_machine_wavers(limit, step_seconds, speeds):
    """Steps are taken as the loop takes them: one is begun only while the governor still plans it."""
    clock = ManualClock()
    end = clock.now() + limit
    watch = Governor(lambda: end - clock.now(), tail_seconds=3.0, full_steps=5000, overheads=NOTHING)
    planned, step, last = watch.planned(step_seconds), 0, step_seconds
    while step < planned:
        last = step_seconds * speeds[step % len(speeds)]
        clock.advance(last)
        step += 1
        planned = watch.review(step, planned, last) or planned
        if watch.remaining() < 3.0 + step_seconds * 3.0:
            break
    assert end - clock.now() >= 3.0 - step_seconds * 3.0
