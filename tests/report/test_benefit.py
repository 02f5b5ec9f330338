"""Cost against benefit, held against figures worked out by hand."""

import io
import math
from dataclasses import replace
from decimal import Decimal

import pytest
from recorded_run import STARTED, Recorder, Story, record
from rich.console import Console

from thriftune.project.file import Horizon
from thriftune.project.file import Worth as StatedWorth
from thriftune.report.benefit import benefit_of
from thriftune.report.benefit_said import tables
from thriftune.report.discounting import counted_periods, periods_to_earn
from thriftune.report.energy import MeasuredEnergy
from thriftune.report.form import to_json
from thriftune.report.html import to_html
from thriftune.report.load import load_report
from thriftune.report.model import Estimate, Power, Return, Scores, TimeUse, TrainingStep, Validation, Worth
from thriftune.report.previous import difference
from thriftune.report.returns import returns
from thriftune.report.terminal import show

MONTH = 30.4375 * 86_400
MONTHLY = Worth(Decimal(300), "month", "12 months", Decimal(12), 0.0, 1 / 12)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A report of a run that was recorded through ledger and meter."""
    store, story = record(tmp_path_factory.mktemp("run"), Story())
    summary = replace(story.summary(), worth=replace(MONTHLY, discount=0.08), power=Power(150, 473))
    yield load_report(store, summary)
    store.close()


def reckoned(report, **changes):
    """The report with a gain of 5 (2 to 8) points for 30 dollars, and what follows."""
    worth = changes.pop("worth", MONTHLY)
    gain = replace(report.comparisons[0], metric="f1_macro", difference=0.05, low=0.02, high=0.08)
    project = replace(report.project, worth=worth, power=Power(200, 500))
    found = replace(report, project=project, returns=returns(gain, worth, Decimal(30)), as_of=1000.0, **changes)
    return benefit_of(found)


def test_later_money_is_counted_in_todays():
    yearly = Worth(Decimal(1), "year", "2 years", Decimal(2), 0.10, 1.0)
    assert float(counted_periods(yearly)) == pytest.approx(1 / 1.1 + 1 / 1.21)
    assert float(counted_periods(replace(yearly, periods=Decimal("2.5")))) == pytest.approx(
        1 / 1.1 + 1 / 1.21 + 0.5 / 1.1**2.5
    )
    assert counted_periods(replace(yearly, discount=0.0)) == 2
    assert periods_to_earn(yearly, 1 / 1.1 + 1 / 1.21) == pytest.approx(2)
    assert periods_to_earn(yearly, 10.0) is None  # all the future together is worth ten years' earnings
    monthly = Worth(Decimal(1), "month", "12 months", Decimal(12), 0.10, 1 / 12)
    assert float(counted_periods(monthly)) == pytest.approx(sum(1.1 ** -(month / 12) for month in range(1, 13)))


def test_requests_and_errors_are_points():
    """Of 1,000 requests a month a point is 10: each brings 0.20 and saves an error of 3.00, beside 300 a point."""
    worth = StatedWorth.model_validate(
        {"per_point": 300, "per_request": "0.20", "per_error": 3, "requests": 1000, "per": "month", "discount": "8%"}
    )
    assert worth.a_point() == Decimal(332)
    assert worth.per_point_over_horizon() == Decimal(332 * 12)
    assert worth.discount == pytest.approx(0.08)
    assert worth.horizon == Horizon(Decimal(1), "year")


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"per": "month"}, "per_point, or per_request"),
        ({"per_error": 3}, "requests in each"),
        ({"per_point": 1, "discount": 0.08}, "such as 8%"),
        ({"per_point": 1, "discount": "180%"}, "0% to 100%"),
    ],
)
def test_a_worth_that_cannot_be_reckoned_with_is_refused(stated, expected):
    with pytest.raises(ValueError, match=expected):
        StatedWorth.model_validate(stated)


def test_return_and_break_even_follow_from_gain_worth_and_cost(recorded):
    """5 points × 300 × 12 = 18,000 for 30: 599 times more than it cost; 1,500 a month pay 30 in a fiftieth of one."""
    found = reckoned(recorded)
    assert (found.roi.value, found.roi.low, found.roi.high) == pytest.approx((599, 239, 959))
    at = [found.break_even_at.low, found.break_even_at.value, found.break_even_at.high]
    assert at == pytest.approx([1000 + MONTH / 20, 1000 + MONTH / 50, 1000 + MONTH / 80])


def test_what_never_pays_has_no_date(recorded):
    gain = replace(recorded.comparisons[0], metric="f1_macro", difference=0.01, low=-0.01, high=0.03)
    costly = replace(recorded, returns=returns(gain, MONTHLY, Decimal(30)))
    assert benefit_of(replace(costly, project=replace(costly.project, worth=MONTHLY))).break_even_at.low is None
    once = replace(MONTHLY, period_years=0.0)
    assert reckoned(recorded, worth=once).break_even_at.value is None
    assert reckoned(recorded, worth=None).sensitivity == ()


def test_sensitivity_changes_one_thing_at_a_time_and_ranks_them(recorded):
    rows = {swing.what: (swing.at_low, swing.at_high) for swing in reckoned(recorded).sensitivity}
    assert rows == {
        "gain, over its interval": (Decimal(7170), Decimal(28770)),  # 2 and 8 points × 3,600, less 30
        "worth of a point": (Decimal(8970), Decimal(35970)),
        "horizon": (Decimal(8970), Decimal(35970)),
        "cost": (Decimal(17985), Decimal(17940)),
    }
    swings = [abs(high - low) for low, high in rows.values()]
    assert swings == sorted(swings, reverse=True)


def curve(report, scores, seconds=36.0):
    """A step of so many seconds and 500 tokens before each validation, at 100 an hour: 1 a step."""
    steps = tuple(TrainingStep(n, len(scores), n / 2, 1.0, 1e-4, 500, 1000, seconds) for n in range(1, len(scores) + 1))
    validations = tuple(Validation(n, 1.0, {"f1_macro": score}, False) for n, score in enumerate(scores, 1))
    cost = replace(report.cost, price_per_hour=Decimal(100))
    usage = replace(report.utilisation, tokens=500 * len(scores), padding_share=0.5)
    tuned = Scores("tuned", "test", 400, {}, seconds=2.0)
    time = TimeUse(None, 0.0, 7200.0, {}, {})
    return {"steps": steps, "validations": validations, "cost": cost, "utilisation": usage, "tuned": tuned,
            "time": time, "baselines": ()}  # fmt: skip


def test_the_marginal_curve_prices_each_look(recorded):
    found = reckoned(recorded, **curve(recorded, [0.60, 0.70, 0.69, 0.72])).marginal
    assert [one.cost for one in found.curve] == pytest.approx([1, 2, 3, 4])
    assert [one.points for one in found.curve] == pytest.approx([0, 10, 0, 2])
    assert [one.points_per_money for one in found.curve[1:]] == pytest.approx([10, 0, 2])
    assert (found.last_cost, found.last_points) == pytest.approx((2, 2))  # from the second step's 0.70
    assert 0 <= found.next_points <= found.next_most <= 28


def test_what_the_next_money_buys_falls_as_a_curve_flattens(recorded):
    rising = [0.5 + 0.04 * step for step in range(8)]
    flat = [0.8 - 0.3 * math.exp(-2.0 * step) for step in range(8)]
    more, less = (reckoned(recorded, **curve(recorded, scores)).marginal for scores in (rising, flat))
    assert more.next_points > 5
    assert less.next_points < 1
    few = reckoned(recorded, **curve(recorded, [0.6, 0.7, 0.8])).marginal
    assert few.next_points is None
    assert few.last_points == pytest.approx(20)  # one and a half of three steps: from the first on


def test_key_figures(recorded):
    found = reckoned(recorded, **curve(recorded, [0.6, 0.7, 0.7, 0.7])).kpis
    assert found.epoch_seconds == pytest.approx(72)  # two steps of 36 s
    assert found.tokens_per_money == pytest.approx(500)  # a step costs 1
    assert found.tokens_per_kwh == pytest.approx(500 / (36 * 0.2 / 3600))
    assert found.request_seconds == pytest.approx(0.005)
    assert found.cost_per_thousand == pytest.approx(5 * 100 / 3600)
    assert found.energy_kwh == pytest.approx(0.4)  # two hours at 200 W
    assert found.carbon_grams == pytest.approx(200)
    rented = replace(recorded, project=replace(recorded.project, power=None))
    assert benefit_of(rented).kpis.energy_kwh is benefit_of(rented).kpis.tokens_per_kwh is None


def test_measured_energy_and_the_factor_in_use_are_told(recorded):
    """Two hours were metered, one of them measured at 100 W: 0.1 kWh and 0.2 at the stated 200 W."""
    drew = MeasuredEnergy(0.1, 3600.0, "codecarbon 3 (counters)", 381.0)
    report = replace(recorded, spending=replace(recorded.spending, measured_energy=drew))
    found = reckoned(report, **curve(recorded, [0.6, 0.7, 0.7, 0.7])).kpis
    assert found.energy_kwh == pytest.approx(0.3)
    assert found.carbon_grams == pytest.approx(0.3 * 381)
    assert "50% of the metered time by codecarbon" in found.energy_basis and "the country" in found.carbon_basis
    stated = replace(report, project=replace(report.project, power=Power(200, 10, grams_are_stated=True)))
    assert benefit_of(stated).kpis.carbon_basis == "10 g a kWh, stated in compute.local"
    assert "energy, by codecarbon" in [row[0] for row in tables(report)[-1].rows]


def test_the_gain_over_the_model_before_has_an_interval(tmp_path):
    """0.838 (−0.026, +0.024) against 0.838 likewise: 0, from −√(0.026² + 0.024²) to the same above."""
    store, story = record(tmp_path, Story())
    first = load_report(store, story.summary())
    assert first.previous is None
    Recorder(store, story, started=STARTED + 400).all()
    second = load_report(store, story.summary())
    half = math.hypot(0.026, 0.024)
    found = second.previous
    assert (found.attempt, found.gain.value) == (1, 0.0)
    assert (found.gain.low, found.gain.high) == pytest.approx((-half, half))
    assert "Gain over the model before" in [shown.title for shown in tables(second)]
    store.close()


def test_the_duration_of_every_phase_is_kept_over_attempts(tmp_path):
    store, story = record(tmp_path, Story())
    again = Recorder(store, story, started=STARTED + 400)
    again.collect(reused=True)
    again.prepare()
    again.finish()
    told = to_json(load_report(store, story.summary()))["durations"]
    data = {one["attempt"]: one["seconds"] for one in told if one["phase"] == "data"}
    assert data == {1: pytest.approx(3.1 + 2.4), 2: pytest.approx(2.4)}  # what was looked up took nothing
    assert {one["phase"] for one in told if one["attempt"] == 1} >= {"data", "training"}
    store.close()


def test_square_and_add_takes_each_side_of_an_interval():
    found = difference(Estimate(0.80, 0.76, 0.83), Estimate(0.70, 0.66, 0.73))
    assert (found.low, found.value, found.high) == pytest.approx((0.05, 0.10, 0.15))  # sides of 3 and 4: 5


def test_what_was_not_measured_is_not_shown(recorded):
    bare = replace(recorded, steps=(), validations=(), tuned=None, returns=Return("not measured", Decimal(0)))
    bare = replace(bare, project=replace(bare.project, worth=None, power=None), cost=replace(bare.cost, phases=()))
    found = benefit_of(replace(bare, utilisation=replace(bare.utilisation, tokens=None, padding_share=None)))
    assert found.marginal is None
    assert found.sensitivity == ()
    assert set(vars(found.kpis).values()) == {None}


def test_terminal_page_and_json_tell_the_same(recorded):
    out = io.StringIO()
    show(recorded, Console(file=out, width=120))
    page, told = to_html(recorded), to_json(recorded)["benefit"]
    for shown in tables(recorded):
        assert shown.title in out.getvalue()
        assert shown.title in page
        for row in shown.rows:
            for cell in filter(None, row):
                assert cell in out.getvalue()
                assert cell in page
    assert told["marginal"]["curve"][-1]["step"] == 160
    assert told["kpis"]["energy_kwh"] == pytest.approx(recorded.time.metered_s * 0.15 / 3600)
    value = Decimal("5.2") * 300 * counted_periods(recorded.project.worth)
    assert told["net_roi"]["value"] == pytest.approx(float(value / recorded.cost.spent) - 1, rel=1e-6)
