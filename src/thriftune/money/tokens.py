"""What a million tokens cost where a model is trained or asked by somebody else: dated rows that users can override.

Two files are read, the later over the earlier: the snapshot that ships (`money/data/token-prices.csv`, its origin in
`money/data/README.md`) and `token-prices.csv` in the user's own folder, with the same columns. A missing price is an
error, an old one a warning that shows its age.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_CEILING, Decimal, localcontext
from pathlib import Path
from typing import Literal, get_args

from thriftune.clock import utc
from thriftune.errors import BadInput
from thriftune.money.amounts import from_nano
from thriftune.money.fence import Fence
from thriftune.money.ledger import Ledger
from thriftune.money.prices import OLD_AFTER_DAYS, thriftune_home
from thriftune.options import parse_amount

Use = Literal["training", "input", "output"]
CATEGORY = "tokens bought"
SNAPSHOT = Path(__file__).parent / "data" / "token-prices.csv"
OWN_FILE = "token-prices.csv"
COLUMNS = ("provider", "model", "kind", "price_per_million", "currency", "source", "as_of")


@dataclass(frozen=True)
class TokenPrice:
    """What a million tokens cost.

    Args:
        provider: who sells them, such as `vertex`.
        model: as its provider names it.
        use: `training` for a token of the training rows and a pass over them, `input` and `output` when asked.
        per_million: money for a million, in `currency`.
        source: where the price was read.
        as_of: the day it was true; None for a price that the user stated.
    """

    provider: str
    model: str
    use: str
    per_million: Decimal
    currency: str
    source: str = ""
    as_of: date | None = None

    def age_days(self, now: float) -> int | None:
        """Days since the price was true; None for a stated one."""
        return None if self.as_of is None else (utc(now).date() - self.as_of).days

    def is_old(self, now: float) -> bool:
        """Whether that is longer ago than prices keep."""
        age = self.age_days(now)
        return age is not None and age > OLD_AFTER_DAYS

    def cost_nano(self, tokens: int) -> int:
        """Nano-units for so many tokens, rounded up."""
        with localcontext(prec=60):
            exact = self.per_million * tokens * 1000  # 10^9 nano-units ÷ 10^6 tokens
            return int(exact.to_integral_value(ROUND_CEILING))


@dataclass(frozen=True)
class Tariff:
    """The prices of one model's tokens."""

    training: TokenPrice
    input: TokenPrice
    output: TokenPrice

    def answers_nano(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-units for being asked so many tokens and answering with so many."""
        return self.input.cost_nano(input_tokens) + self.output.cost_nano(output_tokens)

    def warning(self, now: float) -> str | None:
        """A sentence with the prices' age when the oldest is over `OLD_AFTER_DAYS` days, else None."""
        prices = (self.training, self.input, self.output)
        dated = [price.as_of for price in prices if price.as_of is not None]
        if not dated or (age := (utc(now).date() - min(dated)).days) <= OLD_AFTER_DAYS:
            return None
        told = ", ".join(f"{price.use} {price.per_million}" for price in prices)
        return (
            f"the prices of {self.training.model} ({told} {self.training.currency} a million tokens) are {age} days old"
            f" (of {min(dated)}); state today's in {thriftune_home() / OWN_FILE}"
        )


def tariff_of(provider: str, model: str, currency: str, home: Path | None = None) -> Tariff:
    """The prices of a model's tokens, in the budget's currency.

    Args:
        provider: who sells them.
        model: its name there.
        currency: the budget's.
        home: the user's folder; by default `thriftune_home()`.

    Raises:
        BadInput: a price is missing, is in another currency, or a price file cannot be read.
    """
    known = {row.use: row for row in token_prices(home) if (row.provider, row.model) == (provider, model)}
    for use in get_args(Use):
        price = known.get(use)
        if price is None or price.currency != currency:
            raise BadInput(
                f"no price is known for {use} tokens of this model",
                where="token prices",
                found=f"{model}: " + ("nothing" if price is None else f"a price in {price.currency}"),
                expected=f"a row for {provider}, {model}, {use} in {currency}",
                way_out=f"add it to {_own_file(home)}, which has the columns {', '.join(COLUMNS)}",
            )
    return Tariff(known["training"], known["input"], known["output"])


def token_prices(home: Path | None = None) -> list[TokenPrice]:
    """Every known price: the shipped ones, and the user's own in their places.

    Args:
        home: the user's folder; by default `thriftune_home()`.
    """
    own = _own_file(home)
    files = [SNAPSHOT, own] if own.exists() else [SNAPSHOT]
    rows = [row for file in files for row in read_token_prices(file)]
    return list({(row.provider, row.model, row.use): row for row in rows}.values())


def _own_file(home: Path | None) -> Path:
    return (thriftune_home() if home is None else home) / OWN_FILE


def read_token_prices(path: Path) -> list[TokenPrice]:
    """The rows of a file of token prices.

    Raises:
        BadInput: it cannot be read; the message names the line.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise _bad_price(path, 1, ", ".join(reader.fieldnames or ["nothing"]), "the columns " + ", ".join(COLUMNS))
        return [_price_of(row, path, reader.line_num) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _bad_price(path, 1, str(error), "a UTF-8 CSV file that can be read") from error


def _price_of(row: dict[str, str], path: Path, line: int) -> TokenPrice:
    try:
        if None in row or None in row.values() or row["kind"] not in get_args(Use):
            raise ValueError(f"{len(COLUMNS)} fields, of kind {' or '.join(get_args(Use))}")
        return TokenPrice(
            row["provider"],
            row["model"],
            row["kind"],
            parse_amount(row["price_per_million"]),
            row["currency"],
            row["source"],
            date.fromisoformat(row["as_of"]) if row["as_of"] else None,
        )
    except ValueError as error:
        raise _bad_price(path, line, ", ".join(str(value) for value in row.values()), str(error)) from error


def _bad_price(path: Path, line: int, found: str, expected: str) -> BadInput:
    return BadInput(
        "a token price cannot be read",
        where=f"{path}, line {line}",
        found=found,
        expected=expected,
        way_out="mend the line, or remove the file",
    )


@dataclass
class Purchase:
    """Tokens that an open purchase has bought so far."""

    input: int = 0
    output: int = 0

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """Count the tokens of one answer."""
        self.input += input_tokens
        self.output += output_tokens


@dataclass(frozen=True)
class TokenMeter:
    """Buys the tokens of answers within the budget.

    Args:
        ledger: what is charged.
        tariff: the model's prices.
        phase: the phase that pays.
        fence: the lease under which the money is spent, so that what a killed process left open is settled.
    """

    ledger: Ledger
    tariff: Tariff
    phase: str
    fence: Fence | None = field(default=None)

    @contextmanager
    def buying(self, what: str, input_tokens: int, output_tokens: int) -> Iterator[Purchase]:
        """Reserve the most that some answers can cost; what was bought is posted at the end, also if it raises.

        Args:
            what: the answers, for people.
            input_tokens, output_tokens: their upper bounds.

        Raises:
            OutOfBudget: the money left does not hold it; nothing has been asked.
        """
        upper = self.tariff.answers_nano(input_tokens, output_tokens)
        reservation = self.ledger.reserve(self.phase, CATEGORY, upper, what, fence=self.fence)
        bought = Purchase()
        try:
            yield bought
        finally:
            cost = self.tariff.answers_nano(bought.input, bought.output)
            self.ledger.post(reservation, cost, 0.0)
            if cost > upper:
                self.ledger.events.emit(
                    "warning",
                    where=what,
                    what=f"its tokens cost {from_nano(cost)}, and at most {from_nano(upper)} was expected",
                )
