"""Public holidays by country and region, from the `holidays` package."""

from __future__ import annotations

from datetime import date
from functools import cache

from thriftune.errors import MissingExtra


@cache
def public_holidays(country: str, year: int) -> frozenset[date]:
    """The days of a year on which a country, or a region of it, does not work.

    Args:
        country: an ISO 3166 code, `NL` or with a region `DE-BY`.
        year: of the Gregorian calendar.

    Raises:
        MissingExtra: the package is not installed.
        ValueError: it knows no such country or region.
    """
    try:
        import holidays
    except ImportError:
        raise MissingExtra(
            "a package for public holidays is not installed",
            where="timeline.people.country",
            found=country,
            expected="the extra `calendar`, or the days themselves in timeline.people.holidays",
            way_out="pip install 'thriftune[calendar]'",
        ) from None
    nation, _, region = country.partition("-")
    try:
        return frozenset(holidays.country_holidays(nation, subdiv=region or None, years=year))
    except NotImplementedError:
        raise ValueError("an ISO code of a country, with a region after a dash, such as NL or DE-BY") from None
