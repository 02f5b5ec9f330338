"""The account as a spreadsheet: an Excel workbook whose sums are formulas, or a CSV file.

Texts of users are cells of text and never formulas: a workbook stores them as strings, and in a CSV, which has no
types, what a spreadsheet would take for a formula is put behind an apostrophe (OWASP, "CSV Injection").
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from thriftune.artifacts import write_file_atomic
from thriftune.clock import utc
from thriftune.errors import BadInput
from thriftune.money.account import Entry, balances
from thriftune.money.bills import Period

COLUMNS = (
    *("instant (UTC)", "attempt", "what", "account", "debit", "credit", "seconds", "estimated", "currency"),
    "exact amount",
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
MOST_ROWS = 1_048_575  # of a worksheet, less its header
FORMATS = (".xlsx", ".csv")


@dataclass(frozen=True)
class Account:
    """What is exported.

    Args:
        project: its name.
        currency: of all amounts.
        entries: of the account.
        periods: metered against billed.
    """

    project: str
    currency: str
    entries: Sequence[Entry]
    periods: Sequence[Period]


def write(account: Account, path: Path) -> None:
    """Write the account, whole or not at all.

    Raises:
        BadInput: the name has another ending than `.xlsx` or `.csv`, or the place cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise BadInput(
            "this is no kind of spreadsheet that is written",
            where="FILE",
            found=path.name,
            expected=f"a name that ends in {' or '.join(FORMATS)}",
            way_out="name the file so",
        )
    content = workbook(account) if path.suffix.lower() == ".xlsx" else table(account).encode()
    try:
        write_file_atomic(path, content)
    except OSError as error:
        raise BadInput(
            "the spreadsheet cannot be written",
            where=str(path),
            found=error.strerror or type(error).__name__,
            expected="a place to write a file to",
            way_out="name another place, or make room there",
        ) from error


def table(account: Account) -> str:
    """The journal as CSV, two lines an entry; amounts are exact decimal text."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n")  # RFC 4180
    writer.writerow(COLUMNS)
    for entry in account.entries:
        for line in _lines(entry, account.currency):
            writer.writerow([harmless(cell) if isinstance(cell, str) else _plain(cell) for cell in line])
    return buffer.getvalue()


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def workbook(account: Account) -> bytes:
    """The account as an Excel workbook: journal, accounts with their sums, metered against billed.

    Raises:
        BadInput: it has more lines than a worksheet holds.
    """
    from xlsxwriter import Workbook

    if 2 * len(account.entries) > MOST_ROWS:
        raise BadInput(
            "the account has more lines than a worksheet holds",
            where="FILE",
            found=f"{2 * len(account.entries):,} lines",
            expected=f"at most {MOST_ROWS:,}",
            way_out="name a file that ends in .csv",
        )
    buffer = io.BytesIO()
    book = Workbook(buffer, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    head = book.add_format({"bold": True})
    amount = book.add_format({"num_format": "#,##0.000000000"})
    _journal(book.add_worksheet("Journal"), account, head, amount)
    _accounts(book.add_worksheet("Accounts"), account, head, amount)
    _billed(book.add_worksheet("Metered and billed"), account, head, amount)
    book.close()
    return buffer.getvalue()


def _journal(sheet: Any, account: Account, head: Any, amount: Any) -> None:
    sheet.set_column(0, 0, 20)
    sheet.set_column(2, 3, 34)
    sheet.set_column(4, 5, 18, amount)
    sheet.freeze_panes(1, 0)
    for column, name in enumerate(COLUMNS):
        sheet.write_string(0, column, name, head)
    lines = [line for entry in account.entries for line in _lines(entry, account.currency)]
    for row, line in enumerate(lines, start=1):
        for column, cell in enumerate(line):
            if isinstance(cell, str):
                sheet.write_string(row, column, cell)
            elif cell is not None:
                sheet.write_number(row, column, float(cell))


def _accounts(sheet: Any, account: Account, head: Any, amount: Any) -> None:
    """Each account's debits, credits and balance by SUMIFS over the journal, and the totals that must agree."""
    sheet.set_column(0, 0, 40)
    sheet.set_column(1, 3, 20, amount)
    for column, name in enumerate(("account", "debits", "credits", "balance")):
        sheet.write_string(0, column, name, head)
    known = sorted(balances(account.entries).items())
    last = 2 * len(account.entries) + 1
    for row, (name, balance) in enumerate(known, start=1):
        debits = sum((entry.amount for entry in account.entries if entry.debit == name), Decimal(0))
        sheet.write_string(row, 0, name)
        for column, letter, value in ((1, "E", debits), (2, "F", debits - balance)):
            formula = f"=SUMIFS(Journal!${letter}$2:${letter}${last},Journal!$D$2:$D${last},$A{row + 1})"
            sheet.write_formula(row, column, formula, amount, float(value))
        sheet.write_formula(row, 3, f"=B{row + 1}-C{row + 1}", amount, float(balance))
    row = len(known) + 1
    whole = float(sum((entry.amount for entry in account.entries), Decimal(0)))
    sheet.write_string(row, 0, "all accounts", head)
    for column, sum_of in ((1, whole), (2, whole), (3, 0.0)):
        letter = "ABCD"[column]
        sheet.write_formula(row, column, f"=SUM({letter}2:{letter}{row})", amount, sum_of)


def _billed(sheet: Any, account: Account, head: Any, amount: Any) -> None:
    sheet.set_column(0, 0, 16)
    sheet.set_column(1, 3, 20, amount)
    for column, name in enumerate(("period (UTC)", "metered", "billed", "billed less metered")):
        sheet.write_string(0, column, name, head)
    for row, period in enumerate(account.periods, start=1):
        sheet.write_string(row, 0, period.name)
        sheet.write_number(row, 1, float(period.metered))
        sheet.write_number(row, 2, float(period.billed))
        sheet.write_formula(row, 3, f"=C{row + 1}-B{row + 1}", amount, float(period.difference))
    if account.periods:
        row = len(account.periods) + 1
        sheet.write_string(row, 0, "all", head)
        for letter, column in (("B", 1), ("C", 2), ("D", 3)):
            sheet.write_formula(row, column, f"=SUM({letter}2:{letter}{row})", amount)


def _lines(entry: Entry, currency: str) -> tuple[tuple[Any, ...], ...]:
    """The two lines of an entry: texts are str, numbers Decimal, int or float, an empty cell None."""
    when = "" if entry.at is None else f"{utc(entry.at):%Y-%m-%d %H:%M:%S}"
    rest = (entry.seconds, "yes" if entry.estimated else "no", currency, f"{entry.amount:f}")
    head = (when, entry.attempt, entry.what)
    return (*head, entry.debit, entry.amount, None, *rest), (*head, entry.credit, None, entry.amount, *rest)


def _plain(cell: Any) -> str:
    if cell is None:
        return ""
    return f"{cell:f}" if isinstance(cell, Decimal) else str(cell)
