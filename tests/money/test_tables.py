"""The tables beside the prices: a user's own rows stand above them, and bad rows are named."""

from pathlib import Path

import pytest

from thriftune.errors import BadInput
from thriftune.money.tables import accelerators, interruptions
from thriftune.money.tokens import token_prices

RATES = "provider,machine,region,per_month_low,per_month_high,source,as_of\n"


def test_a_users_own_rate_stands_above_the_one_that_ships(tmp_path: Path) -> None:
    (key, shipped), *_ = interruptions(tmp_path).items()
    (tmp_path / "spot-interruptions.csv").write_text(f"{RATES}{','.join(key)},0.01,0.02,our own log,\n")
    own = interruptions(tmp_path)[key]
    assert (own.low, own.high, own.source) == (0.01, 0.02, "our own log")
    assert len(interruptions(tmp_path)) == len(interruptions(tmp_path / "nobody"))
    assert shipped.low != own.low
    assert own.told(0.0) == "1 to 2 % of machines a month (our own log)"


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("spot-interruptions.csv", RATES + "a,b,c,0.5,0.1,s,\n", "the lower first"),
        ("spot-interruptions.csv", RATES + "a,b,c,1,,s,\n", "shares from 0 to 1"),
        ("spot-interruptions.csv", RATES + "a,b\n", "7 fields"),
        ("spot-interruptions.csv", "a,b\n", "the columns provider"),
        ("accelerators.csv", "accelerator,runtime,peak_tflops,memory_gib,source\nX,vulkan,1,1,s\n", "cuda or rocm"),
        (
            "token-prices.csv",
            "provider,model,kind,price_per_million,currency,source,as_of\na,b,training,much,USD,s,\n",
            "an amount of money",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, found: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput) as caught:
        for read in (accelerators, interruptions, token_prices):
            read(tmp_path)
    assert name in caught.value.where
    assert found in caught.value.expected
