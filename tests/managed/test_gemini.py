"""The provider alone: the real google-genai client against a local server that speaks the documented protocol."""

import json
import sys

import pytest
import vertex

from thriftune.errors import BadInput, MissingExtra
from thriftune.managed import patience
from thriftune.managed.backends import Opened, open_backend
from thriftune.managed.patience import patiently
from thriftune.managed.predictor import ManagedPredictor
from thriftune.managed.task import ManagedTask, example
from thriftune.managed.types import Order, Question, Unavailable

MODEL = "gemini:gemini-2.5-flash"
ROWS = [("what is a cat?", "an animal"), ("how hot is the sun?", "very hot"), ("who wrote this?", "a person")]


@pytest.fixture
def opened(service) -> Opened:
    return open_backend(MODEL)


def ask(text: str, **more) -> Question:
    return Question("", (("user", text),), 50, thinking=0, **more)


def rows() -> bytes:
    return ManagedTask("chat", MODEL, 50).lines(*zip(*ROWS, strict=True))


def order(opened: Opened, name: str = "thriftune-shop-abc-0") -> Order:
    return Order(name, "of a test", "gemini-2.5-flash", opened.backend.upload(rows()), 3, 4)


def test_a_job_is_created_watched_and_its_endpoint_answers_from_the_rows_that_were_sent(service, opened):
    job = opened.backend.create(order(opened))
    assert (job.state, job.ended) == ("waiting", False)
    (body,) = service.sent(r"POST .*/tuningJobs$")
    assert body["supervisedTuningSpec"]["hyperParameters"] == {"epochCount": 3, "adapterSize": "ADAPTER_SIZE_FOUR"}
    states = []
    while not job.ended:
        job = opened.backend.get(job.name)
        states.append(job.told)
    assert states == list(vertex.STATES[1:])
    assert job.billable_tokens == service.jobs[job.name]["_billable"] > 0
    answer = opened.backend.answer(job.endpoint, ask("how hot is it?"))
    assert (answer.text, answer.output_tokens) == ("very hot", 2)
    assert opened.backend.answer(opened.model, ask("how hot is it?")).text == "I do not know."


def test_rows_are_put_into_the_bucket_once(service, opened):
    first, second = opened.backend.upload(rows()), opened.backend.upload(rows())
    assert first == second
    assert first.startswith("gs://shop-rows/tests/thriftune/")
    assert service.count("POST /upload") == 2
    (content,) = service.objects.values()
    assert [json.loads(line)["contents"][1]["parts"][0]["text"] for line in content.splitlines()] == [
        a for _, a in ROWS
    ]


def test_a_job_is_found_by_its_display_name_on_a_later_page(service, opened, monkeypatch):
    monkeypatch.setattr("thriftune.managed.gemini.JOBS_A_PAGE", 2)
    made = [opened.backend.create(order(opened, f"thriftune-{number}")) for number in range(5)]
    found = opened.backend.find("thriftune-0")
    assert found is not None
    assert found.name == made[0].name
    assert service.count("GET .*/tuningJobs$") == 3
    assert opened.backend.find("thriftune-9") is None


def test_a_cancelled_job_and_a_failed_one_say_so(service, opened):
    job = opened.backend.create(order(opened))
    opened.backend.cancel(job.name)
    cancelled = opened.backend.get(job.name)
    assert (cancelled.state, cancelled.started) == ("cancelled", False)
    service.states, service.error = ("JOB_STATE_PENDING", "JOB_STATE_FAILED"), "row 2 has no answer"
    failed = opened.backend.get(opened.backend.create(order(opened, "another")).name)
    assert (failed.state, failed.message) == ("failed", "row 2 has no answer")


def test_a_busy_service_is_asked_again_when_it_says_so(service, opened):
    service.faults.append(vertex.Fault("countTokens", 429, {"Retry-After": "7"}))
    service.faults.append(vertex.Fault("countTokens", 503, times=2))
    pauses: list[float] = []
    assert patiently(lambda: opened.backend.count(opened.model, [ask("a b c d")]), pauses.append) == 2
    assert pauses == [7.0, 2.0, 4.0]


def test_a_service_that_stays_busy_is_given_up(service, opened):
    service.faults.append(vertex.Fault("countTokens", 500, times=99))
    pauses: list[float] = []
    with pytest.raises(BadInput, match="does not answer") as caught:
        patiently(lambda: opened.backend.count(opened.model, [ask("a")]), pauses.append)
    assert "500: told by a test, 6 times" in caught.value.found
    assert len(pauses) == patience.ATTEMPTS - 1


def test_a_dropped_connection_is_worth_another_attempt(service, opened):
    service.faults.append(vertex.Fault("countTokens", None))
    with pytest.raises(Unavailable, match="no connection"):
        opened.backend.count(opened.model, [ask("a")])


def test_a_refusal_is_told_with_the_services_words_and_without_the_token(service, opened):
    service.faults.append(vertex.Fault("tuningJobs$", 403))
    with pytest.raises(BadInput) as refused:
        opened.backend.find("x")
    assert refused.value.found == "403: told by a test"
    service.token = "another"
    with pytest.raises(BadInput, match="does not take the credentials") as unknown:
        opened.backend.get(f"{vertex.PARENT}/tuningJobs/1")
    assert "invalid authentication credentials" in unknown.value.found
    assert vertex.TOKEN not in str(unknown.value)


def test_what_the_environment_lacks_is_named(service, opened, monkeypatch):
    monkeypatch.delenv("THRIFTUNE_GEMINI_BUCKET")
    with pytest.raises(BadInput, match="no bucket") as caught:
        opened.backend.upload(b"{}")
    assert "THRIFTUNE_GEMINI_BUCKET" in caught.value.way_out
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    with pytest.raises(BadInput, match="no credentials"):
        open_backend(MODEL)


@pytest.mark.parametrize("lacking", ["google.auth", "google.genai"])
def test_without_the_client_one_message_names_the_extra(monkeypatch, lacking):
    monkeypatch.setitem(sys.modules, lacking, None)
    with pytest.raises(MissingExtra) as caught:
        open_backend(MODEL)
    assert "thriftune[gemini]" in caught.value.way_out


def test_an_answer_that_is_one_of_a_few_labels_is_asked_for_as_such(service, opened):
    task = ManagedTask("classify", MODEL, 9, ("bad", "good"))
    (prediction,) = task.predictor(opened, "untuned").predict(["a fine film"])
    assert prediction.output == "bad"
    (body,) = service.sent("generateContent")
    assert body["generationConfig"]["responseMimeType"] == "text/x.enum"
    assert body["generationConfig"]["responseSchema"]["enum"] == ["bad", "good"]
    assert body["systemInstruction"]["parts"][0]["text"].endswith("labels: bad, good")


def test_a_conversation_keeps_its_turns_and_its_system_prompt():
    task = ManagedTask("chat", MODEL, 50)
    said = [("system", "Be brief."), ("user", "hi"), ("assistant", "hello"), ("user", "who?")]
    question = task.question([{"role": role, "content": content} for role, content in said])
    row = example(question, "me")
    assert row["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert [turn["role"] for turn in row["contents"]] == ["user", "model", "user", "model"]
    assert [turn["parts"][0]["text"] for turn in row["contents"]] == ["hi", "hello", "who?", "me"]


def test_a_stream_that_a_busy_service_refuses_is_begun_again(service, opened):
    predictor = ManagedTask("chat", MODEL, 50).predictor(opened, "untuned")
    service.faults.append(vertex.Fault("streamGenerateContent", 429, {"Retry-After": "0"}))
    assert "".join(predictor.stream("hi", 50)) == "I do not know."
    service.faults.append(vertex.Fault("streamGenerateContent", 403))
    with pytest.raises(BadInput, match="refuses"):
        list(predictor.stream("hi", 50))


def test_a_key_that_google_does_not_know_is_told_without_it(service, opened):
    service.faults.append(vertex.Fault("/token", 400, times=99))
    with pytest.raises(BadInput, match="does not take the credentials") as caught:
        opened.backend.get(f"{vertex.PARENT}/tuningJobs/1")
    assert "PRIVATE" not in str(caught.value)


def test_a_stream_has_a_piece_for_each_token_and_makes_the_whole_answer(service, opened):
    predictor: ManagedPredictor = ManagedTask("chat", MODEL, 50).predictor(opened, "untuned")
    pieces = list(predictor.stream("hi", 50))
    assert "".join(pieces) == "I do not know."
    assert len(pieces) == vertex.tokens_in("I do not know.")
    assert predictor.count_tokens("hi there") == 2
