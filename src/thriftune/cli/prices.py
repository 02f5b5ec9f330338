"""`thriftune prices`: the price table, a price of one's own, and reading the catalogue again."""

from __future__ import annotations

import re
import sys
from decimal import Decimal
from typing import Annotated

import typer

from thriftune.clock import SystemClock
from thriftune.errors import BadInput

PIPE_WIDTH = 200  # columns when nobody watches, so that no name is cut


def prices(context: typer.Context) -> None:
    """What machines cost: the table, cheapest first, unless a command is named."""
    if context.invoked_subcommand is None:
        list_prices()


def list_prices(
    accelerator: Annotated[str, typer.Option(help="Only machines whose accelerator contains this, such as H100.")] = "",
    provider: Annotated[str, typer.Option(help="Only this provider's.")] = "",
) -> None:
    """Show the price table, cheapest first, with the age of each price."""
    from rich.console import Console
    from rich.table import Table

    from thriftune.money.prices import OLD_AFTER_DAYS, PriceTable, local_price

    now = SystemClock().now()
    rows = PriceTable.load().matching(accelerator, provider)
    if not accelerator and provider in ("", "local"):
        rows = [local_price(), *rows]
    if not rows:
        raise BadInput(
            "no price fits",
            where="price table",
            found=f"--accelerator {accelerator!r} --provider {provider!r}",
            expected="a part of an accelerator's name, or a provider's name, that the table has",
            way_out="`thriftune prices list` shows all",
        )
    table = Table("provider", "machine", "accelerator", "region", "market", "an hour", "age", "source")
    for row in rows:
        age = row.age_days(now)
        old = age is not None and age > OLD_AFTER_DAYS
        table.add_row(
            row.provider,
            row.machine,
            f"{row.accelerator_count} x {row.accelerator}" if row.accelerator else "",
            row.region or "any",
            row.market,
            f"{row.per_hour} {row.currency}",
            "stated" if age is None else f"[yellow]{age} days[/yellow]" if old else f"{age} days",
            row.source,
        )
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def set_price(
    machine: Annotated[str, typer.Argument(help="Its name, or provider:name.")],
    price: Annotated[str, typer.Argument(help="Money an hour for one machine, such as 2.49.")],
    region: Annotated[str, typer.Option(help="Where it holds; everywhere by default.")] = "",
    market: Annotated[str, typer.Option(help="on-demand or spot.")] = "on-demand",
    currency: Annotated[str, typer.Option(help="Three letters.")] = "USD",
) -> None:
    """State a price of your own; it stands above the catalogue's."""
    from thriftune.money.history import set_price
    from thriftune.money.prices import LOCAL, MARKETS, PriceTable
    from thriftune.options import parse_amount

    provider, _, name = machine.rpartition(":")
    if market not in MARKETS:
        raise BadInput("there is no such market", "--market", market, " or ".join(MARKETS), "name one of them")
    if not re.fullmatch(r"[A-Z]{3}", currency):
        raise BadInput("this is no currency", "--currency", currency, "three capital letters, such as USD", "name one")
    if name.lower() == LOCAL:
        raise BadInput(
            "this machine's price is stated in the project file",
            where="thriftune prices set",
            found=machine,
            expected="the name of a machine to rent",
            way_out="state compute.price_per_hour, or the parts of compute.local, in thriftune.yaml",
        )
    try:
        per_hour: Decimal = parse_amount(price)
    except ValueError as error:
        raise BadInput("this is no price", "thriftune prices set", price, str(error), "give a number") from None
    own = PriceTable.load().own_price(name, per_hour, provider, region, market, currency)
    path = set_price(own, SystemClock().now())
    print(f"{own.label}: {own.per_hour} {own.currency} an hour, kept in {path}")


def unset_price(
    machine: Annotated[str, typer.Argument(help="Its name, or provider:name.")],
) -> None:
    """Take a price of your own back, so that the catalogue's holds again."""
    from thriftune.money.history import forget_price

    provider, _, name = machine.rpartition(":")
    count = forget_price(name, provider, SystemClock().now())
    if not count:
        raise BadInput(
            "there is no such price of your own",
            where="thriftune prices unset",
            found=machine,
            expected="a machine that `thriftune prices set` gave a price",
            way_out="`thriftune prices list` shows them as stated",
        )
    print(f"{_prices(count)} of {machine} taken back, and kept in the history")


def price_history(
    machine: Annotated[str, typer.Argument(help="Only machines whose name contains this.")] = "",
) -> None:
    """Show the prices that held before, the latest first."""
    from rich.console import Console
    from rich.table import Table

    from thriftune.money.history import history

    gone = [one for one in reversed(history()) if machine.lower() in one.price.machine.lower()]
    if not gone:
        print("no price was replaced yet" + (f" of a machine like {machine}" if machine else ""))
        return
    table = Table("until", "provider", "machine", "region", "market", "an hour", "price of", "source")
    for one in gone:
        row = one.price
        dated = "stated" if row.as_of is None else f"{row.as_of}"
        an_hour = f"{row.per_hour} {row.currency}"
        table.add_row(
            f"{one.at:%Y-%m-%d %H:%M}", row.provider, row.machine, row.region or "any", row.market, an_hour, dated,
            row.source,
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def update_prices(
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="A price file (.csv), a folder of the catalogue's files, or an address of either; the public"
            " catalogue by default.",
        ),
    ] = None,
) -> None:
    """Read the price catalogue again, or a price file in the table's own form; replaced prices go to the history."""
    from thriftune.money.catalogue import CATALOGUE_URL, is_table, update, update_table

    now = SystemClock().now()
    done = update_table(now, origin) if origin and is_table(origin) else update(now, origin or CATALOGUE_URL)
    for provider, rows in done.rows.items():
        print(f"{provider}: {_prices(rows)}")
    if done.absent:
        print(f"not in the catalogue: {', '.join(done.absent)}")
    if done.replaced:
        print(f"{_prices(done.replaced)} changed; what they were is in `thriftune prices history`")
    print(f"wrote {done.path}")


def _prices(count: int) -> str:
    return f"{count} price{'' if count == 1 else 's'}"
