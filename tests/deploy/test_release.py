import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import ByteChat, ByteClassifier, serving

from models_for_tests import bert_folder, llama_folder
from real_context import open_context
from thriftune.deploy.release import latest_tuned, open_release
from thriftune.errors import BadInput
from thriftune.models.reference import resolve
from thriftune.prepare.serving import STEPS, clean_frame, serving_pipeline
from thriftune.tasks.chat import ChatTask
from thriftune.tasks.classify import ClassifyTask
from thriftune.train.train import ABOUT_FILE

MESSY = [
    "plain text",
    "  spaces\u00a0\u2003here  and\r\nthere ",
    "it\u00e2\u0080\u0099s mojibake, schÃ¶n",
    "&amp;lt;b&amp;gt; &quot;twice&quot; &notanentity;",
    "e\u0301 becomes one character \ufb01 stays",
    "\u200bzero\ufeffwidth\u0007bell",
    "😀 emoji \U0001f468\u200d\U0001f469\u200d\U0001f467 and عربى",
    "line one\n\n\n\nline two\ttab",
]


class Recorder(ByteClassifier):
    """Notes the texts that the model is given."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list = []

    def predict(self, requests):
        self.read.extend(requests)
        return super().predict(requests)


def cleaned_for_training(frame: pl.DataFrame) -> pl.DataFrame:
    for step in STEPS.values():
        frame, _ = clean_frame(frame, step)
    return frame


@pytest.fixture(scope="module")
def recording():
    recorder = Recorder()
    with serving(recorder, clean=serving_pipeline(list(STEPS)), max_wait_ms=0) as client:
        yield recorder, client


def check_same_bytes(recording, texts: list[str]) -> None:
    recorder, client = recording
    frame = pl.DataFrame({"text": texts, "target": ["a"] * len(texts)})
    expected = cleaned_for_training(frame)["text"].to_list()
    recorder.read.clear()
    answer = client.post("/predict", json={"texts": texts})
    if all(text.strip() for text in expected):
        assert answer.status_code == 200
        assert [text.encode() for text in recorder.read] == [text.encode() for text in expected]
    else:
        assert answer.status_code == 400


def test_the_server_s_model_reads_the_bytes_that_training_read(recording):
    check_same_bytes(recording, MESSY)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip),
        min_size=1,
        max_size=4,
    )
)
def test_the_server_s_model_reads_the_bytes_that_training_read_whatever_they_are(recording, texts):
    check_same_bytes(recording, texts)


def test_every_turn_of_a_conversation_is_cleaned_as_in_training():
    read: list = []

    class Reader(ByteChat):
        def predict(self, requests):
            read.extend(requests)
            return super().predict(requests)

    from thriftune.collect.turns import from_python

    turns = [{"role": role, "content": text} for role, text in zip(["system", "user"], MESSY[1:3], strict=True)]
    frame = cleaned_for_training(pl.DataFrame([from_python([turns]), pl.Series("target", ["a"])]))
    with serving(Reader(), "chat", clean=serving_pipeline(list(STEPS))) as client:
        assert client.post("/v1/chat/completions", json={"messages": turns}).status_code == 200
    assert read == frame["messages"].to_list()


def trained(context, task, steps: list[str]) -> None:
    """An artifact as the training stage leaves it."""

    def write(folder: Path) -> None:
        model = task.build()
        task.save(model, folder)
        (folder / ABOUT_FILE).write_text(json.dumps({"serving_steps": steps, "outcome": {}}))

    context.artifacts.build("train", "k1", {}, write)
    context.events.emit("stage.finished", stage="train", key="k1", seconds=1.0, reused=False)
    context.events.emit("stage.finished", stage="train", key="", seconds=1.0, reused=False)


def test_the_latest_tuned_classifier_opens_and_answers_over_http(tmp_path):
    task = ClassifyTask(resolve(str(bert_folder(tmp_path / "bert"))), ("bad", "good"), max_tokens=32)
    with open_context(tmp_path, "training") as context:
        trained(context, task, ["whitespace"])
        artifact = latest_tuned(context.events, context.artifacts)
    release = open_release(artifact)
    assert release.task == "classify"
    assert release.name == f"tuned-{artifact.content_hash[:12]}"
    assert release.clean(" a film\r\n") == "a film"
    expected = task.predictor(task.build(), "tuned").predict(["the film was good"])[0]
    with serving(release.predictor, release.task, release.clean) as client:
        answer = client.post("/predict", json={"text": "  the film was good\n"}).json()
    assert answer["scores"] == pytest.approx(expected.scores, abs=1e-6)


def test_the_latest_tuned_chat_model_opens_and_streams_what_it_answers_whole(tmp_path):
    task = ChatTask(resolve(str(llama_folder(tmp_path / "llama"))), max_tokens=200, max_new_tokens=8)
    with open_context(tmp_path, "training") as context:
        trained(context, task, [])
        release = open_release(latest_tuned(context.events, context.artifacts))
    body = {"messages": [{"role": "user", "content": "how do i film it?"}]}
    with serving(release.predictor, release.task, release.clean) as client:
        whole = client.post("/v1/chat/completions", json=body)
        stream = client.post("/v1/chat/completions", json=body | {"stream": True})
    assert whole.status_code == stream.status_code == 200
    chunks = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text.strip() == whole.json()["choices"][0]["message"]["content"]


def test_without_a_trained_model_there_is_one_clear_message(tmp_path):
    with open_context(tmp_path, "training") as context, pytest.raises(BadInput) as refusal:
        latest_tuned(context.events, context.artifacts)
    assert "no run has trained one yet" in str(refusal.value)
    assert "thriftune run" in str(refusal.value)


def test_a_model_that_was_removed_is_named_as_such(tmp_path):
    with open_context(tmp_path, "training") as context:
        context.events.emit("stage.finished", stage="train", key="gone", seconds=1.0, reused=False)
        with pytest.raises(BadInput) as refusal:
            latest_tuned(context.events, context.artifacts)
    assert "damaged or was removed" in str(refusal.value)
