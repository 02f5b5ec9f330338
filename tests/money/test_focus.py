"""Bills in the FOCUS format: read strictly and exactly, kept once, held against what was metered."""

from __future__ import annotations

import csv
import io
import itertools
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.clock import ManualClock
from thriftune.errors import BadInput
from thriftune.events import EventLog
from thriftune.money.amounts import to_nano
from thriftune.money.bills import Wanted, compared, keep
from thriftune.money.focus import CHARGE_CATEGORIES, REQUIRED, BillLine, parse_bill, read_bill
from thriftune.money.ledger import Ledger
from thriftune.store import Store

ROW = {
    "BilledCost": "0.526",
    "BillingAccountId": "1234",
    "BillingCurrency": "USD",
    "BillingPeriodStart": "2026-11-01T00:00:00Z",
    "BillingPeriodEnd": "2026-12-01T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargePeriodStart": "2026-11-03T10:00:00Z",
    "ChargePeriodEnd": "2026-11-03T11:00:00Z",
    "ResourceId": "i-0abc",
    "ServiceName": "Amazon Elastic Compute Cloud",
    "Tags": '{"project": "films", "spot": true}',
    "x_ours": "whatever",
}
DAY = datetime(2026, 11, 3, tzinfo=UTC).timestamp()


def bill(*rows: dict[str, str]) -> str:
    """A bill of these rows, each a change of the usual one."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(ROW))
    writer.writeheader()
    writer.writerows(ROW | row for row in rows)
    return text.getvalue()


def parsed(*rows: dict[str, str]) -> list[BillLine]:
    return parse_bill(bill(*rows), "bill.csv")


def test_a_charge_is_read_as_the_specification_writes_it() -> None:
    (line,) = parsed({})
    assert (line.billed, line.currency, line.category) == (Decimal("0.526"), "USD", "Usage")
    assert (line.began, line.ended) == (DAY + 36_000, DAY + 39_600)
    assert (line.resource, line.tags) == ("i-0abc", {"project": "films", "spot": ""})


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("BilledCost", "", "a number"),
        ("BilledCost", "1,5", "a number"),
        ("BilledCost", "$1.50", "a number"),
        ("BilledCost", "+1", "a number"),
        ("BilledCost", "NaN", "a number"),
        ("BilledCost", "1e999", "below 9.2 billion"),
        ("BilledCost", "99999999999", "below 9.2 billion"),
        ("BillingCurrency", "usd", "three capital letters"),
        ("BillingCurrency", "", "three capital letters"),
        ("ChargeCategory", "usage", "Usage or Purchase"),
        ("ChargePeriodStart", "2026-11-03", "2026-11-01T00:00:00Z"),
        ("ChargePeriodStart", "2026-11-03T10:00:00+01:00", "2026-11-01T00:00:00Z"),
        ("ChargePeriodEnd", "2026-13-03T10:00:00Z", "2026-11-01T00:00:00Z"),
        ("ChargePeriodEnd", "2026-11-03T10:00:00Z", "an instant after"),
        ("BillingPeriodStart", "November", "2026-11-01T00:00:00Z"),
        ("ServiceName", "", "the name of a service"),
        ("Tags", "project=films", "a JSON object"),
        ("Tags", "[1]", "a JSON object"),
        ("Tags", "[" * 100_000, "a JSON object"),
    ],
)
def test_what_the_specification_does_not_allow_names_line_and_column(column: str, value: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        parsed({}, {column: value})
    assert caught.value.where == f"bill.csv, line 3, column {column}"
    assert expected in caught.value.expected and value[:70] in caught.value.found


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_missing_column_is_named(missing: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_bill(bill({}).replace(f"{missing}", "x_other", 1), "bill.csv")
    assert missing in caught.value.found and caught.value.where == "bill.csv, line 1"


@pytest.mark.parametrize(
    "text",
    ["", "\0", bill({}) + "one,field\r\n", bill({}).replace("x_ours", "ResourceId"), bill({}) + '"open'],
    ids=["empty", "NUL", "fields", "twice", "quote"],
)
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="the bill cannot be read"):
        parse_bill(text, "bill.csv")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bill.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    for path in (tmp_path, tmp_path / "none.csv", tmp_path / "bill.xlsx"):
        with pytest.raises(BadInput, match="the bill cannot be read"):
            read_bill(path)


amounts = st.decimals(min_value="-1000000", max_value="1000000", allow_nan=False, allow_infinity=False, places=12)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=20)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "BilledCost": amounts.map(lambda amount: f"{amount:f}"),
                "ResourceId": texts,
                "ServiceName": texts.filter(str.strip),
                "ChargeCategory": st.sampled_from(CHARGE_CATEGORIES),
            }
        ),
        max_size=8,
    ),
    st.sampled_from([",", ",\ufeff"]),
)
def test_whatever_a_bill_says_is_read_back_exactly(rows: list[dict[str, str]], _mark: str) -> None:
    lines = parsed(*rows)
    assert [line.billed for line in lines] == [Decimal(row["BilledCost"]) for row in rows]
    assert [line.service for line in lines] == [row["ServiceName"].strip() for row in rows]
    assert len({line.key for line in lines}) == len(rows)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    for whole in (text, bill({}) + text):
        try:
            parse_bill(whole, "bill.csv")
        except BadInput as refusal:
            assert refusal.where.startswith("bill.csv")


PROJECTS = (f"billed-{number}" for number in itertools.count())


def kept(store: Store, project: str, lines: Sequence[BillLine], wanted: Wanted | None = None) -> tuple[int, ...]:
    found = keep(store, ManualClock(), project, 1, "USD", lines, wanted or Wanted())
    return found.new, found.revised, found.known, found.left_out


def billed(store: Store, project: str) -> dict[str, Decimal]:
    return {period.name: period.billed for period in compared(store, project)}


def test_the_same_bill_twice_counts_once_and_equal_charges_are_all_counted(shared_store: Store) -> None:
    project = next(PROJECTS)
    lines = parsed({}, {}, {"ResourceId": "i-1"})
    assert kept(shared_store, project, lines) == (3, 0, 0, 0)
    assert kept(shared_store, project, lines) == (0, 0, 3, 0)
    assert billed(shared_store, project) == {"2026-11-03": Decimal("1.578")}


def test_the_next_export_of_a_month_replaces_what_it_revises(shared_store: Store) -> None:
    project = next(PROJECTS)
    kept(shared_store, project, parsed({}, {"ResourceId": "i-1", "BilledCost": "2"}))
    assert kept(shared_store, project, parsed({}, {"ResourceId": "i-1", "BilledCost": "3"}, {"ResourceId": "i-2"})) == (
        1,
        1,
        1,
        0,
    )
    assert billed(shared_store, project) == {"2026-11-03": Decimal("4.052")}


@given(st.lists(st.sampled_from([*range(6)]), min_size=1, max_size=12), st.integers(0, 99))
def test_any_order_and_overlap_of_imports_comes_to_the_same(shared_store: Store, drawn: list[int], seed: int) -> None:
    """Whatever parts of a month are imported again, in whatever order, the sum is that of the month."""
    whole = parsed(*({"ResourceId": f"i-{number}", "BilledCost": f"0.{number + 1}"} for number in range(6)))
    project = next(PROJECTS)
    order = random.Random(seed)
    for place in drawn:
        part = whole[: place + 1]
        order.shuffle(part)
        kept(shared_store, project, part)
    expected = sum((line.billed for line in whole[: max(drawn) + 1]), Decimal(0))
    assert billed(shared_store, project) == {"2026-11-03": expected}


def test_only_the_projects_charges_are_taken(shared_store: Store) -> None:
    lines = parsed({}, {"ResourceId": "i-9"}, {"ServiceName": "Storage"}, {"Tags": '{"project": "songs"}'})
    for wanted, taken in (
        (Wanted(resources=("i-9",)), 1),
        (Wanted(services=("Storage",)), 1),
        (Wanted(tags={"project": "films"}), 3),
        (Wanted(tags={"project": "films"}, resources=("i-0abc",)), 2),
    ):
        assert kept(shared_store, next(PROJECTS), lines, wanted) == (taken, 0, 0, 4 - taken)


def test_another_currency_is_refused_whole(shared_store: Store) -> None:
    project = next(PROJECTS)
    lines = parsed({}, {"BillingCurrency": "EUR", "ResourceId": "i-9"})
    with pytest.raises(BadInput, match="another currency") as caught:
        kept(shared_store, project, lines)
    assert (caught.value.found, caught.value.expected) == ("EUR", "USD")
    assert compared(shared_store, project) == ()
    assert kept(shared_store, project, lines, Wanted(resources=("i-0abc",))) == (1, 0, 0, 1)


def metered(store: Store, project: str, ended: float, seconds: float, amount: str) -> None:
    clock = ManualClock(ended)
    ledger = Ledger(store, clock, project, EventLog(store, clock, project, 1))
    ledger.open_budget(Decimal(100), "USD", {"training": Decimal(100)})
    ledger.charge("training", "machine", to_nano(Decimal(amount)), "steps", seconds)


def test_metered_and_billed_stand_side_by_side_day_by_day(shared_store: Store) -> None:
    project = next(PROJECTS)
    metered(shared_store, project, DAY + 86_400 + 900, 3600.0, "1.00")  # a quarter of it after midnight
    metered(shared_store, project, DAY + 43_200, 60.0, "0.10")
    metered(shared_store, project, DAY + 5 * 86_400, 60.0, "7.00")  # of a day that no bill was imported for
    day = {"ChargePeriodStart": "2026-11-04T00:00:00Z", "ChargePeriodEnd": "2026-11-05T00:00:00Z"}
    kept(shared_store, project, parsed({"BilledCost": "0.9"}, day | {"BilledCost": "0.3"}))
    told = [(p.name, p.metered, p.billed, p.difference) for p in compared(shared_store, project)]
    assert told == [
        ("2026-11-03", Decimal("0.85"), Decimal("0.9"), Decimal("0.05")),
        ("2026-11-04", Decimal("0.25"), Decimal("0.3"), Decimal("0.05")),
    ]


def test_a_monthly_charge_makes_the_periods_months(shared_store: Store) -> None:
    project = next(PROJECTS)
    metered(shared_store, project, DAY, 3600.0, "1.00")
    month = {"ChargePeriodStart": "2026-11-01T00:00:00Z", "ChargePeriodEnd": "2026-12-01T00:00:00Z"}
    kept(shared_store, project, parsed({}, month | {"BilledCost": "-0.026", "ChargeCategory": "Credit"}))
    (period,) = compared(shared_store, project)
    assert (period.name, period.metered, period.billed) == ("2026-11", Decimal(1), Decimal("0.5"))


@given(st.integers(1, 10**12), st.floats(0, 400_000), st.floats(0, 300_000))
def test_a_charge_over_several_days_is_divided_and_not_one_nano_unit_is_lost(
    nano: int, seconds: float, later: float
) -> None:
    from thriftune.money.bills import _spread

    for daily in (True, False):
        parts: list[tuple[str, Any]] = list(_spread(nano, seconds, DAY + later, daily))
        assert sum(part for _, part in parts) == nano
        assert all(part >= 0 for _, part in parts)
        assert len({name for name, _ in parts}) == len(parts)
