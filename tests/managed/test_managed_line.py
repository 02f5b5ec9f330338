"""The whole line on a managed model, as child processes of their own against the local server."""

import json
import signal
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
import vertex

from line_for_tests import Line, charged
from thriftune.collect.packaged import write_packaged

PROJECT = """name: shop
objective: {{task: chat}}
data:
  - {{file: support.jsonl, prompt: prompt, completion: completion}}
budget: {{total: {budget}}}
deadline: {deadline}
compute: {{price_per_hour: 0.36}}
models: gemini:gemini-2.5-flash
evaluate: {{generate_rows: 20, resamples: 200, comparison_resamples: 1000}}
train: {{epochs: 2}}
"""
CREATED = r"POST .*/tuningJobs$"
QUICK = ("JOB_STATE_QUEUED", "JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED")
TRAINING_PRICE = Decimal(5) / 1_000_000


@dataclass(frozen=True)
class ManagedLine(Line):
    """A project whose processes find the local service."""

    service: vertex.Vertex | None = None
    key: Path | None = None

    def environment(self, **more: str) -> dict[str, str]:
        assert self.service is not None
        assert self.key is not None
        return super().environment(**vertex.environment(self.service.url, self.key) | more)

    def everything_kept(self) -> bytes:
        """All bytes that the project's state and the user's folder hold."""
        places = (self.folder / ".thriftune", self.home)
        return b"".join(file.read_bytes() for place in places for file in place.rglob("*") if file.is_file())


@pytest.fixture
def line(tmp_path: Path, service: vertex.Vertex) -> ManagedLine:
    folder = tmp_path / "shop"
    folder.mkdir()
    write_packaged("support", folder / "all.jsonl")
    rows = (folder / "all.jsonl").read_text().splitlines()
    (folder / "support.jsonl").write_text("\n".join(rows[:200]) + "\n")
    service.states = QUICK
    made = ManagedLine(folder, tmp_path / "home", service=service, key=tmp_path / "key.json")
    write_project(made)
    return made


def write_project(line: Line, budget: str = "5.00", deadline: str = "6h") -> None:
    (line.folder / "thriftune.yaml").write_text(PROJECT.format(budget=budget, deadline=deadline))


def bought(line: Line) -> dict[str, Decimal]:
    """Money charged for tokens, by phase."""
    found: dict[str, Decimal] = {}
    for charge in line.events("charge"):
        if charge["category"] == "tokens bought":
            found[charge["phase"]] = found.get(charge["phase"], Decimal(0)) + Decimal(charge["amount"])
    return found


@pytest.mark.slow
def test_a_run_ends_with_an_endpoint_that_is_judged_paid_reported_and_served(line, service):
    ended = line.do("run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert service.count(CREATED) == 1
    (job,) = service.jobs.values()
    assert job["supervisedTuningSpec"]["hyperParameters"]["epochCount"] == 2

    scores = {event["predictor"]: event for event in line.events("evaluation.scores")}
    assert set(scores) == {"majority", "retrieval", "untuned", "tuned"}
    assert {event["baseline"] for event in line.events("evaluation.comparison")} == set(scores) - {"tuned"}
    assert scores["tuned"]["metrics"]["rougeL"]["value"] > scores["untuned"]["metrics"]["rougeL"]["value"]

    paid = bought(line)
    assert paid["training"] == job["_billable"] * 2 * TRAINING_PRICE
    usage = [vertex.tokens_in(vertex.text_of(b["contents"][-1])) for b in service.sent(":generateContent")]
    assert paid["evaluation"] >= sum(usage) * Decimal("0.3") / 1_000_000
    ((spent, reserved),) = line.rows("SELECT spent_nano, reserved_nano FROM budgets")
    assert (Decimal(spent).scaleb(-9), reserved) == (charged(line), 0)
    assert "tuning job" in ended.stdout
    assert "days old" in ended.stdout  # the prices that ship are dated

    again = line.do("run")
    assert again.returncode == 0, again.stderr
    assert service.count(CREATED) == 1

    report = line.do("report")
    assert report.returncode == 0, report.stderr
    secret = json.loads((line.key or Path()).read_text())["private_key"].splitlines()[1]
    kept = line.everything_kept() + (ended.stdout + ended.stderr + report.stdout + again.stdout).encode()
    for text in (vertex.TOKEN, secret):
        assert text.encode() not in kept
    assert_served(line, service)


def assert_served(line, service):
    served = line.start("serve", "--port", "0")
    try:
        address = served.stdout.readline().split(" answers at ")[1].split()[0]
        question = service.objects[next(iter(service.objects))].splitlines()[0]
        asked = json.loads(question)["contents"]
        body = {"messages": [{"role": "user", "content": asked[0]["parts"][0]["text"]}]}
        whole = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=30).json()
        assert whole["choices"][0]["message"]["content"] == asked[1]["parts"][0]["text"].strip()
        assert whole["usage"]["completion_tokens"] > 0
        limited = body | {"max_tokens": 1}
        short = httpx.post(f"{address}/v1/chat/completions", json=limited, timeout=30).json()
        assert short["usage"]["completion_tokens"] == 1
        assert short["choices"][0]["finish_reason"] == "length"
    finally:
        served.send_signal(signal.SIGTERM)
        served.communicate(timeout=30)
    assert served.returncode == 0


def test_a_budget_that_does_not_hold_the_job_sends_none_and_says_what_it_costs(line, service):
    write_project(line, budget="0.15")
    ended = line.do("run")
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "the tuning job costs up to" in ended.stderr
    assert "set budget.total to" in ended.stderr
    assert service.count(CREATED) == 0
    assert service.count("POST /upload") == 0
    assert service.count("generateContent") == 0
    assert bought(line) == {}


def test_a_plan_prices_the_job_and_sends_nothing(line, service):
    plan = line.json("plan")
    assert service.count(CREATED) == 0
    assert plan["tokens"] > 0
    assert Decimal(plan["to_buy"]) > 0
    assert {part["what"] for part in plan["parts"]} >= {"untuned", "train", "tuned"}


@pytest.mark.slow
@pytest.mark.parametrize("when", ["decision", "job.sent"])
def test_a_killed_run_comes_back_to_its_job_and_never_sends_a_second_one(line, service, when):
    service.states = ("JOB_STATE_QUEUED", *["JOB_STATE_RUNNING"] * 3, "JOB_STATE_SUCCEEDED")
    if when == "job.sent":  # after the job was sent, before its name was recorded
        line.run_killed_at("job.sent")
    else:
        process = line.start("run")
        line.wait_for("job.state", 2)
        process.kill()
        process.communicate()
    assert service.count(CREATED) == 1
    ((_, held),) = line.rows("SELECT spent_nano, reserved_nano FROM budgets")
    assert held > 0
    ended = line.do("run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert service.count(CREATED) == 1
    (job,) = service.jobs.values()
    assert bought(line)["training"] == job["_billable"] * 2 * TRAINING_PRICE
    ((spent, reserved),) = line.rows("SELECT spent_nano, reserved_nano FROM budgets")
    assert (Decimal(spent).scaleb(-9), reserved) == (charged(line), 0)


@pytest.mark.slow
def test_a_user_who_stops_leaves_the_job_comes_back_to_it_or_cancels_it(line, service):
    service.states = ("JOB_STATE_RUNNING",)
    process = line.start("run")
    line.wait_for("job.state")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on at its provider" in told
    assert "thriftune cancel" in told
    assert service.count(":cancel") == 0
    cancelled = line.do("cancel")
    assert cancelled.returncode == 0, cancelled.stderr
    assert service.count(":cancel") == 1
    service.states = QUICK
    ended = line.do("run")  # settles the cancelled one, and sends another
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert service.count(CREATED) == 2
    assert len([c for c in line.events("charge") if c["unit"].startswith("tuning job")]) == 2


def test_a_job_of_rows_that_were_changed_since_is_not_taken_for_theirs(line, service):
    service.states = ("JOB_STATE_QUEUED", *["JOB_STATE_RUNNING"] * 50)
    process = line.start("run")
    line.wait_for("job.state", 2)
    process.kill()
    process.communicate()
    service.states = QUICK
    rows = (line.folder / "support.jsonl").read_text().splitlines()
    (line.folder / "support.jsonl").write_text("\n".join(rows[:150]) + "\n")
    ended = line.do("run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert service.count(CREATED) == 2
    assert "may be at work, of rows or settings that were changed since" in ended.stdout
    assert len({body["supervisedTuningSpec"]["trainingDatasetUri"] for body in service.sent(CREATED)}) == 2


def test_a_job_that_the_deadline_does_not_hold_is_cancelled(line, service):
    service.states = ("JOB_STATE_RUNNING",)
    began = time.time()
    write_project(line, deadline="25m")
    process = line.start("run")
    line.wait_for("job.state")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    write_project(line, deadline=f"{time.time() - began + 75:.0f}s")  # too little to wait for a call and to judge
    ended = line.do("run")
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert service.count(":cancel") == 1
    assert service.count(CREATED) == 1


@pytest.mark.slow
def test_a_job_that_fails_ends_the_run_with_the_services_words_and_is_sent_anew(line, service):
    service.states = ("JOB_STATE_PENDING", "JOB_STATE_FAILED")
    service.error = "The dataset has an invalid row."
    ended = line.do("run")
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "The dataset has an invalid row." in ended.stderr
    service.states = QUICK
    ended = line.do("run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert service.count(CREATED) == 2


@pytest.mark.slow
def test_a_service_that_stumbles_everywhere_is_asked_again_and_gets_one_order(line, service):
    service.faults += [
        vertex.Fault("countTokens", 429, {"Retry-After": "0"}),
        vertex.Fault("POST /upload", 503),
        vertex.Fault(CREATED, None),  # it was made, and its answer was lost
        vertex.Fault(r"GET .*/tuningJobs/\d+", 429, {"Retry-After": "1"}),
        vertex.Fault(r"GET .*/tuningJobs/\d+", 500),
        vertex.Fault("generateContent", 429, {"Retry-After": "1"}, times=3),
    ]
    ended = line.do("run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not any(fault.times for fault in service.faults)
    assert service.count(CREATED) == 1


@pytest.mark.slow
def test_a_classifier_is_tuned_judged_and_served_by_its_labels(line, service):
    write_packaged("movie", line.folder / "all.jsonl")
    rows = [json.loads(row) for row in (line.folder / "all.jsonl").read_text().splitlines()]
    drawn = [row for label in ("negative", "positive") for row in [r for r in rows if r["label"] == label][:100]]
    (line.folder / "films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drawn))
    text = PROJECT.format(budget="5.00", deadline="6h").replace("task: chat", "task: classify")
    text = text.replace(
        "support.jsonl, prompt: prompt, completion: completion", "films.jsonl, text: text, label: label"
    )
    (line.folder / "thriftune.yaml").write_text(text)
    ended = line.do("run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    scores = {event["predictor"]: event["metrics"] for event in line.events("evaluation.scores")}
    assert set(scores) == {"majority", "tfidf", "untuned", "tuned"}
    assert scores["tuned"]["f1_macro"]["value"] > scores["untuned"]["f1_macro"]["value"]
    (content,) = service.objects.values()
    first = json.loads(content.splitlines()[0])["contents"]
    served = line.start("serve", "--port", "0")
    try:
        address = served.stdout.readline().split(" answers at ")[1].split()[0]
        answer = httpx.post(f"{address}/predict", json={"text": first[0]["parts"][0]["text"]}, timeout=30).json()
        assert answer["label"] == first[1]["parts"][0]["text"]
    finally:
        served.send_signal(signal.SIGTERM)
        served.communicate(timeout=30)
