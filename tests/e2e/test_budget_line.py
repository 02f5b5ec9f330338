"""The budget while a real run is at work: reviews, a move, alerts, then what was bought, a bill, a spreadsheet."""

import csv
import json
import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from line_for_tests import CLASSIFY, Line, charged, classifier, write_films
from models_for_tests import bert_folder

KEEP = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"
LAYERS = 4
ROWS = 6000
BUDGET = "budget: {{total: {budget}, categories: {{machine: 0.012}}, may: [deeper_freeze], notify: {notify}}}"
TEXT = (
    CLASSIFY.replace("budget: {{total: {budget}}}", BUDGET)
    .replace("patience: 1000", "patience: 1")
    .replace("price_per_hour: 3.6", "price_per_hour: 3.6, stop: {stop}")
)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A project whose budget does not hold its epochs: killed in its first steps, run to its end, then bought for."""
    folder = tmp_path_factory.mktemp("budget")
    script = folder / "keep.py"
    script.write_text(KEEP)
    made = classifier(
        folder / "films",
        bert_folder(folder / "bert", layers=LAYERS),
        folder / "home",
        TEXT,
        budget="0.50",
        epochs=1000,
        notify=f"'{sys.executable} {script} {folder / 'told'}'",
        stop=f"'{sys.executable} {script} {folder / 'stopped'}'",
    )
    write_films(made.folder / "films.csv", ROWS)
    made.run_killed_at("step.done:5")
    watched = made.do("watchdog", "--once")
    assert watched.returncode == 0 and "its lease was ended" in watched.stdout, (watched.stdout, watched.stderr)
    ended = made.do("run")
    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    return made


def told(line: Line) -> list[dict]:
    return [json.loads(text) for text in (line.folder.parent / "told").read_text().splitlines()]


def test_a_run_in_danger_freezes_more_layers_once_and_says_why(line: Line) -> None:
    (decision,) = [event for event in line.events("decision") if event["what"] == "deeper_freeze"]
    assert 1 <= decision["chosen"] < LAYERS and "the budget leaves" in decision["because"]
    report = line.json("report")
    probed = [review for review in report["reviews"] if review["when"] == "training was probed"]
    (first,) = [p for p in probed[0]["proposals"] if p["move"] == "deeper_freeze"]
    assert first["allowed"] and first["taken"] and first["saves_seconds"] > 0
    assert Decimal(first["saves_money"]) == pytest.approx(Decimal(first["saves_seconds"]) / 1000, rel=Decimal("1e-6"))
    boundaries = [review["when"] for review in report["reviews"]]
    assert "collection is over, evaluation begins with baselines" in boundaries
    assert "training is over, evaluation begins with open" in boundaries
    assert "of which found the total in danger" in line.do("report").stdout


def test_the_machine_that_a_killed_run_left_was_charged_and_stopped(line: Line) -> None:
    (ended,) = line.events("lease.ended")
    (stopped,) = line.events("machine.stopped")
    assert stopped["status"] == 0 and stopped["machine"] == ended["machine"]
    assert line.json("report")["watchdog"] != []
    nobody = line.do("watchdog", "--once")
    assert nobody.returncode == 0 and "nobody is at work" in nobody.stdout
    assert len(line.events("machine.stopped")) == 1


def test_alerts_are_recorded_shown_and_handed_on_once_through_a_kill(line: Line) -> None:
    alerts = line.events("alert")
    keys = [(alert["scope"], alert["name"], alert["level"], alert["account"]) for alert in alerts]
    assert len(set(keys)) == len(keys) and ("category", "machine", 100, 0) in keys
    handed = [(each["scope"], each["name"], each["level"], each["account"]) for each in told(line)]
    assert sorted(handed) == sorted(keys)
    report = line.json("report")
    assert sorted(alert["text"] for alert in report["alerts"]) == sorted(each["text"] for each in told(line))
    assert len(report["alerts"]) == len(alerts) and "% of the allowance for machine spent" in line.do("report").stdout


def test_what_the_machine_did_is_told_by_phase(line: Line) -> None:
    use = line.json("report")["utilisation"]
    training = use["by_phase"]["training"]
    assert 0 < training["cpu"] <= 1.05 and 0 < training["memory_peak"] < 1 and training["seconds"] > 0
    assert Decimal(training["idle_cost"]) == pytest.approx(
        Decimal(training["idle_seconds"]) / 1000, abs=Decimal("1e-6")
    )
    assert use["suggestion"] is None or use["suggestion"]["direction"] in ("up", "down", "stay")


def test_kinds_of_cost_sum_to_what_was_spent_and_labels_can_be_paid_by_hand(line: Line) -> None:
    before = Decimal(line.json("report")["cost"]["spent"])
    paid = line.do("budget", "spend", "0.011", "--on", "labels", "--phase", "collection", "--what", "=200 labels")
    assert paid.returncode == 0, paid.stderr
    cost = line.json("report")["cost"]
    assert Decimal(cost["by_category"]["labels"]["spent"]) == Decimal("0.011")
    assert sum(Decimal(kind["spent"]) for kind in cost["by_category"].values()) == Decimal(cost["spent"])
    assert Decimal(cost["spent"]) == before + Decimal("0.011") == charged(line)
    assert cost["energy"]["kwh"] > 0 and re.search("not measured|by codecarbon", cost["energy"]["basis"])
    page = next((line.folder / ".thriftune" / "reports").glob("*.html"))
    line.do("report", "--html", str(page))
    assert "By kind of cost" in page.read_text() and "Use of the machine" in page.read_text()
    for wrong in (["--on", "coffee"], ["--on", "labels", "--phase", "lunch"]):
        refused = line.do("budget", "spend", "1", *wrong)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr and "way out" in refused.stderr


BILL = (
    "BilledCost,BillingCurrency,BillingPeriodEnd,BillingPeriodStart,ChargeCategory,ChargePeriodEnd,"
    "ChargePeriodStart,ServiceName,ResourceId"
)


def test_a_bill_is_imported_once_and_held_against_what_was_metered(line: Line, tmp_path: Path) -> None:
    started = datetime.fromtimestamp(line.events("attempt.started")[0]["started_at"], UTC)
    month = started.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    began, ended = (f"{instant:%Y-%m-%dT%H:%M:%SZ}" for instant in (month, month + timedelta(days=32)))
    rows = [f"{cost},USD,{ended},{began},Usage,{ended},{began},Compute,{name}" for cost, name in ((1.5, "a"), (9, "b"))]
    (tmp_path / "bill.csv").write_text("\n".join([BILL, *rows]) + "\n")
    for new in (1, 0):
        done = line.do("budget", "import", str(tmp_path / "bill.csv"), "--resource", "a")
        assert done.returncode == 0 and f"{new} charges are new" in done.stdout, done.stderr
    (period,) = line.json("report")["billed"]
    assert period["billed"] == "1.5" and Decimal(period["metered"]) == charged(line)
    assert "Metered and billed" in line.do("report").stdout
    (tmp_path / "bill.csv").write_text("\n".join([BILL, rows[0].replace("1.5", "much")]) + "\n")
    refused = line.do("budget", "import", str(tmp_path / "bill.csv"))
    assert refused.returncode == 2 and "line 2, column BilledCost" in refused.stderr


def test_the_account_is_written_as_a_spreadsheet(line: Line, tmp_path: Path) -> None:
    for name in ("account.csv", "account.xlsx"):
        done = line.do("budget", "export", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "account.csv").open(newline="")))
    debits, credits = (sum(Decimal(row[side] or 0) for row in rows) for side in ("debit", "credit"))
    assert debits == credits
    spent = [row for row in rows if row["account"].startswith("spent: ")]
    assert sum(Decimal(row["debit"] or 0) for row in spent) == charged(line)
    assert (tmp_path / "account.xlsx").read_bytes()[:2] == b"PK"


def test_a_run_at_work_is_not_touched_by_the_watchdog(line: Line) -> None:
    at_work = line.start("run")
    line.wait_for("attempt.started", len(line.events("attempt.started")) + 1)
    watched = line.do("watchdog", "--once")
    assert f"process {at_work.pid} is alive" in watched.stdout
    assert at_work.poll() is None
    at_work.send_signal(signal.SIGINT)
    at_work.communicate()
    assert len(line.events("lease.ended")) == 1
