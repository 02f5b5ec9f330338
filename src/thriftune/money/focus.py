"""Reading a provider's bill in the FOCUS format (FinOps Open Cost and Usage Specification, versions 1.x), as CSV.

Only what is needed to hold a bill against what was metered is kept; the columns that must be there are those that every
1.x dataset has. Money is read to Decimal. Anything that the specification does not allow is an error with its row and
column: a bill that is half understood is worse than none.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path

from thriftune.errors import BadInput
from thriftune.money.amounts import LARGEST_NANO, NANO

REQUIRED = (
    "BilledCost",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ServiceName",
)
# What tells one charge from another, where the bill has it. Costs and quantities are no part of it: a provider that
# corrects a charge within its billing period exports the same charge again with another cost.
TELLING = (
    *("BillingAccountId", "SubAccountId", "InvoiceId", "ChargePeriodStart", "ChargePeriodEnd", "ChargeCategory"),
    *("ChargeClass", "ChargeDescription", "ChargeFrequency", "CommitmentDiscountId", "PricingCategory", "ProviderName"),
    *("PublisherName", "RegionId", "AvailabilityZone", "ResourceId", "ServiceName", "SkuId", "SkuPriceId", "Tags"),
)
CHARGE_CATEGORIES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z")
_NUMBER = re.compile(r"-?(\d+(\.\d*)?|\.\d+)(E[+-]?\d{1,3})?", re.IGNORECASE)
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True)
class BillLine:
    """A charge of a bill.

    Args:
        key: what it is known by, through exports of the same period: a hash of what tells charges apart, and which of
            the equal ones it is.
        billed: what was invoiced for it; negative for a credit.
        began, ended: of the charge period, seconds since the epoch; the end is not part of it.
        currency: three letters.
        category: the specification's `ChargeCategory`.
        service: whose service, as the provider names it.
        resource: the resource's id; empty where the charge has none.
        tags: each with its value, empty for one without.
    """

    key: str
    billed: Decimal
    began: float
    ended: float
    currency: str
    category: str
    service: str
    resource: str
    tags: Mapping[str, str]


def read_bill(path: Path) -> list[BillLine]:
    """The charges of a FOCUS CSV file.

    Raises:
        BadInput: it is none; the message names the line, the column, what was found and what was expected.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refusal(str(path), f"byte {error.start}, which is not UTF-8", "a UTF-8 CSV file") from None
    except OSError as error:
        raise _refusal(str(path), error.strerror or type(error).__name__, "a file that can be read") from None
    return parse_bill(text, str(path))


def parse_bill(text: str, where: str) -> list[BillLine]:
    """`read_bill` of a text that came from `where`."""
    if "\0" in text:
        raise _refusal(where, "a NUL character", "text")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    seen: Counter[str] = Counter()
    lines = []
    try:
        _check_header(reader.fieldnames, where)
        for row in reader:
            line = f"{where}, line {reader.line_num}"
            if None in row or None in row.values():
                count = len(reader.fieldnames or ())
                raise _refusal(line, "another number of fields", f"{count} fields, as the header has")
            lines.append(_line(row, line, seen))
    except csv.Error as error:
        raise _refusal(f"{where}, line {reader.line_num}", str(error), "comma-separated values") from error
    return lines


def _check_header(header: Sequence[str] | None, where: str) -> None:
    if not header:
        raise _refusal(f"{where}, line 1", "an empty file", "the header of a FOCUS dataset")
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        shown = ", ".join(header[:6]) + (", …" if len(header) > 6 else "")
        raise _refusal(f"{where}, line 1", f"no column {', '.join(missing)} among {shown}", ", ".join(REQUIRED))
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise _refusal(f"{where}, line 1", f"{', '.join(twice)} more than once", "each column once")


def _line(row: Mapping[str, str], where: str, seen: Counter[str]) -> BillLine:
    category = _one_of(row, "ChargeCategory", CHARGE_CATEGORIES, where)
    began, ended = (_instant(row, name, where) for name in ("ChargePeriodStart", "ChargePeriodEnd"))
    for name in ("BillingPeriodStart", "BillingPeriodEnd"):
        _instant(row, name, where)
    if ended <= began:
        raise _bad(where, "ChargePeriodEnd", row["ChargePeriodEnd"], f"an instant after {row['ChargePeriodStart']}")
    currency = row["BillingCurrency"].strip()
    if not _CURRENCY.fullmatch(currency):
        raise _bad(where, "BillingCurrency", currency, "three capital letters, such as USD (ISO 4217)")
    if not row["ServiceName"].strip():
        raise _bad(where, "ServiceName", "", "the name of a service")
    told = "\0".join(row.get(name, "").strip() for name in TELLING)
    seen[told] += 1
    return BillLine(
        key=blake2b(f"{told}\0{seen[told]}".encode(), digest_size=20).hexdigest(),
        billed=_amount(row, "BilledCost", where),
        began=began,
        ended=ended,
        currency=currency,
        category=category,
        service=row["ServiceName"].strip(),
        resource=row.get("ResourceId", "").strip(),
        tags=_tags(row.get("Tags", ""), where),
    )


def _one_of(row: Mapping[str, str], name: str, known: Sequence[str], where: str) -> str:
    value = row[name].strip()
    if value not in known:
        raise _bad(where, name, value, " or ".join(known))
    return value


def _instant(row: Mapping[str, str], name: str, where: str) -> float:
    text = row[name].strip()
    expected = "an instant in UTC such as 2026-11-01T00:00:00Z"
    if not _INSTANT.fullmatch(text):
        raise _bad(where, name, text, expected)
    try:
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise _bad(where, name, text, expected) from None


def _amount(row: Mapping[str, str], name: str, where: str) -> Decimal:
    text = row[name].strip()
    if not _NUMBER.fullmatch(text):
        raise _bad(where, name, text, "a number such as 1.25 or -3")
    amount = Decimal(text)
    if abs(amount) > Decimal(LARGEST_NANO) / NANO or (amount and amount.adjusted() < -30):
        raise _bad(where, name, text, "an amount of money below 9.2 billion, with at most 30 decimal places")
    return amount


def _tags(text: str, where: str) -> Mapping[str, str]:
    """FOCUS writes tags as a JSON object of texts; a bare true stands for a tag without a value."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _bad(where, "Tags", text, 'a JSON object such as {"project": "films"}')
    return {str(key): "" if value is None or value is True else str(value) for key, value in found.items()}


def _bad(where: str, column: str, found: str, expected: str) -> BadInput:
    return _refusal(f"{where}, column {column}", repr(found[:80]), expected)


def _refusal(where: str, found: str, expected: str) -> BadInput:
    return BadInput(
        "the bill cannot be read",
        where=where,
        found=found,
        expected=expected,
        way_out="export it again from the provider as FOCUS 1.x in CSV; nothing of it was taken",
    )
