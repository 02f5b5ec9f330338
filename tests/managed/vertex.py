"""A local server that speaks what Thriftune uses of Vertex AI, of Cloud Storage and of Google's sign-in.

Jobs go through their states, one step each time they are looked at. What a tuned endpoint answers is what the uploaded
training rows say to the most similar question, so it is better than the base model for that reason alone.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PROJECT, REGION, BUCKET = "shop-1234", "us-central1", "shop-rows"
TOKEN = "ya29.secret-access-token-of-this-test"
PARENT = f"projects/{PROJECT}/locations/{REGION}"
STATES = ("JOB_STATE_QUEUED", "JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED")
ENDED = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
CHARACTERS_A_TOKEN = 4
TURN_MARKS = 3  # tokens that a turn of a training row is billed beside its text


def tokens_in(text: str) -> int:
    return -(-len(text) // CHARACTERS_A_TOKEN)


def text_of(content: dict[str, Any] | None) -> str:
    return "".join(part.get("text", "") for part in (content or {}).get("parts", []))


@dataclass
class Fault:
    """An answer that the next matching requests get instead.

    Args:
        path: what the method and path must match, a regular expression.
        status: of the answer; None does what is asked and then drops the connection.
        headers: more of them.
        times: how often.
    """

    path: str
    status: int | None
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


@dataclass
class Vertex:
    """The state of the service.

    Args:
        url: where it listens.
        states: that a job goes through, a step a look; the last one stays.
        error: of a job that fails.
        faults: to come.
        token: the access token that is right.
    """

    url: str = ""
    states: tuple[str, ...] = STATES
    error: str = ""
    faults: list[Fault] = field(default_factory=list)
    token: str = TOKEN
    asked: list[tuple[str, Any]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, pattern: str) -> int:
        """How many requests matched."""
        return sum(re.search(pattern, request) is not None for request, _ in self.asked)

    def sent(self, pattern: str) -> list[Any]:
        """The bodies of the requests that matched."""
        return [body for request, body in self.asked if re.search(pattern, request)]

    # ---- what is asked ----

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        spec = body["supervisedTuningSpec"]
        rows = self._rows(spec["trainingDatasetUri"])
        number = str(9_000_000_000 + len(self.jobs))
        name = f"{PARENT}/tuningJobs/{number}"
        billable = sum(
            tokens_in(text_of(turn)) + TURN_MARKS
            for row in rows
            for turn in [*row["contents"], row.get("systemInstruction")]
        )
        self.jobs[name] = {
            "name": name,
            "tunedModelDisplayName": body["tunedModelDisplayName"],
            "description": body["description"],
            "baseModel": body["baseModel"],
            "supervisedTuningSpec": spec,
            "createTime": "2026-11-25T10:00:00.000000Z",
            "_billable": billable,
            "_endpoint": f"{PARENT}/endpoints/{number}7",
        }
        self.looks[name] = 0
        return self.shown(name)

    def look(self, name: str) -> dict[str, Any]:
        self.looks[name] += 1
        return self.shown(name)

    def shown(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        state = job.get("_state") or self.states[min(self.looks[name], len(self.states) - 1)]
        if state in ENDED:
            job["_state"] = state
        shown = {key: value for key, value in job.items() if not key.startswith("_")} | {"state": state}
        if state in ("JOB_STATE_RUNNING", *ENDED) and job.get("_started", True):
            shown["startTime"] = "2026-11-25T10:01:00.000000Z"
            shown["tuningDataStats"] = {"supervisedTuningDataStats": {"totalBillableTokenCount": str(job["_billable"])}}
        if state == "JOB_STATE_SUCCEEDED":
            shown["tunedModel"] = {"model": f"{PARENT}/models/1@1", "endpoint": job["_endpoint"]}
        if state == "JOB_STATE_FAILED":
            shown["error"] = {"code": 3, "message": self.error}
        if state == "JOB_STATE_CANCELLED":
            shown["error"] = {"code": 1, "message": "The job was cancelled."}
        return shown

    def cancel(self, name: str) -> dict[str, Any]:
        job, shown = self.jobs[name], self.shown(name)
        if shown["state"] not in ENDED:
            job["_state"], job["_started"] = "JOB_STATE_CANCELLED", shown["state"] == "JOB_STATE_RUNNING"
        return {}

    def listed(self, query: dict[str, list[str]]) -> dict[str, Any]:
        names = list(reversed(self.jobs))
        size, start = int(query.get("pageSize", ["10"])[0]), int(query.get("pageToken", ["0"])[0] or 0)
        page = {"tuningJobs": [self.shown(name) for name in names[start : start + size]]}
        return page | ({"nextPageToken": str(start + size)} if start + size < len(names) else {})

    def answered(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        question = text_of(body["contents"][-1])
        schema = body["generationConfig"].get("responseSchema", {})
        asked = sum(tokens_in(text_of(turn)) for turn in [*body["contents"], body.get("systemInstruction")])
        text = schema["enum"][0] if schema else "I do not know."
        for job in self.jobs.values():
            if model == job["_endpoint"]:
                rows = self._rows(job["supervisedTuningSpec"]["trainingDatasetUri"])
                text = text_of(max(rows, key=lambda row: likeness(question, row))["contents"][-1])
        text = text[: body["generationConfig"]["maxOutputTokens"] * CHARACTERS_A_TOKEN]
        usage = {"promptTokenCount": asked, "candidatesTokenCount": tokens_in(text)}
        usage["totalTokenCount"] = sum(usage.values())
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
        return {"candidates": [candidate], "usageMetadata": usage}

    def _rows(self, uri: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.objects[uri].splitlines()]


def likeness(question: str, row: dict[str, Any]) -> float:
    asked, known = (set(re.findall(r"\w+", text.lower())) for text in (question, text_of(row["contents"][-2])))
    return len(asked & known) / max(1, len(asked | known))


def error_body(status: int, message: str) -> dict[str, Any]:
    names = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}
    return {"error": {"code": status, "message": message, "status": names.get(status, "INTERNAL")}}


@contextmanager
def serving() -> Iterator[Vertex]:
    """The service, listening on this machine."""
    vertex = Vertex()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.respond("GET")

        def do_POST(self) -> None:
            self.respond("POST")

        def respond(self, method: str) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            with vertex.lock:
                body: Any = json.loads(raw) if raw[:1] == b"{" and "/upload/" not in parts.path else raw
                vertex.asked.append((f"{method} {parts.path}", body))
                fault = next(
                    (f for f in vertex.faults if f.times and re.search(f.path, f"{method} {parts.path}")), None
                )
                if fault is not None:
                    fault.times -= 1
                    if fault.status is not None:
                        self.reply(fault.status, error_body(fault.status, "told by a test"), fault.headers)
                        return
                status, answer = self.done(method, parts.path, query, body)
            if fault is not None:
                self.close_connection = True
                self.connection.close()
            else:
                self.reply(status, answer)

        def done(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:  # noqa: PLR0911
            if path == "/token":
                return 200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
            if self.headers.get("Authorization") != f"Bearer {vertex.token}":
                told = self.headers.get("Authorization")  # a careless service, which repeats what it was sent
                return 401, error_body(401, f"Request had invalid authentication credentials: {told}")
            if path == f"/upload/storage/v1/b/{BUCKET}/o":
                uri = f"gs://{BUCKET}/{query['name'][0]}"
                if uri in vertex.objects and query.get("ifGenerationMatch") == ["0"]:
                    return 412, error_body(412, "conditionNotMet")
                vertex.objects[uri] = body
                return 200, {"kind": "storage#object", "name": query["name"][0]}
            name = path.removeprefix("/v1beta1/")
            resource, _, action = name.partition(":")
            if name == f"{PARENT}/tuningJobs":
                return (200, vertex.create(body)) if method == "POST" else (200, vertex.listed(query))
            if resource in vertex.jobs:
                return 200, vertex.cancel(resource) if action == "cancel" else vertex.look(resource)
            model = resource.removeprefix(f"{PARENT}/publishers/google/models/")
            if action == "countTokens":
                return 200, {"totalTokens": sum(tokens_in(text_of(turn)) for turn in body["contents"])}
            if action == "generateContent":
                return 200, vertex.answered(model, body)
            if action == "streamGenerateContent":
                return 200, in_pieces(vertex.answered(model, body))
            return 404, error_body(404, f"no such resource: {name}")

        def reply(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
            stream = isinstance(answer, list)
            text = "".join(f"data: {json.dumps(piece)}\r\n\r\n" for piece in answer) if stream else json.dumps(answer)
            self.send_response(status)
            self.send_header("Content-Type", "text/event-stream" if stream else "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    vertex.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield vertex
    finally:
        server.shutdown()
        server.server_close()


def in_pieces(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """An answer as the service streams it: a few tokens a piece, the count of tokens so far with each."""
    text = text_of(whole["candidates"][0]["content"])
    size = 3 * CHARACTERS_A_TOKEN
    pieces = []
    for start in range(0, max(1, len(text)), size):
        said = text[: start + size]
        usage = whole["usageMetadata"] | {"candidatesTokenCount": tokens_in(said)}
        content = {"role": "model", "parts": [{"text": text[start : start + size]}]}
        pieces.append({"candidates": [{"content": content}], "usageMetadata": usage})
    return pieces


def key_file(folder: Path, url: str) -> tuple[Path, str]:
    """A service account's key that signs in at the server; the file, and its secret."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    about = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": pem,
        "client_email": f"tuner@{PROJECT}.iam.example",
        "client_id": "1",
        "token_uri": f"{url}/token",
    }
    path = folder / "key.json"
    path.write_text(json.dumps(about))
    return path, pem.splitlines()[1]


def environment(url: str, key: Path) -> dict[str, str]:
    """The variables by which Google's clients and Thriftune find the server."""
    return {
        "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "GOOGLE_CLOUD_LOCATION": REGION,
        "GOOGLE_VERTEX_BASE_URL": url,
        "STORAGE_EMULATOR_HOST": url,
        "THRIFTUNE_GEMINI_BUCKET": f"gs://{BUCKET}/tests",
    }
