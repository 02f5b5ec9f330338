"""What an hour of a machine costs: dated rows that users can override, and the local machine's own price.

Three files are read, the later over the earlier: the snapshot that ships (`money/data/prices.csv`, its origin in
`money/data/README.md`), what `thriftune prices update` fetched, and what `thriftune prices set` wrote; how they are
replaced is in `money/history.py`. A missing price is an error that names the nearest rows; an old one is a warning
that shows its age.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from decimal import Decimal
from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal, get_args

from platformdirs import user_data_path
from pydantic import Field

from thriftune.clock import utc
from thriftune.errors import BadInput
from thriftune.options import Amount, Options, parse_amount

Market = Literal["on-demand", "spot"]
MARKETS: tuple[str, ...] = get_args(Market)
ANY_REGION = ""
LOCAL = "local"

OLD_AFTER_DAYS = 90  # providers change list prices a few times a year; spot prices move by the hour
SNAPSHOT = Path(__file__).parent / "data" / "prices.csv"
CATALOGUE_FILE = "prices.csv"
OWN_FILE = "my-prices.csv"


class LocalMachine(Options):
    """What an hour of this machine is taken to cost: energy and amortisation, each part overridable.

    Energy is power draw × price of electricity; amortisation is purchase price ÷ hours of use in its life. The
    defaults are assumptions about a common desktop computer, not measurements of this one.
    """

    power_watts: Amount = Field(
        default=Decimal("150"),
        le=100_000,
        description="Assumed draw from the wall under full load; a plug-in meter tells better",
    )
    electricity_per_kwh: Amount = Field(
        default=Decimal("0.18"),
        le=1000,
        description="Residential price, East North Central states, April 2025, 17.84 US cents, rounded up"
        " (U.S. Energy Information Administration, Electric Power Monthly, table 5.6.A)",
    )
    grams_per_kwh: Amount = Field(
        default=Decimal("473"),
        le=10_000,
        description="Carbon dioxide for electricity, the world's mean in 2024 (Ember, Global Electricity Review 2025)",
    )
    country: str | None = Field(
        default=None,
        pattern=r"^[A-Z]{3}$",
        description="Three letters (ISO 3166-1, such as DEU): whose emission factor holds where `grams_per_kwh` is not"
        " stated; needs the extra `carbon`",
    )
    province: str | None = Field(
        default=None,
        min_length=1,
        description="A state or province with a factor of its own (USA, CAN, CHN, and zones such as SE3), as codecarbon"
        " names it",
    )
    purchase_price: Amount = Field(
        default=Decimal("1000"), le=10_000_000, description="Assumed price of a common desktop computer, in USD"
    )
    lifetime_hours: Amount = Field(
        default=Decimal("10000"),
        ge=1,
        le=1_000_000,
        description="Hours of use over which the purchase is written off: 5 years (the class life of computers in U.S."
        " tax depreciation, IRS Publication 946) of 2,000 working hours",
    )

    @property
    def grams_are_stated(self) -> bool:
        """Whether the project file says how much carbon dioxide its electricity makes."""
        return "grams_per_kwh" in self.model_fields_set

    @property
    def energy_per_hour(self) -> Decimal:
        """Money for electricity an hour."""
        return self.power_watts / 1000 * self.electricity_per_kwh

    @property
    def amortisation_per_hour(self) -> Decimal:
        """Money for wear an hour."""
        return self.purchase_price / self.lifetime_hours

    @property
    def per_hour(self) -> Decimal:
        """Money an hour in all."""
        return self.energy_per_hour + self.amortisation_per_hour


@dataclass(frozen=True)
class Price:
    """What an hour of some machine costs.

    Args:
        machine: instance type, or accelerator type where that is what one rents (TPUs), or `local`.
        per_hour: money an hour for one machine, in `currency`.
        provider: who rents it out; `local` for the machine at hand.
        accelerator: GPU or TPU type, empty for none.
        accelerator_count: how many of them one machine has; a share of one for a partitioned GPU.
        region: where; empty when the price holds anywhere.
        market: `on-demand` or `spot`.
        currency: three letters.
        source: where the price was read.
        as_of: the day it was true; None for a price that the user stated, which has no age.
    """

    machine: str
    per_hour: Decimal
    provider: str = ""
    accelerator: str = ""
    accelerator_count: Decimal = Decimal(0)
    region: str = ANY_REGION
    market: str = "on-demand"
    currency: str = "USD"
    source: str = ""
    as_of: date | None = None

    def times(self, count: int) -> Decimal:
        """Money an hour for `count` such machines."""
        return self.per_hour * count

    def age_days(self, now: float) -> int | None:
        """Days since the price was true, at instant `now` (seconds); None for a stated price."""
        return None if self.as_of is None else (utc(now).date() - self.as_of).days

    def warning(self, now: float) -> str | None:
        """A sentence with the price's age when that is over `OLD_AFTER_DAYS` days, else None."""
        age = self.age_days(now)
        if not self.is_old(now):
            return None
        return (
            f"the price of {self.label} ({self.per_hour} {self.currency} an hour) is {age} days old (of {self.as_of});"
            " `thriftune prices update` reads the catalogue again"
        )

    def told(self, now: float) -> str:
        """The price with its age: `2.49 USD an hour, price of 2026-09-01, 85 days old`."""
        per_hour = f"{self.per_hour} {self.currency} an hour"
        if self.as_of is not None:
            return f"{per_hour}, price of {age_said(self.as_of, now)}"
        return f"{per_hour}, {self.source or 'stated'}"

    def is_old(self, now: float) -> bool:
        """Whether the price is older than prices keep (`OLD_AFTER_DAYS`)."""
        age = self.age_days(now)
        return age is not None and age > OLD_AFTER_DAYS

    @property
    def label(self) -> str:
        """Machine, provider, region and market, as people read them."""
        place = f" in {self.region}" if self.region else ""
        owner = f"{self.provider}:" if self.provider and self.provider != self.machine else ""
        return f"{owner}{self.machine}{place}, {self.market}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a later row with the same values replaces: provider, machine, region, market."""
        return self.provider, self.machine.lower(), self.region, self.market


def age_said(as_of: date, now: float) -> str:
    """A day with its distance from instant `now`: `2026-09-01, 85 days old`."""
    days = (utc(now).date() - as_of).days
    return f"{as_of}, {days} day{'' if days == 1 else 's'} old"


COLUMNS = (
    "provider",
    "machine",
    "accelerator",
    "accelerator_count",
    "region",
    "market",
    "price_per_hour",
    "currency",
    "source",
    "as_of",
)


def local_price(machine: LocalMachine | None = None, currency: str = "USD") -> Price:
    """The price of the machine at hand, from stated assumptions."""
    machine = machine or LocalMachine()
    source = (
        f"energy {machine.power_watts} W × {machine.electricity_per_kwh} a kWh + amortisation {machine.purchase_price}"
        f" ÷ {machine.lifetime_hours} h"
    )
    return Price(machine=LOCAL, per_hour=machine.per_hour, provider=LOCAL, currency=currency, source=source)


@dataclass(frozen=True)
class PriceTable:
    """The prices that are known, one row for each provider, machine, region and market."""

    rows: tuple[Price, ...]

    @classmethod
    def load(cls, home: Path | None = None) -> PriceTable:
        """The shipped snapshot, under what the user fetched and set.

        Args:
            home: the user's folder; by default `thriftune_home()`.

        Raises:
            BadInput: a price file cannot be read; the message names its line.
        """
        folder = thriftune_home() if home is None else home
        files = [SNAPSHOT, folder / CATALOGUE_FILE, folder / OWN_FILE]
        merged: dict[tuple[str, str, str, str], Price] = {}
        for file in files:
            if file == SNAPSHOT or file.exists():
                merged.update({price.key: price for price in read_prices(file)})
        return cls(tuple(merged.values()))

    def matching(self, accelerator: str = "", provider: str = "") -> list[Price]:
        """Rows whose accelerator contains `accelerator` and whose provider is `provider`, cheapest first."""
        wanted = accelerator.lower()
        found = [
            row
            for row in self.rows
            if wanted in row.accelerator.lower() and provider.lower() in ("", row.provider.lower())
        ]
        return sorted(found, key=lambda row: (row.per_hour, row.key))

    def find(self, machine: str, region: str | None = None, market: str = "on-demand") -> Price:
        """The price of a machine, in the cheapest region unless one is named; a stated price goes before all.

        Args:
            machine: the row's machine, or `provider:machine` where several providers have one of that name.
            region: where; None takes the cheapest region.
            market: `on-demand` or `spot`.

        Raises:
            BadInput: no such row; the message names the nearest ones.
        """
        provider, _, name = machine.rpartition(":")
        named = [
            row
            for row in self.rows
            if row.machine.lower() == name.lower() and provider.lower() in ("", row.provider.lower())
        ]
        fitting = [row for row in named if row.market == market and region in (None, row.region)]
        fitting += [row for row in named if row.market == market and row.region == ANY_REGION and row not in fitting]
        if not fitting:
            raise self._missing(machine, region, market, named)
        owners = sorted({row.provider for row in fitting})
        if len(owners) > 1:
            raise BadInput(
                "several providers have a machine of that name",
                where="price table",
                found=machine,
                expected=" or ".join(f"{owner}:{name}" for owner in owners),
                way_out="name the provider too",
            )
        return min(fitting, key=lambda row: (row.as_of is not None, row.region == ANY_REGION, row.per_hour, row.region))

    def own_price(
        self, machine: str, per_hour: Decimal, provider: str, region: str, market: str, currency: str
    ) -> Price:
        """A price that the user states, with what the table knows of the machine.

        Args:
            machine: its name.
            per_hour: money an hour for one.
            provider: whose; empty takes the one provider that has such a machine, if it is one.
            region: where it holds; empty for everywhere.
            market: `on-demand` or `spot`.
            currency: three letters.
        """
        known = [
            row
            for row in self.rows
            if row.machine.lower() == machine.lower() and provider.lower() in ("", row.provider.lower())
        ]
        owners = {row.provider for row in known}
        like = known[0] if len(owners) == 1 else Price(machine, per_hour, provider)
        return replace(
            like, per_hour=per_hour, region=region, market=market, currency=currency, source="stated", as_of=None
        )

    def _missing(self, machine: str, region: str | None, market: str, named: list[Price]) -> BadInput:
        wanted = ", ".join(part for part in (machine, region or "", market) if part)
        near = named or sorted(self.rows, key=lambda row: -_likeness(machine, row))
        shown = list(dict.fromkeys(row.label if named else f"{row.provider}:{row.machine}" for row in near))[:5]
        return BadInput(
            "no price is known for this machine",
            where="price table",
            found=wanted,
            expected=f"`{LOCAL}`, or a row of the price table; nearest: " + "; ".join(shown),
            way_out="take one of them, state compute.price_per_hour, or run `thriftune prices update`",
        )


def _likeness(wanted: str, row: Price) -> float:
    """How like `wanted` a row's machine or accelerator is, 0…1."""
    text = wanted.lower()
    return max(
        SequenceMatcher(None, text, name.lower()).ratio() for name in (row.machine, row.accelerator) if name or not text
    )


def thriftune_home() -> Path:
    """The user's own folder for prices and fetched models: THRIFTUNE_HOME, or the platform's user data folder."""
    named = os.environ.get("THRIFTUNE_HOME")
    return Path(named).expanduser() if named else user_data_path("thriftune", appauthor=False)


def read_prices(path: Path) -> list[Price]:
    """The rows of a price file.

    Raises:
        BadInput: the file is not a price file; the message names the line, what was found and what was expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            "the price file cannot be read",
            where=str(path),
            found=str(error),
            expected="a UTF-8 CSV file that can be read",
            way_out="remove it, or run `thriftune prices update`",
        ) from error
    return parse_prices(text, str(path))


def parse_prices(text: str, where: str) -> list[Price]:
    """`read_prices` of a text that came from `where`."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = reader.fieldnames
        if header is None or tuple(header) != COLUMNS:
            raise _bad_price(where, 1, ", ".join(header or ["nothing"]), "the columns " + ", ".join(COLUMNS))
        return [_parse_row(row, where, reader.line_num) for row in reader]
    except csv.Error as error:
        raise _bad_price(where, reader.line_num, str(error), "comma-separated values") from error


def _parse_row(row: Mapping[str | None, str | list[str] | None], where: str, line: int) -> Price:
    values = {name: row[name] for name in COLUMNS}
    if None in row or not all(isinstance(value, str) for value in values.values()):
        raise _bad_price(where, line, "another number of fields", f"{len(COLUMNS)} fields")
    text = {name: str(value).strip() for name, value in values.items()}
    if text["market"] not in MARKETS:
        raise _bad_price(where, line, f"market {text['market']!r}", " or ".join(MARKETS))
    if not text["machine"]:
        raise _bad_price(where, line, "no machine", "the name of a machine")
    try:
        return Price(
            machine=text["machine"],
            per_hour=parse_amount(text["price_per_hour"]),
            provider=text["provider"],
            accelerator=text["accelerator"],
            accelerator_count=parse_amount(text["accelerator_count"] or "0"),
            region=text["region"],
            market=text["market"],
            currency=text["currency"],
            source=text["source"],
            as_of=date.fromisoformat(text["as_of"]) if text["as_of"] else None,
        )
    except ValueError as error:
        raise _bad_price(where, line, ", ".join(text.values()), str(error)) from error


def _bad_price(where: str, line: int, found: str, expected: str) -> BadInput:
    return BadInput(
        "a price cannot be read",
        where=f"{where}, line {line}",
        found=found,
        expected=expected,
        way_out="mend the line, or remove the file and run `thriftune prices update`",
    )


def format_prices(prices: Iterable[Price]) -> str:
    """The text of a price file."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for price in prices:
        values = {field.name: getattr(price, field.name) for field in fields(price)}
        values["price_per_hour"] = values.pop("per_hour")
        writer.writerow(["" if values[name] is None else f"{values[name]}" for name in COLUMNS])
    return buffer.getvalue()
