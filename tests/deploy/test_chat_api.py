import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import RELEASE, ByteChat, metric, serving

from thriftune.deploy.chat import StopFilter
from thriftune.deploy.protocols import StreamingPredictor
from thriftune.tasks.base import Prediction

PATH = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client():
    with serving(ByteChat(), "chat") as client:
        yield client


def ask(client, **body):
    return client.post(PATH, json={"model": RELEASE, "messages": HELLO} | body)


def events(answer) -> list[dict]:
    """The server-sent events of a streamed answer, the last of which must be [DONE]."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    *blocks, end = answer.text.split("\n\n")
    assert end == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


def said(chunks: list[dict]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])


def test_an_answer_has_openai_s_form(client):
    before = int(time.time())
    answer = ask(client).json()
    text = ByteChat().predict([HELLO])[0].output
    assert answer.pop("id").startswith("chatcmpl-")
    assert before <= answer.pop("created") <= time.time()
    assert answer == {
        "object": "chat.completion",
        "model": RELEASE,
        "system_fingerprint": RELEASE,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 24, "total_tokens": 36},
    }


def test_a_streamed_answer_has_openai_s_form_and_the_same_text(client):
    chunks = events(ask(client, stream=True))
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert all(chunk["object"] == "chat.completion.chunk" and "usage" not in chunk for chunk in chunks)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])
    assert said(chunks) == ask(client).json()["choices"][0]["message"]["content"]
    assert len(chunks) == 26  # the role, 24 tokens, the end


def test_usage_comes_in_a_last_chunk_when_asked_for(client):
    *chunks, last = events(ask(client, stream=True, stream_options={"include_usage": True}, max_tokens=5))
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    assert all(chunk["usage"] is None for chunk in chunks)


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_cuts_the_answer_and_says_so(client, key):
    whole = ask(client).json()["choices"][0]["message"]["content"]
    answer = ask(client, **{key: 7}).json()
    assert answer["choices"][0]["message"]["content"] == whole[:7]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 7


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_ends_the_answer_before_it(client, stream):
    sampled = {"temperature": 1, "seed": 5}
    whole = ask(client, **sampled).json()["choices"][0]["message"]["content"]
    stop = whole[6:9]
    answer = ask(client, stop=["never said, surely", stop], stream=stream, **sampled)
    if stream:
        chunks = events(answer)
        text, reason = said(chunks), chunks[-1]["choices"][0]["finish_reason"]
    else:
        choice = answer.json()["choices"][0]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    assert text == whole[: whole.index(stop)]
    assert reason == "stop"


@given(st.lists(st.text("ab", max_size=3), max_size=12), st.text("ab", min_size=1, max_size=4))
def test_the_stop_filter_shows_exactly_what_stands_before_the_stop(pieces, stop):
    stops = StopFilter([stop])
    shown = ""
    for piece in pieces:
        shown += stops.push(piece)
        if stops.stopped:
            break
    shown += stops.rest()
    whole = "".join(pieces)
    assert shown == whole.split(stop)[0]
    assert stops.stopped == (stop in whole)


@given(st.lists(st.text("abc", max_size=2), max_size=12), st.lists(st.text("abc", min_size=1, max_size=3), max_size=4))
def test_the_stop_filter_never_shows_a_stop_sequence(pieces, several):
    stops = StopFilter(several)
    shown = ""
    for piece in pieces:
        shown += stops.push(piece)
        if stops.stopped:
            break
    shown += stops.rest()
    assert not any(stop in shown for stop in several)
    assert "".join(pieces).startswith(shown)


def test_sampling_repeats_with_its_seed_even_when_streams_take_turns(client):
    def sample(seed):
        return ask(client, temperature=1.5, seed=seed).json()["choices"][0]["message"]["content"]

    alone = [sample(seed) for seed in range(4)]
    assert len(set(alone)) == 4
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(sample, range(4)))
    assert together == alone


def test_greedy_is_the_default(client):
    assert ask(client).json()["choices"] == ask(client, temperature=0).json()["choices"]


def test_all_turns_are_cleaned_and_text_parts_joined():
    seen = []

    class Recorder(ByteChat):
        def predict(self, requests):
            seen.extend(requests)
            return super().predict(requests)

    with serving(Recorder(), "chat", clean=str.upper) as client:
        messages = [
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
        ]
        assert ask(client, messages=messages).status_code == 200
    assert seen == [[{"role": "system", "content": "BE KIND"}, {"role": "user", "content": "ONE TWO"}]]


BAD = {
    "no messages": ({"messages": None}, "messages"),
    "messages empty": ({"messages": []}, "messages"),
    "message no object": ({"messages": ["hi"]}, "messages[0]"),
    "unknown role": ({"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
    "role no string": ({"messages": [{"role": {}, "content": "a"}]}, "messages[0].role"),
    "tool role": ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "1"}]}, "messages[0].tool_call_id"),
    "content null": ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    "content empty": ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
    "content NUL": ({"messages": [{"role": "user", "content": "a\0"}]}, "messages[0].content"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
    "no parts": ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    "temperature": ({"temperature": 2.1}, "temperature"),
    "temperature boolean": ({"temperature": True}, "temperature"),
    "temperature text": ({"temperature": "0"}, "temperature"),
    "max_tokens zero": ({"max_tokens": 0}, "max_tokens"),
    "max_tokens float": ({"max_tokens": 1.5}, "max_tokens"),
    "two limits": ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    "seed": ({"seed": "a"}, "seed"),
    "seed too large": ({"seed": 2**70}, "seed"),
    "stop": ({"stop": 3}, "stop"),
    "stop empty": ({"stop": [""]}, "stop"),
    "five stops": ({"stop": list("abcde")}, "stop"),
    "stream": ({"stream": "yes"}, "stream"),
    "stream_options alone": ({"stream_options": {"include_usage": True}}, "stream_options"),
    "stream_options": ({"stream": True, "stream_options": {"x": 1}}, "stream_options"),
    "n": ({"n": 2}, "n"),
    "top_p": ({"top_p": 0.5}, "top_p"),
    "logprobs": ({"logprobs": True}, "logprobs"),
    "tools": ({"tools": [{"type": "function"}]}, "tools"),
    "json mode": ({"response_format": {"type": "json_object"}}, "response_format"),
    "penalty": ({"frequency_penalty": 0.1}, "frequency_penalty"),
    "unknown key": ({"beam_width": 3}, "beam_width"),
    "model": ({"model": 3}, "model"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_or_not_supported_is_refused_by_name(client, case):
    body, param = BAD[case]
    answer = ask(client, **body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert param.split("[")[0] in error["message"]


def test_settings_that_ask_for_nothing_are_accepted(client):
    neutral = {
        "n": 1,
        "top_p": 1,
        "logprobs": False,
        "presence_penalty": 0.0,
        "tools": None,
        "user": "me",
        "stop": None,
    }
    assert ask(client, response_format={"type": "text"}, **neutral).status_code == 200


def test_the_model_is_named_by_the_release_or_its_predictor_or_not_at_all(client):
    assert client.get("/v1/models").json()["data"][0]["id"] == RELEASE
    for model in (RELEASE, "tuned", None):
        assert ask(client, model=model).json()["model"] == RELEASE
    answer = ask(client, model="gpt-9")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_a_conversation_that_leaves_no_room_for_its_answer_is_refused(client):
    messages = [{"role": "user", "content": "x" * 170}]  # 177 bytes with the role, of 200
    for stream in (False, True):
        answer = ask(client, messages=messages, stream=stream)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert ask(client, messages=messages, max_tokens=10).status_code == 200


def test_a_stream_does_not_hold_up_other_requests():
    slow = {"messages": HELLO, "stream": True, "max_tokens": 100}
    with (
        serving(ByteChat(pause_seconds=0.02), "chat") as client,
        ThreadPoolExecutor(2) as pool,
        client.stream("POST", PATH, json=slow) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        quick = pool.submit(ask, client, max_tokens=2)
        assert quick.result(timeout=5).status_code == 200
        rest = sum(line.startswith("data: ") for line in lines)
    assert rest > 50  # most of the slow answer came after the quick one


def test_a_client_that_leaves_ends_the_generation():
    model = ByteChat(pause_seconds=0.01)
    with serving(model, "chat") as client:
        with client.stream("POST", PATH, json={"messages": HELLO, "stream": True, "max_tokens": 180}) as stream:
            next(stream.iter_lines())
        time.sleep(0.2)
        generated = model.generated
        time.sleep(0.2)
        assert model.generated == generated < 180
        assert metric(client, "thriftune_requests_in_flight") == 1


def test_a_stream_that_breaks_says_so_in_its_last_event():
    class Breaking(ByteChat):
        def stream(self, *args):
            yield from list(super().stream(*args))[:3]
            raise RuntimeError("secret detail")

    with serving(Breaking(), "chat") as client:
        answer = ask(client, stream=True)
        assert client.get("/healthz").status_code == 200
    assert answer.text.count("data: ") == 5
    assert "[DONE]" not in answer.text
    assert "broke off" in json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))["error"]["message"]
    assert "secret" not in answer.text


def test_tokens_and_time_to_the_first_are_counted():
    with serving(ByteChat(), "chat") as client:
        ask(client, stream=True, max_tokens=4)
        ask(client)
        assert metric(client, 'thriftune_tokens_total{kind="prompt"}') == 24
        assert metric(client, 'thriftune_tokens_total{kind="completion"}') == 28
        assert metric(client, "thriftune_first_token_seconds_count") == 1


class WholeAnswers:
    """A predictor that cannot stream: a canned answer, as a retrieval baseline gives."""

    name = "canned"

    def predict(self, requests):
        return [Prediction("have you tried turning it off and on again") for _ in requests]


def test_a_predictor_that_cannot_stream_answers_in_one_chunk_and_refuses_what_it_cannot_do():
    assert isinstance(ByteChat(), StreamingPredictor)
    assert not isinstance(WholeAnswers(), StreamingPredictor)
    with serving(WholeAnswers(), "chat") as client:
        chunks = events(ask(client, stream=True))
        whole = ask(client).json()
        stopped = ask(client, stop=" turning").json()
        refused = [ask(client, temperature=1), ask(client, max_tokens=3)]
    assert said(chunks) == whole["choices"][0]["message"]["content"] == "have you tried turning it off and on again"
    assert len(chunks) == 3
    assert "usage" not in whole
    assert stopped["choices"][0]["message"]["content"] == "have you tried"
    assert [answer.json()["error"]["code"] for answer in refused] == ["unsupported_value"] * 2
