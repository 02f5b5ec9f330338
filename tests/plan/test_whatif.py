"""What if: limits as asked, the rows that fit, what earlier attempts reached, and the answer in sentences."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.budget.forecast import Forecast
from thriftune.cli.whatif import parse_question
from thriftune.errors import BadInput
from thriftune.plan.plan import Limits, Part, Plan
from thriftune.plan.whatif import Answer, Question, asked_limits, most_rows, reached

NOW = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
LIMITS = Limits(10.0, 3600.0, 500.0, Decimal(1), "USD", Decimal(1), 100.0, Decimal(1))


def plan(seconds: float, limits: Limits = LIMITS, steps: int = 100, planned: int = 100) -> Plan:
    part = Part("training", "train", Forecast.exact(seconds, "probe"), Forecast.exact(min(seconds, 30.0), "probe"))
    return Plan((part,), limits, full_steps=steps, planned_steps=planned)


# The question


def test_options_that_are_not_given_ask_nothing() -> None:
    assert not parse_question(None, None, None, None).asks
    asked = parse_question("$2.50", "1h 30m", "0.9", "12,000")
    assert asked == Question(Decimal("2.50"), timedelta(minutes=90), 0.9, 12_000)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--budget", "much"),
        ("--budget", "0"),
        ("--budget", "-1"),
        ("--budget", "1e-12"),
        ("--deadline", "soon"),
        ("--deadline", "0s"),
        ("--deadline", "2020-01-01"),
        ("--target", "high"),
        ("--target", "nan"),
        ("--target", "inf"),
        ("--target", "-0.1"),
        ("--rows", "0"),
        ("--rows", "9"),
        ("--rows", "1.5"),
        ("--rows", "99999999999999"),
        ("--rows", "٣٠"),
    ],
)
def test_a_value_that_cannot_be_asked_is_named_with_its_option(option: str, text: str) -> None:
    given_ = {"--budget": None, "--deadline": None, "--target": None, "--rows": None} | {option: text}
    with pytest.raises(BadInput) as caught:
        parse_question(*given_.values())
    assert (caught.value.where, caught.value.found) == (option, text)
    assert caught.value.expected


@given(st.text(max_size=12))
def test_no_text_gives_anything_but_a_question_or_a_message(text: str) -> None:
    for place in range(4):
        values: list[str | None] = [None] * 4
        values[place] = text
        try:
            assert parse_question(*values).asks
        except BadInput as refusal:
            assert refusal.exit_code == 2


# The limits


def test_a_larger_budget_leaves_what_it_adds_and_a_smaller_one_than_was_spent_leaves_nothing() -> None:
    more = asked_limits(LIMITS, Question(budget=Decimal(7)), Decimal(4), False, NOW)
    assert more.money_left == Decimal(4)  # 3 of 4 are spent
    assert more.money_seconds == 4 * 3600
    assert asked_limits(LIMITS, Question(budget=Decimal(2)), Decimal(4), False, NOW).money_left == 0
    assert more.time_seconds == LIMITS.time_seconds


def test_a_duration_counts_from_the_first_run_where_there_was_one_and_else_from_now() -> None:
    asked = Question(deadline=timedelta(seconds=1000))
    assert asked_limits(LIMITS, asked, Decimal(4), True, NOW).time_seconds == 1000 - 10 - 100
    assert asked_limits(LIMITS, asked, Decimal(4), False, NOW).time_seconds == 1000 - 10
    date = Question(deadline=datetime(2026, 11, 25, 1, tzinfo=UTC))
    assert asked_limits(LIMITS, date, Decimal(4), True, NOW).time_seconds == 3600


# The answer


@given(st.integers(20, 100_000), st.floats(1, 10_000))
def test_the_rows_that_fit_do_and_a_few_more_do_not(rows: int, room: float) -> None:
    def plan_of(number: int) -> Plan:
        return plan(float(number), replace(LIMITS, time_seconds=room))

    found = most_rows(plan_of, rows)
    assert found is not None
    assert plan_of(found).fits_whole or found == 1
    if not plan_of(rows).fits_whole:
        assert not plan_of(found + max(1, found // 100) + 1).fits_whole


def test_each_outcome_says_what_the_plan_would_be() -> None:
    before = plan(100.0)
    whole = Answer(Question(rows=50), before, plan(50.0), (100, 50), 3)
    assert whole.outcome == "whole"
    assert any("50 rows instead of 100" in said for said in whole.said())
    assert any("all 100 steps (3 epochs) would fit" in said for said in whole.said())
    short = replace(LIMITS, time_seconds=60.0)
    cut = Answer(Question(deadline=timedelta(seconds=70)), before, plan(100.0, short, 100, 50), (100, 100), 2, 55)
    assert cut.outcome == "cut"
    assert any("50 of 100 steps, 1.0 of 2 epochs; up to 55 rows would fit whole" in said for said in cut.said())
    none = Answer(Question(budget=Decimal(1)), before, plan(100.0, replace(LIMITS, time_seconds=5.0)), (100, 100), 2)
    assert none.outcome == "not feasible"
    assert any("the least that works is a budget of" in said for said in none.said())


def test_where_what_nobody_measured_decides_the_outcome_is_in_doubt() -> None:
    part = Part("evaluation", "report", Forecast.lognormal(50.0, 1.0, "prior"))
    doubt = Answer(Question(budget=Decimal(1)), plan(9.0), Plan((part,), replace(LIMITS, time_seconds=40.0)), (9, 9), 1)
    assert doubt.outcome == "in doubt"
    assert any("in doubt; what would do is a budget of" in said for said in doubt.said())


@dataclass(frozen=True)
class Recorded:
    attempt: int
    kind: str
    data: dict[str, Any] = field(default_factory=dict)


def validation(attempt: int, step: int, value: float) -> Recorded:
    return Recorded(attempt, "training.validation", {"step": step, "loss": 1 - value, "metrics": {"f1_macro": value}})


def test_what_earlier_attempts_reached_is_read_from_their_events() -> None:
    scores = {
        "predictor": "tuned",
        "split": "test",
        "metrics": {"f1_macro": {"value": 0.81, "low": 0.78, "high": 0.84}},
    }
    events = [
        validation(1, 10, 0.5),
        validation(1, 20, 0.7),
        validation(2, 10, 0.6),
        validation(2, 20, 0.83),
        validation(2, 30, 0.82),
        Recorded(2, "evaluation.scores", scores),
        Recorded(
            2, "evaluation.scores", {"predictor": "tfidf", "split": "test", "metrics": {"f1_macro": {"value": 0.9}}}
        ),
        Recorded(3, "decision"),
    ]
    second, first = reached(events, "f1_macro", 0.8)
    assert (second.attempt, second.value, second.step, second.steps, second.best) == (2, 0.81, 20, 30, 0.83)
    assert (first.attempt, first.value, first.step, first.best) == (1, None, None, 0.7)
    assert reached(events, "loss", 0.4)[0].step == 10  # lower is better
    answer = Answer(
        Question(target=0.8),
        plan(9.0),
        plan(9.0),
        (100, 100),
        1,
        None,
        "f1_macro",
        (second, first),
        plan(4.0, planned=20),
    )
    told = " ".join(answer.said())
    assert "0.810 (0.780 to 0.840) on the test rows, which meets it; validation was there at step 20 of 30" in told
    assert "validation never got there, 0.700 at best" in told
    assert "as many steps (20) would take 4 s" in told


def test_with_no_attempt_behind_it_a_target_is_held_against_nothing() -> None:
    answer = Answer(Question(target=0.8), plan(9.0), plan(9.0), (100, 100), 1, metric="f1_macro")
    assert "no earlier attempt" in answer.said()[-1]
