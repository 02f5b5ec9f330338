"""The service: any predictor behind HTTP, with the preparation that its training had.

`POST /predict` for classifiers, `/v1/chat/completions` and `/v1/models` in OpenAI's format for chat models,
`/healthz` and `/metrics` for both.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse

from thriftune.deploy.access import TokenCheck, service_token
from thriftune.deploy.answers import FORMS, Form
from thriftune.deploy.bodies import part_of, read_json, usable_text
from thriftune.deploy.chat import DONE, ChatRequest, Envelope, Usage, event, parse_chat
from thriftune.deploy.generation import Generation
from thriftune.deploy.measures import Measures, Watch
from thriftune.deploy.options import DeployOptions
from thriftune.deploy.protocols import StreamingPredictor
from thriftune.deploy.refusals import Refusal
from thriftune.deploy.worker import Answer, ModelWorker
from thriftune.errors import BadInput, ThriftuneError
from thriftune.tasks.base import Content, Message, OfPart, Predictor
from thriftune.tasks.base import Request as Question
from thriftune.tasks.heads import heads_of
from thriftune.tasks.kinds import kind_of

log = logging.getLogger("thriftune.serve")

RELEASE_NAME = re.compile(r"[A-Za-z0-9._:-]{1,200}")
MAX_QUEUE = 1024  # texts and conversations waiting for the model; more are told to come back
INLINE_CHARACTERS = 20_000  # cleaning more text than this leaves the event loop for a thread
GRACE_SECONDS = 60  # how long a shutdown waits for requests in flight
KEEP_ALIVE_SECONDS = 15


def create_app(
    predictor: Predictor | StreamingPredictor,
    clean: Callable[[str], str],
    task: str,
    options: DeployOptions,
    release: str,
    *,
    environment: Mapping[str, str] = os.environ,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        predictor: what answers; called by one thread only.
        clean: the preparation steps marked `also_at_serving`, for one text.
        task: its name: which endpoints there are.
        options: limits, batching, where it will listen and which variable holds the token.
        release: names the release in each answer, a header included: letters, digits and . _ : - only.
        environment: where the token is read from.

    Raises:
        BadInput: it would be reachable from other machines and there is no token.
        ValueError: the release's name does not go into a header.
    """
    if not RELEASE_NAME.fullmatch(release):
        raise ValueError(f"{release!r} cannot name a release")
    token = service_token(options.host, options.token_env, environment)
    service = Service(predictor, clean, options, release, FORMS[kind_of(task).target])
    app = FastAPI(title="Thriftune", lifespan=service.lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    routes: dict[str, tuple[str, Callable[..., Any]]] = {
        "/healthz": ("GET", service.healthz),
        "/metrics": ("GET", service.metrics),
    }
    if kind_of(task).generates:
        routes["/v1/chat/completions"] = ("POST", service.chat)
        routes["/v1/models"] = ("GET", service.models)
    else:
        routes["/predict"] = ("POST", service.predict)
    for path, (method, handler) in routes.items():
        app.add_api_route(path, handler, methods=[method], response_model=None)
    served = ", ".join(f"{method} {path}" for path, (method, _) in sorted(routes.items()))

    async def refuse(request: Request, failure: Exception) -> Response:
        return _as_refusal(failure, served).response()

    for kind in (Refusal, ThriftuneError, HTTPException):
        app.add_exception_handler(kind, refuse)
    if token is not None:
        app.add_middleware(TokenCheck, token=token)
    app.add_middleware(Watch, measures=service.measures, release=release, paths=list(routes))  # the outermost
    return app


def _as_refusal(failure: Exception, served: str) -> Refusal:
    if isinstance(failure, Refusal):
        return failure
    if isinstance(failure, ThriftuneError):
        return Refusal(400, str(failure))
    assert isinstance(failure, HTTPException)
    if failure.status_code in (404, 405):
        return Refusal(failure.status_code, f"there is no such address; this service has {served}", code="not_found")
    return Refusal(failure.status_code, str(failure.detail))


class Service:
    """The handlers, and what they share: the model's worker and the metrics."""

    def __init__(
        self,
        predictor: Predictor | StreamingPredictor,
        clean: Callable[[str], str],
        options: DeployOptions,
        release: str,
        form: Form,
    ) -> None:
        self.measures = Measures.create(release)
        self._predictor = predictor
        self._clean = clean
        self._options = options
        self._release = release
        self._form = form
        self._started = int(time.time())
        self._worker = ModelWorker(
            predictor,
            options.max_batch,
            options.max_wait_ms / 1000,
            MAX_QUEUE,
            measure=self._prompt_tokens,
            on_batch=self.measures.batch_size.observe,
        )
        self.measures.queued.set_function(lambda: self._worker.queued)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Start the model's thread; at the end let it finish what it has taken."""
        self._worker.start()
        yield
        await asyncio.to_thread(self._worker.close)

    async def healthz(self, request: Request) -> Response:
        """200 while the model's thread runs, else 503."""
        alive = self._worker.alive
        return JSONResponse({"status": "ok" if alive else "dead", "release": self._release}, 200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus's text format."""
        return Response(self.measures.text(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        """The one model there is."""
        model = {"id": self._release, "object": "model", "created": self._started, "owned_by": "thriftune"}
        return JSONResponse({"object": "list", "data": [model]})

    async def predict(self, request: Request) -> Response:
        """One text → its answer, in the task's form, with the release; `{"texts": […]}` → `{"predictions": […]}`."""
        body = await read_json(request, self._options.max_request_bytes)
        part = part_of(body, heads_of(self._predictor))
        asked = self._form.read(body)
        pieces = await self._cleaned([piece for one in asked for piece in ([one] if isinstance(one, str) else one)])
        left = iter(pieces)
        cleaned: list[Content] = [next(left) if isinstance(one, str) else [next(left) for _ in one] for one in asked]
        questions: list[Question] = [one if part is None else OfPart(part, one) for one in cleaned]
        answers = await self._answers(questions)
        found = [self._form.write(one, answer.prediction) for one, answer in zip(cleaned, answers, strict=True)]
        whole = {"predictions": found} if "texts" in body else found[0]
        return JSONResponse(({} if part is None else {"part": part}) | whole | {"release": self._release})

    async def chat(self, request: Request) -> Response:
        """OpenAI's chat completions, whole or streamed."""
        arrived = time.monotonic()
        ask = parse_chat(await read_json(request, self._options.max_request_bytes))
        self._check(ask)
        contents = await self._cleaned([message["content"] for message in ask.messages])
        messages: list[Message] = [
            {"role": message["role"], "content": content}
            for message, content in zip(ask.messages, contents, strict=True)
        ]
        envelope = Envelope(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), self._release)
        if ask.plain:
            return JSONResponse(self._batched_completion(envelope, (await self._answers([messages]))[0]))
        generation = Generation(ask, messages, self._limit(ask))
        await generation.begin(self._worker)
        if ask.stream:
            return StreamingResponse(
                self._events(ask, envelope, generation, arrived),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        text = "".join([piece async for piece in generation.texts()])
        return JSONResponse(envelope.completion(text, generation.finish_reason, self._usage(generation)))

    async def _events(
        self, ask: ChatRequest, envelope: Envelope, generation: Generation, arrived: float
    ) -> AsyncGenerator[bytes, None]:
        yield envelope.chunk({"role": "assistant", "content": ""}, None, ask.include_usage)
        first = True
        try:
            async with aclosing(generation.texts()) as texts:  # a client that leaves ends the generation at once
                async for text in texts:
                    if first:
                        self.measures.first_token_seconds.observe(time.monotonic() - arrived)
                        first = False
                    yield envelope.chunk({"content": text}, None, ask.include_usage)
        except Exception:
            log.exception("answer %s broke off", envelope.id)
            yield event(Refusal(500, f"the answer broke off; the service's log tells why under {envelope.id}").body())
            return
        yield envelope.chunk({}, generation.finish_reason, ask.include_usage)
        usage = self._usage(generation)
        if ask.include_usage:
            yield envelope.usage_chunk(usage)
        yield DONE

    def _check(self, ask: ChatRequest) -> None:
        known = {self._release, self._predictor.name}
        if ask.model is not None and ask.model not in known:
            raise Refusal(
                404,
                f"there is no model {ask.model!r} here; this service has {self._release!r}",
                "model",
                "model_not_found",
            )
        if isinstance(self._predictor, StreamingPredictor):
            return
        for key, value in (("temperature", ask.temperature), ("max_tokens", ask.max_tokens)):
            if value:
                raise Refusal(400, f"{self._predictor.name} does not do {key}", key, "unsupported_value")

    def _limit(self, ask: ChatRequest) -> int | None:
        if not isinstance(self._predictor, StreamingPredictor):
            return None
        return self._predictor.max_new_tokens if ask.max_tokens is None else ask.max_tokens

    def _prompt_tokens(self, request: Question, max_tokens: int | None) -> int:
        """Tokens of a prompt; refuses one that leaves no room for its answer."""
        predictor = self._predictor
        if not isinstance(predictor, StreamingPredictor):
            return 0
        prompt = predictor.count_tokens(request)
        wanted = predictor.max_new_tokens if max_tokens is None else max_tokens
        if prompt + wanted > predictor.context_tokens:
            raise Refusal(
                400,
                f"this model reads at most {predictor.context_tokens} tokens; "
                f"the messages have {prompt} and the answer may have {wanted}",
                "messages",
                "context_length_exceeded",
            )
        return prompt

    def _batched_completion(self, envelope: Envelope, answer: Answer) -> dict[str, Any]:
        prediction = answer.prediction
        if not isinstance(self._predictor, StreamingPredictor):
            return envelope.completion(prediction.output, "stop", None)
        full = prediction.tokens >= self._predictor.max_new_tokens
        usage = self._counted(Usage(answer.prompt_tokens, prediction.tokens))
        return envelope.completion(prediction.output, "length" if full else "stop", usage)

    def _usage(self, generation: Generation) -> Usage | None:
        if not isinstance(self._predictor, StreamingPredictor):
            return None
        return self._counted(Usage(generation.prompt_tokens, generation.completion_tokens))

    def _counted(self, usage: Usage) -> Usage:
        self.measures.tokens.labels("prompt").inc(usage.prompt_tokens)
        self.measures.tokens.labels("completion").inc(usage.completion_tokens)
        return usage

    async def _answers(self, requests: list[Question]) -> list[Answer]:
        return await asyncio.gather(*map(asyncio.wrap_future, self._worker.submit(requests)))

    async def _cleaned(self, texts: list[str]) -> list[str]:
        """Texts as training saw them.

        Raises:
            Refusal: 400, when nothing of a text is left.
        """
        if sum(map(len, texts)) > INLINE_CHARACTERS:
            cleaned = await asyncio.to_thread(lambda: [self._clean(text) for text in texts])
        else:
            cleaned = [self._clean(text) for text in texts]
        return [usable_text(text, "the text that is left after cleaning") for text in cleaned]


class _Server(uvicorn.Server):
    """Uvicorn, telling its address once it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[str], None], address: str) -> None:
        super().__init__(config)
        self._ready = ready
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready(self._address)


def serve(
    predictor: Predictor | StreamingPredictor,
    clean: Callable[[str], str],
    task: str,
    options: DeployOptions,
    release: str,
    *,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in flight are answered before it returns.

    Args:
        predictor: as for `create_app`, like `clean`, `task`, `options`, `release`.
        ready: told the address (`http://host:port`) once it listens.

    Raises:
        BadInput: no token though one is needed, or the address cannot be listened on.
    """
    app = create_app(predictor, clean, task, options, release)
    listener = _listen(options)
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        server_header=False,
    )
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal that ended it once more, when all is closed: let that be the exception below.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _Server(config, ready, address).run(sockets=[listener])
    except KeyboardInterrupt:
        log.info("stopped by a signal")
    finally:
        listener.close()


def _listen(options: DeployOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host.strip("[]"), options.port))
    except OSError as failure:
        listener.close()
        raise BadInput(
            "cannot listen there",
            where=f"deploy.host {options.host}, deploy.port {options.port}",
            found=failure.strerror or str(failure),
            expected="a free port of this machine",
            way_out="give another port, for example `thriftune serve --port 8001`, or 0 for any free one",
        ) from None
    return listener
