"""A tuning job's money and its way through the ledger, on a real ledger and against the local service."""

from dataclasses import replace
from decimal import Decimal

import pytest
import vertex

from real_context import open_context
from thriftune.budget.decisions import Decisions
from thriftune.errors import BadInput, CannotLand, Interrupted, OutOfBudget
from thriftune.managed.backends import open_backend
from thriftune.managed.job import Tuning, quote
from thriftune.managed.task import ManagedTask
from thriftune.managed.types import Order
from thriftune.money.tokens import tariff_of

MODEL = "gemini:gemini-2.5-flash"
EPOCHS = 3
ASKED, ANSWERS = [f"what is thing {i}?" for i in range(16)], [f"thing {i}" for i in range(16)]
TASK = ManagedTask("chat", MODEL, 20)
ROWS = TASK.lines(ASKED, ANSWERS)
CREATED = r"POST .*/tuningJobs$"
QUICK = ("JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED")
FAILS = ("JOB_STATE_PENDING", "JOB_STATE_FAILED")


@pytest.fixture
def context(tmp_path, service):
    service.states = QUICK
    with open_context(tmp_path / "state", "training") as opened:
        yield opened


@pytest.fixture(autouse=True)
def folder(tmp_path):
    (tmp_path / "state").mkdir()


def tuning(context, **more) -> Tuning:
    opened = open_backend(MODEL)
    price = tariff_of("vertex", opened.model, "USD").training
    made = quote(opened.backend, opened.model, [TASK.question(text) for text in ASKED], ANSWERS, EPOCHS, price)
    order = Order("thriftune-test-key", "of a test", opened.model, "", EPOCHS, None)
    recorded = context.events.read(attempt=context.attempt)
    parts = {"remaining": lambda: 1e6, "tail": lambda: 1.0, "interrupted": lambda: False} | more
    return Tuning(opened.backend, order, made, context, Decisions(context.events, recorded), **parts)


def paid(context) -> list[tuple[str, Decimal, bool]]:
    """State, amount and whether it is an estimate, of what was reserved for jobs."""
    return [(t.state, t.amount, t.estimated) for t in context.ledger.transfers() if t.category == "tokens bought"]


def test_the_upper_cost_holds_what_is_billed_and_counts_every_pass(context, service):
    made = tuning(context).quote
    assert made.counted == sum(vertex.tokens_in(text) for text in (*ASKED, *ANSWERS))
    assert made.upper_nano == made.most * EPOCHS * 5_000
    tuning(context).run(ROWS)
    (job,) = service.jobs.values()
    assert made.counted < job["_billable"] < made.most


def test_a_job_that_succeeded_is_settled_at_what_is_billed_and_never_twice(context, service):
    tuning(context).run(ROWS)
    (job,) = service.jobs.values()
    billed = job["_billable"] * EPOCHS * Decimal(5) / 1_000_000
    assert paid(context) == [("posted", billed, False)]
    tuning(context).run(ROWS)
    assert paid(context) == [("posted", billed, False)]
    assert service.count(CREATED) == 1


def test_a_job_that_failed_before_it_began_costs_nothing(context, service):
    service.states = FAILS
    job = tuning(context)
    service_create = vertex.Vertex.create

    def unstarted(self, body):
        shown = service_create(self, body)
        self.jobs[shown["name"]]["_started"] = False
        return shown

    service.create = unstarted.__get__(service)
    with pytest.raises(BadInput, match="failed"):
        job.run(ROWS)
    assert paid(context) == [("voided", Decimal(0), False)]


def test_a_job_that_failed_at_work_is_charged_as_an_estimate_and_the_next_run_sends_another(context, service):
    service.states, service.error = FAILS, "out of memory"
    with pytest.raises(BadInput, match="failed") as caught:
        tuning(context).run(ROWS)
    assert caught.value.found == "out of memory"
    ((state, amount, estimated),) = paid(context)
    assert (state, estimated) == ("posted", True)
    assert amount > 0
    service.states = QUICK
    tuning(context).run(ROWS)
    assert service.count(CREATED) == 2
    assert [state for state, _, _ in paid(context)] == ["posted", "posted"]


def test_what_is_billed_beyond_the_bound_is_charged_in_full_and_told(context, service):
    job = tuning(context)
    cheap = replace(job, quote=replace(job.quote, most=10))
    cheap.run(ROWS)
    (made,) = service.jobs.values()
    assert paid(context) == [("posted", made["_billable"] * EPOCHS * Decimal(5) / 1_000_000, False)]
    (told,) = context.events.read(kinds=["warning"])
    assert "10 were the most expected" in told.data["what"]


def test_money_that_is_not_there_sends_nothing(tmp_path, service):
    (tmp_path / "poor").mkdir()
    with open_context(tmp_path / "poor", "training", budget="1000000") as context:
        job = tuning(context)
        dear = replace(job, quote=replace(job.quote, most=10**15))
        with pytest.raises(OutOfBudget):
            dear.run(ROWS)
    assert service.count(CREATED) == service.count("POST /upload") == 0


def test_a_refused_order_gives_its_money_back(context, service):
    service.faults.append(vertex.Fault(CREATED, 403))
    with pytest.raises(BadInput, match="refuses"):
        tuning(context).run(ROWS)
    assert [state for state, _, _ in paid(context)] == ["voided"]


def test_where_nobody_knows_whether_an_order_arrived_its_money_stays_reserved(context, service, monkeypatch):
    monkeypatch.setattr("thriftune.managed.job.ATTEMPTS", 1)
    service.faults.append(vertex.Fault(CREATED, None))
    with pytest.raises(BadInput, match="does not answer"):
        tuning(context).run(ROWS)
    assert [state for state, _, _ in paid(context)] == ["pending"]
    tuning(context).run(ROWS)
    assert service.count(CREATED) == 1
    assert [state for state, _, _ in paid(context)] == ["posted"]


def test_an_interrupted_wait_leaves_the_job_and_its_money(context, service):
    service.states = ("JOB_STATE_RUNNING",)
    with pytest.raises(Interrupted) as stopped:
        tuning(context, interrupted=lambda: bool(service.jobs)).run(ROWS)
    assert "thriftune cancel" in stopped.value.way_out
    assert service.count(":cancel") == 0
    assert [state for state, _, _ in paid(context)] == ["pending"]


def test_a_wait_that_leaves_too_little_for_what_follows_cancels_the_job(context, service):
    service.states = ("JOB_STATE_QUEUED", "JOB_STATE_RUNNING")
    left = iter([1e6, 1e6, 1e6])
    with pytest.raises(CannotLand, match="cancelled"):
        tuning(context, remaining=lambda: next(left, 30.0)).run(ROWS)
    assert service.count(":cancel") == 1
    ((state, amount, estimated),) = paid(context)
    assert (state, amount > 0, estimated) == ("posted", True, True)


def test_a_job_that_succeeds_while_it_is_cancelled_is_taken(context, service):
    service.states = ("JOB_STATE_QUEUED", "JOB_STATE_SUCCEEDED")
    job = tuning(context, remaining=lambda: 30.0)
    service.cancel = lambda name: {}
    assert job.run(ROWS).state == "succeeded"
