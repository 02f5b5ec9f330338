"""`thriftune budget add`: more money for a project, as a recorded decision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add(
    amount: Annotated[str, typer.Argument(help="How much more, such as 2.50, in the budget's currency.")],
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
    reason: Annotated[str, typer.Option(help="Why; it is kept with the decision.")] = "added by the user",
) -> None:
    """Add money to the budget; what is done stays done, and the next run may use it."""
    from thriftune.cli.records import load_project, opened
    from thriftune.clock import SystemClock
    from thriftune.errors import BadInput
    from thriftune.events import EventLog, latest_attempt
    from thriftune.money.amounts import shown_money
    from thriftune.money.ledger import Ledger
    from thriftune.options import parse_amount

    loaded = load_project(project)
    try:
        more = parse_amount(amount)
    except ValueError as error:
        raise BadInput("this is no amount", "AMOUNT", amount, str(error), "give one, such as 2.50") from None
    name = loaded.file.name
    with opened(loaded) as store:
        last = None if store is None else latest_attempt(store, name)
        if store is None or last is None:
            raise BadInput(
                "the project has no budget yet",
                str(project),
                "a project that was never run",
                "a project that was run",
                "set budget.total in the project file",
            )
        clock = SystemClock()
        events = EventLog(store, clock, name, last.attempt)
        balance = Ledger(store, clock, name, events).add(more, reason)
    print(
        f"{name}: {shown_money(balance.left, balance.currency)} of {shown_money(balance.total, balance.currency)} left"
    )
