"""The commands, in the order a user meets them."""

from __future__ import annotations

import typer

from thriftune.cli import (
    boards,
    budget,
    cancel,
    init,
    inspect,
    launch,
    prices,
    queue,
    report,
    run,
    runs,
    search,
    serve,
    status,
    timeline,
    watchdog,
)

app = typer.Typer(
    name="thriftune",
    help="Fine-tune language models to a budget and a deadline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("init")(init.init)
app.command("inspect")(inspect.inspect)
app.command("plan")(run.plan)

timeline_app = typer.Typer(cls=timeline.ShowByDefault, help="When it will be done.", invoke_without_command=True)
timeline_app.command(timeline.SHOW)(timeline.timeline)
timeline_app.command("sync")(boards.sync)
app.add_typer(timeline_app, name="timeline")

app.command("run")(run.run)
app.command("train")(run.train)
app.command("launch")(launch.launch)
app.command("cancel")(cancel.cancel)
app.command("queue")(queue.queue)
app.command("status")(status.status)
app.command("watchdog")(watchdog.watchdog)
app.command("report")(report.report)
app.command("runs")(runs.runs)
app.command("serve")(serve.serve)

budget_app = typer.Typer(help="The project's money.", no_args_is_help=True)
budget_app.command("add")(budget.add)
budget_app.command("spend")(budget.spend)
budget_app.command("import")(budget.import_bill)
budget_app.command("export")(budget.export)
app.add_typer(budget_app, name="budget")

search_app = typer.Typer(help="A search's trials, and steering it while it runs.", no_args_is_help=True)
search_app.command("list")(search.list_trials)
search_app.command("stop")(search.stop)
search_app.command("resume")(search.resume)
search_app.command("clone")(search.clone)
app.add_typer(search_app, name="search")

prices_app = typer.Typer(help="What machines cost.", invoke_without_command=True)
prices_app.callback()(prices.prices)
prices_app.command("list")(prices.list_prices)
prices_app.command("set")(prices.set_price)
prices_app.command("unset")(prices.unset_price)
prices_app.command("update")(prices.update_prices)
prices_app.command("history")(prices.price_history)
app.add_typer(prices_app, name="prices")
