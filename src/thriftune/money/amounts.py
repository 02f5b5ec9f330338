"""Money as Decimal in Python and as an integer of nano-units (billionths of the currency) in the database.

Nothing here passes through float: SQLAlchemy's Numeric on SQLite does, and three times 0.1 sums to
0.30000000000000004 there.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal, localcontext

NANO = 10**9  # nano-units in a unit of the currency
NANOSECONDS = 10**9  # in a second
NANOSECONDS_PER_HOUR = 3600 * NANOSECONDS
LARGEST_NANO = 2**63 - 1  # what the database's integers hold: 9.2 billion of the currency


def to_nano(amount: Decimal) -> int:
    """An amount as nano-units, exactly.

    Raises:
        ValueError: it has a fraction of a nano-unit, is no finite number, or is larger than the database holds.
    """
    if not amount.is_finite():
        raise ValueError(f"an amount of money is a finite number, got {amount}")
    with localcontext(prec=60):
        scaled = amount.scaleb(9)
        whole = scaled.to_integral_value()
    if whole != scaled:
        raise ValueError(f"an amount of money has at most 9 decimal places, got {amount}")
    if abs(whole) > LARGEST_NANO:
        raise ValueError(f"an amount of money is at most {from_nano(LARGEST_NANO):.0f}, got {amount}")
    return int(whole)


def price_to_nano(price: Decimal) -> int:
    """A price per hour as nano-units per hour, rounded to the nearest: half a nano-unit an hour is below any bill.

    Raises:
        ValueError: it is negative, no finite number, or larger than the database holds.
    """
    if price < 0:
        raise ValueError(f"a price is not negative, got {price}")
    with localcontext(prec=60):
        return to_nano(price.quantize(Decimal(1).scaleb(-9), rounding=ROUND_HALF_EVEN))


def from_nano(nano: int) -> Decimal:
    """Nano-units as an amount, exactly, without trailing zeros."""
    with localcontext(prec=60):
        amount = Decimal(nano).scaleb(-9)
        whole = amount.to_integral_value()
        return whole if amount == whole else amount.normalize()


def to_nanoseconds(seconds: float) -> int:
    """Seconds as nanoseconds, to the nearest."""
    return round(seconds * NANOSECONDS)


def cost_nano(nanoseconds: int, price_nano_per_hour: int, remainder: int = 0) -> tuple[int, int]:
    """What machine time costs, exactly: however a stretch is cut, the costs of its parts sum to that of the whole.

    Args:
        nanoseconds: of machine time.
        price_nano_per_hour: nano-units an hour.
        remainder: of the stretch before this one.

    Returns:
        whole nano-units, and the remainder to carry on, in nano-units x nanoseconds per hour.
    """
    return divmod(nanoseconds * price_nano_per_hour + remainder, NANOSECONDS_PER_HOUR)


def upper_cost_nano(nanoseconds: int, price_nano_per_hour: int) -> int:
    """The least whole nano-units that surely pay for machine time, whatever remainder is carried into it."""
    return -(-nanoseconds * price_nano_per_hour // NANOSECONDS_PER_HOUR)


def cost_of_bytes(count: int, price_per_gb: Decimal) -> int:
    """The least whole nano-units that pay for so many bytes at a price for 10⁹ of them."""
    with localcontext(prec=60):
        return int((count * price_per_gb).to_integral_value(rounding=ROUND_CEILING))


def affordable_nanoseconds(nano: int, price_nano_per_hour: int) -> int:
    """How much machine time an amount pays for; the price must not be zero."""
    return nano * NANOSECONDS_PER_HOUR // price_nano_per_hour


def shown_money(amount: Decimal, currency: str = "") -> str:
    """An amount for people: two decimal places, or as many as show three significant digits of a small one."""
    places = 2 if amount == 0 or abs(amount) >= Decimal("0.1") else min(9, 2 - amount.adjusted())
    text = f"{amount:,.{places}f}"
    return f"{text} {currency}" if currency else text
