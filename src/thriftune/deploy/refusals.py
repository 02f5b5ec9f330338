"""Answers that refuse: one clear message each, in the error format that OpenAI documents.

https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.responses import JSONResponse


@dataclass(eq=False)
class Refusal(Exception):
    """A request that is not answered, and why.

    Args:
        status: the HTTP status.
        message: what is wrong and what would be right, for a person.
        param: the key of the request that it concerns.
        code: a word for programs, such as `model_not_found`.
        headers: extra response headers, such as `Retry-After`.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, dict[str, str | None]]:
        """The response's JSON."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The response."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def overloaded(retry_seconds: int) -> Refusal:
    """The queue is full: come back in `retry_seconds`."""
    return Refusal(
        503,
        f"the queue of waiting requests is full; try again in {retry_seconds} s",
        code="overloaded",
        headers={"Retry-After": str(retry_seconds)},
    )


def closing() -> Refusal:
    """The service is shutting down and takes nothing new."""
    return Refusal(503, "the service is shutting down; try again", code="closing", headers={"Retry-After": "1"})
