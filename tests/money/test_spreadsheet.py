"""The account as a spreadsheet: double entry that agrees with the ledger, sums as formulas, cells that do nothing."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.clock import ManualClock
from thriftune.errors import BadInput, OutOfBudget
from thriftune.events import EventLog
from thriftune.money.account import FUNDING, Entry, balances, budget_account, entries
from thriftune.money.amounts import to_nano
from thriftune.money.bills import Period
from thriftune.money.ledger import UNALLOTTED, Ledger
from thriftune.money.spreadsheet import Account, harmless, table, workbook, write
from thriftune.store import Store, open_store

PHASES = {"collection": Decimal("0.10"), "training": Decimal("0.60"), "evaluation": Decimal("0.20")}
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def new_ledger(store: Store, project: str, total: str = "1.00") -> Ledger:
    clock = ManualClock()
    ledger = Ledger(store, clock, project, EventLog(store, clock, project, 1))
    ledger.open_budget(Decimal(total), "USD", PHASES)
    return ledger


def account_of(ledger: Ledger) -> list[Entry]:
    events = ledger.events.read(kinds=["budget.added", "budget.moved"])
    return entries(ledger.balance(), ledger.transfers(), events)


def assert_agrees(ledger: Ledger) -> None:
    """The accounts have what the ledger has, and debits are credits."""
    found, balance = balances(account_of(ledger)), ledger.balance()
    assert sum(found.values()) == 0
    assert found.get(FUNDING, Decimal(0)) == -balance.total
    assert found.get(budget_account(UNALLOTTED), Decimal(0)) == balance.unallotted
    for phase, money in balance.phases.items():
        left = money.allowance - money.spent - money.reserved
        assert found.get(budget_account(phase), Decimal(0)) == left
        spent = sum((amount for name, amount in found.items() if name.startswith(f"spent: {phase}: ")), Decimal(0))
        assert spent == money.spent
        assert found.get(f"reserved: {phase}", Decimal(0)) == money.reserved
    assert all(entry.amount > 0 for entry in account_of(ledger))


moves = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "post", "void", "charge", "add", "move", "redeclare"]),
        st.sampled_from(list(PHASES)),
        st.integers(1, 3 * 10**8),
    ),
    max_size=12,
)


@given(moves)
def test_double_entry_agrees_with_the_ledger_whatever_happens(tmp_path_factory: pytest.TempPathFactory, drawn) -> None:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('account')}/thriftune.db")
    ledger, open_ones, total = new_ledger(store, "drawn"), [], Decimal("1.00")
    for what, phase, nano in drawn:
        if what == "reserve":
            try:
                open_ones.append(ledger.reserve(phase, "machine", nano, "a unit"))
            except OutOfBudget:
                continue
        elif what == "post" and open_ones:
            ledger.post(open_ones.pop(), nano // 2, 1.0)
        elif what == "void" and open_ones:
            ledger.void(open_ones.pop())
        elif what == "charge":
            if nano < to_nano(max(Decimal(0), ledger.balance().left)):
                ledger.charge(phase, "labels", nano, "=labels", 0.0)
        elif what == "add":
            ledger.add(Decimal(nano).scaleb(-9), "more")
        elif what == "move":
            try:
                ledger.move(phase, "evaluation", Decimal(nano).scaleb(-9), "by hand")
            except BadInput:
                continue
        elif what == "redeclare":
            total += Decimal(nano).scaleb(-9)
            ledger.open_budget(total, "USD", PHASES)
        assert_agrees(ledger)
    store.close()


def test_it_agrees_after_an_overspend_and_a_lowered_total(shared_store: Store, unused_name: str) -> None:
    ledger = new_ledger(shared_store, unused_name)
    held = ledger.reserve("training", "machine", to_nano(Decimal("0.5")), "steps")
    ledger.post(held, to_nano(Decimal("0.8")), 1.0)
    assert_agrees(ledger)
    ledger.open_budget(Decimal("0.9"), "USD", {"collection": Decimal(0), "training": Decimal("0.6")})
    assert_agrees(ledger)


def sheets(content: bytes) -> dict[str, dict[str, tuple[str, str]]]:
    """Cells of a workbook by sheet and address: (formula or empty text, value)."""
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        shared = ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
        texts = ["".join(t.text or "" for t in item.iter(f"{MAIN}t")) for item in shared.iter(f"{MAIN}si")]
        names = [s.attrib["name"] for s in ElementTree.fromstring(book.read("xl/workbook.xml")).iter(f"{MAIN}sheet")]
        found = {}
        for number, name in enumerate(names, start=1):
            cells = {}
            for cell in ElementTree.fromstring(book.read(f"xl/worksheets/sheet{number}.xml")).iter(f"{MAIN}c"):
                formula, value = cell.findtext(f"{MAIN}f") or "", cell.findtext(f"{MAIN}v") or ""
                cells[cell.attrib["r"]] = (formula, texts[int(value)] if cell.attrib.get("t") == "s" else value)
            found[name] = cells
    return found


EVIL = '=HYPERLINK("http://127.0.0.1","x")'
ENTRIES = [
    Entry(None, 0, "the project file's budget", "budget: unallotted", "funding", Decimal("1.5")),
    Entry(1.79e9, 1, EVIL, "spent: training: labels", "budget: unallotted", Decimal("0.123456789"), 3.0, True),
    Entry(1.79e9, 1, "steps", "spent: training: machine", "budget: unallotted", Decimal("0.1")),
]
PERIODS = [Period("2026-11-03", Decimal("1.0"), Decimal("1.25"))]
ACCOUNT = Account("films", "USD", ENTRIES, PERIODS)


def sumifs(formula: str, journal: dict[str, tuple[str, str]], name: str) -> Decimal:
    """What the one formula that sums the journal comes to."""
    column = re.fullmatch(r"SUMIFS\(Journal!\$([EF])\$2:\$\1\$7,Journal!\$D\$2:\$D\$7,\$A\d+\)", formula)
    assert column is not None, formula
    rows = [row for row in range(2, 8) if journal[f"D{row}"][1] == name]
    return sum((Decimal(journal.get(f"{column[1]}{row}", ("", "0"))[1] or "0") for row in rows), Decimal(0))


def test_sums_are_formulas_over_the_journal_and_their_kept_values_are_right() -> None:
    book = sheets(workbook(ACCOUNT))
    journal, accounts, billed = book["Journal"], book["Accounts"], book["Metered and billed"]
    assert [accounts[f"A{row}"][1] for row in range(2, 7)] == [*sorted(balances(ENTRIES)), "all accounts"]
    for row in range(2, 6):
        name = accounts[f"A{row}"][1]
        for letter in "BC":
            formula, value = accounts[f"{letter}{row}"]
            assert sumifs(formula, journal, name) == pytest.approx(Decimal(value), abs=Decimal("1e-12"))
        assert accounts[f"D{row}"][0] == f"B{row}-C{row}"
        assert float(accounts[f"D{row}"][1]) == pytest.approx(float(balances(ENTRIES)[name]))
    assert [accounts[f"{letter}6"] for letter in "BC"] == [
        (f"SUM({letter}2:{letter}5)", accounts["B6"][1]) for letter in "BC"
    ]
    assert billed["D2"] == ("C2-B2", "0.25")
    assert {journal[f"J{row}"][1] for row in (4, 5)} == {"0.123456789"}


def test_what_users_wrote_is_text_in_every_format() -> None:
    cells = sheets(workbook(ACCOUNT))["Journal"]
    assert cells["C4"] == ("", EVIL)
    assert not [cell for cell in cells.values() if cell[0]]
    rows = list(csv.reader(io.StringIO(table(ACCOUNT), newline="")))
    assert rows[3][2] == f"'{EVIL}" and len(rows) == 1 + 2 * len(ENTRIES)
    assert [row[4] or row[5] for row in rows[1:]] == ["1.5", "1.5", "0.123456789", "0.123456789", "0.1", "0.1"]


@given(st.text(max_size=30))
def test_no_text_begins_as_a_formula(text: str) -> None:
    assert not harmless(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert harmless(text).removeprefix("'") == text.removeprefix("'")


def test_another_kind_of_file_and_a_place_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no kind of spreadsheet"):
        write(ACCOUNT, tmp_path / "account.ods")
    (tmp_path / "none").write_text("")
    with pytest.raises(BadInput) as refused:
        write(ACCOUNT, tmp_path / "none" / "account.csv")
    assert "none" in refused.value.where
    write(ACCOUNT, tmp_path / "ACCOUNT.CSV")
    assert (tmp_path / "ACCOUNT.CSV").read_bytes().count(b"\r\n") == 7
