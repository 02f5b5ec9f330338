"""What is read off the first part of a validation curve: known limits, and what real curves went on to bring."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from thriftune.train.curve import MIN_VALIDATIONS, OPTIMISM, future_gains

STEPS = np.arange(1, 13) * 10
NOISE = 0.5 / np.sqrt(400)  # of a validation of so many rows


def power(steps, limit=0.9, scale=0.4, exponent=1.0):
    """Its value at step 10 is `limit - scale`."""
    return limit - scale * (np.asarray(steps) / 10) ** -exponent


def saturating(steps, limit=0.9, scale=0.4, decay=50.0):
    return limit - scale * np.exp(-np.asarray(steps) / decay)


@pytest.mark.parametrize("curve", [power, saturating])
def test_a_curve_without_noise_tells_its_gain(curve):
    ahead = [130, 200, 400]
    gains = future_gains(STEPS, curve(STEPS), ahead, 1e-4)
    truth = curve(ahead) - curve(STEPS[-1])
    np.testing.assert_allclose(gains.mean, truth, rtol=0.15)  # the exponents are on a grid
    assert (gains.upper > 0.9 * truth).all()
    assert (gains.upper < 2 * truth).all()


def test_a_flat_curve_promises_no_more_than_its_noise_and_a_falling_one_nothing():
    flat = future_gains(STEPS, np.full(12, 0.8), [130, 200], NOISE)
    assert (flat.upper < NOISE).all()
    assert flat.mean == pytest.approx(np.zeros(2), abs=1e-9)
    falling = future_gains(STEPS, 0.8 - STEPS / 1000, [130, 200], NOISE)
    assert (falling.mean < 1e-3).all()
    assert (falling.upper < NOISE).all()


def test_the_longer_and_the_quieter_the_curve_the_narrower_the_bound():
    noise = 0.01 * np.random.default_rng(0).standard_normal(12)
    short, long = (
        future_gains(STEPS[:count], (power(STEPS) + noise)[:count], [STEPS[count - 1] * 2], NOISE) for count in (4, 12)
    )
    quiet = future_gains(STEPS, power(STEPS) + noise / 10, [240], NOISE)
    assert short.upper[0] > long.upper[0] > quiet.upper[0] > power(240) - power(120)


def test_the_upper_bound_holds_as_often_as_it_says():
    """Power laws and exponentials, their exponents not those of the fit's grid."""
    drawn, held, widths = np.random.default_rng(1), [], []
    for _ in range(300):
        scale = drawn.uniform(0.05, 0.4)
        if drawn.integers(2):
            curve = partial(power, scale=scale, exponent=drawn.uniform(0.4, 2.5))
        else:
            curve = partial(saturating, scale=scale, decay=drawn.uniform(20, 120))
        known = int(drawn.integers(MIN_VALIDATIONS, 13))
        steps = STEPS[:known]
        values = curve(steps) + 0.01 * drawn.standard_normal(known)
        upper = future_gains(steps, values, [3 * steps[-1]], NOISE).upper[0]
        held.append(curve(3 * steps[-1]) - curve(steps[-1]) <= upper)
        widths.append(upper)
    assert np.mean(held) > OPTIMISM - 0.03
    assert np.median(widths) < 0.15  # it is a bound that can say no


CURVES = json.loads((Path(__file__).parent / "curves.json").read_text())


@pytest.mark.parametrize(("figure", "promised"), [("f1_macro", 0.92), ("loss", 0.9)])
def test_real_curves_stay_below_the_bound(figure, promised):
    """MiniLM's validations on packaged reviews and tweets, with 400 rows each, by eight recipes (curves.json).

    The gain is from the level at the cut, the mean of the latest two validations, to that of the last two: a single
    one is luck as well, and two are a little, so that the share is a little below the bound's own probability. The
    curve begins after the warm-up, and counts once it has risen, as `Stopping.weigh` asks.
    """
    held, said_no = [], 0
    for curve in CURVES:
        steps, heights = np.array(curve["steps"]), (-1 if figure == "loss" else 1) * np.array(curve[figure])
        warm = steps >= 0.1 * steps[-1]
        began_at, steps, heights = heights[0], steps[warm], heights[warm]
        for cut in range(MIN_VALIDATIONS, len(steps) - 1):
            if heights[:cut].max() > began_at:
                upper = future_gains(steps[:cut], heights[:cut], steps[-1:], 0.5 / np.sqrt(curve["rows"])).upper[0]
                held.append(heights[-2:].mean() - heights[cut - 2 : cut].mean() <= upper)
                said_no += upper < 0.03
    assert len(held) > 50
    assert np.mean(held) > promised
    assert said_no > len(held) / 10  # of what is left of these curves, some is worth less than three points
