"""What a service tells Prometheus about itself, and the request ids by which its log and its answers are matched."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thriftune.deploy.refusals import Refusal

log = logging.getLogger("thriftune.serve")

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
CLIENT_GONE = 499  # nginx's code for a client that left before its answer


@dataclass(frozen=True)
class Measures:
    """The metrics of one service, in a registry of their own, so that two can live in one process."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    first_token_seconds: Histogram
    in_flight: Gauge
    queued: Gauge
    batch_size: Histogram
    tokens: Counter

    @staticmethod
    def create(release: str) -> Measures:
        """Fresh metrics, at zero, for a release."""
        registry = CollectorRegistry()
        info = Gauge("thriftune_release_info", "The release that answers.", ["release"], registry=registry)
        info.labels(release).set(1)
        return Measures(
            registry,
            Counter("thriftune_requests", "Requests answered.", ["path", "code"], registry=registry),
            Histogram(
                "thriftune_request_seconds",
                "From a request's first byte to its answer's last.",
                ["path"],
                buckets=LATENCY_BUCKETS,
                registry=registry,
            ),
            Histogram(
                "thriftune_first_token_seconds",
                "From a streamed request's arrival to its first token.",
                buckets=LATENCY_BUCKETS,
                registry=registry,
            ),
            Gauge("thriftune_requests_in_flight", "Requests being answered now.", registry=registry),
            Gauge("thriftune_queued", "Texts and conversations waiting for the model.", registry=registry),
            Histogram(
                "thriftune_batch_size",
                "Requests that the model answered together.",
                buckets=BATCH_BUCKETS,
                registry=registry,
            ),
            Counter(
                "thriftune_tokens", "Tokens read (prompt) and generated (completion).", ["kind"], registry=registry
            ),
        )

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)


class Watch:
    """ASGI middleware: counts and times each request, names it and the release, and answers a defect of ours with 500.

    Args:
        app: what it wraps.
        measures: where it counts.
        release: goes into each answer's `X-Thriftune-Release`.
        paths: those that are counted by name; all others are counted as `other`, so that a scanner of random
            addresses does not fill the memory.
    """

    def __init__(self, app: ASGIApp, measures: Measures, release: str, paths: Collection[str]) -> None:
        self._app = app
        self._measures = measures
        self._release = release
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection's request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        request_id = secrets.token_hex(8)
        status = 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Thriftune-Release"] = self._release
            await send(message)

        started = time.monotonic()
        self._measures.in_flight.inc()
        try:
            await self._app(scope, receive, tell)
        except ClientDisconnect:
            log.info("request %s to %s: the client left", request_id, path)
        except Exception:
            log.exception("request %s to %s failed", request_id, path)
            if status:
                raise  # half an answer is out: the connection must break, not end well
            failure = Refusal(500, f"the service failed; its log tells why under request id {request_id}")
            await failure.response()(scope, receive, tell)
        finally:
            self._measures.in_flight.dec()
            self._measures.seconds.labels(path).observe(time.monotonic() - started)
            self._measures.requests.labels(path, str(status or CLIENT_GONE)).inc()
