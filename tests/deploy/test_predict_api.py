import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from served import RELEASE, ByteClassifier, SlowClassifier, metric, serving

from thriftune.deploy import serve as serve_module
from thriftune.errors import BadInput
from thriftune.tasks.base import Prediction, Request
from thriftune.tasks.targets import write_labels, write_tags


@pytest.fixture(scope="module")
def client():
    with serving(ByteClassifier(), max_request_bytes=4096) as client:
        yield client


def test_a_text_is_answered_with_its_label_scores_and_the_release(client):
    answer = client.post("/predict", json={"text": "a fine film"})
    assert answer.status_code == 200
    expected = ByteClassifier().predict(["a fine film"])[0]
    assert answer.json() == {"label": expected.output, "scores": pytest.approx(expected.scores), "release": RELEASE}
    assert answer.headers["x-thriftune-release"] == RELEASE
    assert answer.headers["x-request-id"]


def test_texts_are_answered_in_their_order(client):
    texts = [f"film number {i}" for i in range(50)]
    answer = client.post("/predict", json={"texts": texts}).json()
    assert [p["label"] for p in answer["predictions"]] == [p.output for p in ByteClassifier().predict(texts)]
    assert answer["release"] == RELEASE


def test_concurrent_requests_share_batches_and_each_gets_its_own_answer():
    texts = [f"text {i}" for i in range(64)]
    with serving(ByteClassifier(), max_wait_ms=50, max_batch=16) as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: client.post("/predict", json={"text": text}).json()["scores"], texts))
        batches = metric(client, "thriftune_batch_size_count")
    assert answers == [pytest.approx(p.scores, abs=1e-6) for p in ByteClassifier().predict(texts)]
    assert batches < 32


class Shouting:
    """Tags words in capitals, and notes what it is asked."""

    name = "capitals"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def predict(self, requests):
        self.asked += requests
        return [Prediction(write_tags(["B-loud" if word.isupper() else "O" for word in words])) for words in requests]


class Vowels:
    """Labels a text with its vowels."""

    name = "vowels"

    def predict(self, requests):
        found = [{vowel for vowel in "aeiou" if vowel in text} for text in requests]
        return [Prediction(write_labels(labels), {v: float(v in labels) for v in "aeiou"}) for labels in found]


def test_words_are_answered_with_their_tags():
    tagger = Shouting()
    with serving(tagger, task="tag", clean=lambda text: text.replace("&amp;", "&")) as client:
        answer = client.post("/predict", json={"tokens": ["A", "&amp;", "b c"]}).json()
        assert answer == {"tokens": ["A", "&", "b c"], "tags": ["B-loud", "O", "O"], "release": RELEASE}
        assert client.post("/predict", json={"text": " one  TWO "}).json()["tags"] == ["O", "B-loud"]
        several = client.post("/predict", json={"texts": ["A b", "c"]}).json()["predictions"]
        assert several == [{"tokens": ["A", "b"], "tags": ["B-loud", "O"]}, {"tokens": ["c"], "tags": ["O"]}]
    assert tagger.asked[0] == ["A", "&", "b c"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"tokens": []}, "tokens is empty"),
        ({"tokens": "a b"}, "tokens must be an array"),
        ({"tokens": ["a", 3]}, "tokens[1] must be a string"),
        ({"tokens": ["a", " "]}, "tokens[1] is empty"),
        ({"tokens": ["a"], "text": "a"}, 'must have one of "tokens"'),
        ({"words": ["a"]}, 'must have one of "tokens"'),
        ({}, 'must have one of "tokens"'),
    ],
)
def test_words_that_are_none_are_refused(body, said):
    with serving(Shouting(), task="tag") as client:
        answer = client.post("/predict", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_text_is_answered_with_all_its_labels_and_none_is_an_answer():
    with serving(Vowels(), task="multilabel") as client:
        answer = client.post("/predict", json={"texts": ["a hue", "psst"]}).json()["predictions"]
    assert [one["labels"] for one in answer] == [["a", "e", "u"], []]
    assert answer[0]["scores"] == {"a": 1.0, "e": 1.0, "i": 0.0, "o": 0.0, "u": 1.0}


class Twofold(ByteClassifier):
    """A head for each of two parts: one has the two classes of bytes, the other says how long a text is."""

    parts = ("tone", "length")

    def predict(self, requests):
        by_bytes = super().predict([request.content for request in requests])
        sizes = ["long" if len(request.content) > 5 else "short" for request in requests]
        return [
            answer if request.part == "tone" else Prediction(size, {size: 1.0})
            for request, answer, size in zip(requests, by_bytes, sizes, strict=True)
        ]


def test_a_model_with_several_heads_answers_with_the_one_that_is_asked():
    with serving(Twofold()) as client:
        answer = client.post("/predict", json={"part": "length", "text": "a fine film"}).json()
        assert answer == {"part": "length", "label": "long", "scores": {"long": 1.0}, "release": RELEASE}
        several = client.post("/predict", json={"texts": ["a fine film", "bad"], "part": "tone"}).json()
    assert several["part"] == "tone"
    expected = ByteClassifier().predict(["a fine film", "bad"])
    assert [one["label"] for one in several["predictions"]] == [one.output for one in expected]


@pytest.mark.parametrize(
    "body",
    [{"text": "a"}, {"text": "a", "part": "taste"}, {"text": "a", "part": None}, {"text": "a", "part": ["tone"]}],
)
def test_a_part_that_is_missing_or_unknown_is_refused_with_those_there_are(body):
    with serving(Twofold()) as client:
        answer = client.post("/predict", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "part")
    assert '"tone", "length"' in error["message"]


def test_a_model_with_one_head_takes_no_part(client):
    answer = client.post("/predict", json={"text": "a", "part": "tone"})
    assert answer.status_code == 400
    assert "unknown key 'part'" in answer.json()["error"]["message"]


BAD_BODIES = {
    b"": "not JSON",
    b"{": "not JSON",
    b"[1]": "must be a JSON object, not an array",
    b'{"text": NaN}': "NaN is not a JSON number",
    b"\xff{}": "not UTF-8: byte 0 is 0xff",
    b"[" * 3000: "nested too deeply",
    b"{}": 'must have one of "text"',
    b'{"text": "a", "texts": ["a"]}': 'must have one of "text"',
    b'{"text": 3}': "text must be a string, not a number",
    b'{"text": null}': "text must be a string, not null",
    b'{"text": {}}': "text must be a string, not an object",
    b'{"text": ""}': "text is empty",
    b'{"text": " \\n\\t"}': "text is empty",
    b'{"text": "a\\u0000b"}': "text has a NUL character at position 1",
    b'{"text": "\\ud800"}': "text has half a surrogate pair",
    b'{"texts": "a"}': "texts must be an array",
    b'{"texts": []}': "texts is empty",
    b'{"texts": ["a", true]}': "texts[1] must be a string, not a boolean",
    b'{"txt": "a"}': "unknown key 'txt'",
    b'{"text": ' + b"9" * 4000: "not JSON",
}


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: body[:24].decode("latin-1"))
def test_a_bad_body_is_refused_with_one_clear_message(client, body):
    answer = client.post("/predict", content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert BAD_BODIES[body] in error["message"] or "not usable JSON" in error["message"]
    assert error["type"] == "invalid_request_error"


def test_a_number_of_thousands_of_digits_is_refused():
    with serving(ByteClassifier(), max_request_bytes=100_000) as client:
        answer = client.post("/predict", content=b'{"text": ' + b"9" * 50_000 + b"}")
    assert answer.status_code == 400


def test_a_request_over_the_limit_is_refused_whether_or_not_it_says_its_length(client):
    large = json.dumps({"text": "a" * 5000}).encode()
    for content in (large, iter([large[:3000], large[3000:]])):
        answer = client.post("/predict", content=content)
        assert answer.status_code == 413
        assert "larger than 4096 bytes" in answer.json()["error"]["message"]


def test_too_many_texts_are_refused(client):
    answer = client.post("/predict", json={"texts": ["a"] * 257})
    assert answer.status_code == 413
    assert "257 items; at most 256" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/predict", 405), ("POST", "/nowhere", 404)])
def test_a_wrong_address_or_method_names_the_right_ones(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert "POST /predict" in answer.json()["error"]["message"]


def test_a_text_that_cleaning_empties_is_refused():
    with serving(ByteClassifier(), clean=lambda text: text.replace("<br>", "")) as client:
        answer = client.post("/predict", json={"text": "<br><br>"})
    assert answer.status_code == 400
    assert "after cleaning is empty" in answer.json()["error"]["message"]


def test_the_model_reads_what_the_preparation_makes_of_a_request_long_or_short():
    seen: list[Request] = []

    class Recorder(ByteClassifier):
        def predict(self, requests):
            seen.extend(requests)
            return super().predict(requests)

    with serving(Recorder(), clean=lambda text: text.upper()) as client:
        client.post("/predict", json={"texts": ["short", "long" * 10_000]})
    assert seen == ["SHORT", "LONG" * 10_000]


def test_a_request_that_breaks_the_model_does_not_break_its_batch(caplog):
    class Picky(ByteClassifier):
        def predict(self, requests: list[Request]) -> list[Prediction]:
            if "poison" in requests:
                raise RuntimeError("secret detail")
            return super().predict(requests)

    with serving(Picky(), max_wait_ms=100) as client, ThreadPoolExecutor(8) as pool:
        texts = ["a", "b", "poison", "c"]
        answers = list(pool.map(lambda text: client.post("/predict", json={"text": text}), texts))
        assert [a.status_code for a in answers] == [200, 200, 500, 200]
        assert client.get("/healthz").status_code == 200
        assert metric(client, 'thriftune_requests_total{code="500",path="/predict"}') == 1
    assert "secret" not in answers[2].text
    request_id = answers[2].headers["x-request-id"]
    assert request_id in answers[2].json()["error"]["message"]
    assert request_id in caplog.text


def test_bad_input_found_by_the_predictor_is_the_client_s_error():
    class Strict(ByteClassifier):
        def predict(self, requests):
            raise BadInput("too strange a text", found="…", way_out="send another")

    with serving(Strict()) as client:
        answer = client.post("/predict", json={"text": "a"})
    assert answer.status_code == 400
    assert "too strange a text" in answer.json()["error"]["message"]


def test_a_full_queue_answers_503_with_retry_after_and_the_rest_is_served(monkeypatch):
    monkeypatch.setattr(serve_module, "MAX_QUEUE", 4)
    model = SlowClassifier()
    with serving(model, max_batch=1) as client, ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.post, "/predict", json={"text": "first"})
        assert model.entered.wait(10)
        queued = pool.submit(client.post, "/predict", json={"texts": ["a", "b", "c", "d"]})
        while metric(client, "thriftune_queued") < 4:
            pass
        refused = client.post("/predict", json={"text": "one more"})
        model.gate.set()
        assert first.result().status_code == queued.result().status_code == 200
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "overloaded"


def test_metrics_count_requests_by_code_and_time_them(client):
    client.post("/predict", json={"text": "a"})
    client.post("/predict", json={"text": ""})
    client.get("/random-scan-1")
    text = client.get("/metrics").text
    assert 'thriftune_requests_total{code="200",path="/predict"}' in text
    assert 'thriftune_requests_total{code="400",path="/predict"}' in text
    assert 'thriftune_requests_total{code="404",path="other"}' in text
    assert "random-scan" not in text
    assert f'thriftune_release_info{{release="{RELEASE}"}} 1.0' in text
    assert metric(client, 'thriftune_request_seconds_count{path="/predict"}') >= 2
    assert metric(client, "thriftune_requests_in_flight") == 1  # this very one


def test_healthz_tells_the_release(client):
    assert client.get("/healthz").json() == {"status": "ok", "release": RELEASE}


def test_a_client_that_leaves_in_the_middle_of_its_body_does_no_harm(client):
    def body():
        yield b'{"te'
        raise httpx.WriteError("gone")

    with pytest.raises(httpx.WriteError):
        client.post("/predict", content=body())
    assert client.post("/predict", json={"text": "a"}).status_code == 200
