"""Reading a request's body: bounded, timed, UTF-8, JSON, an object; and the texts or words of `/predict`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request as HttpRequest

from thriftune.deploy.refusals import Refusal

BODY_SECONDS = 30.0  # a client that trickles its body in more slowly than this is let go
MAX_TEXTS = 256  # texts in one request


async def read_json(request: HttpRequest, max_bytes: int) -> dict[str, Any]:
    """The request's body as a JSON object.

    Raises:
        Refusal: 413 too large, 408 too slow, 400 not UTF-8, not JSON or no object.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _read(request, max_bytes)
    except TimeoutError:
        raise Refusal(408, f"the request's body did not arrive within {BODY_SECONDS:.0f} s") from None
    return parse_object(body)


async def _read(request: HttpRequest, max_bytes: int) -> bytes:
    too_large = Refusal(413, f"the request is larger than {max_bytes} bytes", code="request_too_large")
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Bytes as a JSON object.

    Raises:
        Refusal: 400, with what was found.
    """
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as failure:
        raise Refusal(400, f"the body is not UTF-8: byte {failure.start} is {body[failure.start]:#04x}") from None
    except json.JSONDecodeError as failure:
        raise Refusal(
            400, f"the body is not JSON: {failure.msg} at line {failure.lineno}, column {failure.colno}"
        ) from None
    except RecursionError:
        raise Refusal(400, "the body is not usable JSON: nested too deeply") from None
    except ValueError as failure:  # a number of thousands of digits, or NaN
        raise Refusal(400, f"the body is not usable JSON: {failure}") from None
    if not isinstance(found, dict):
        raise Refusal(400, f"the body must be a JSON object, not {json_kind(found)}")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def json_kind(value: object) -> str:
    """What JSON calls a value: for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def usable_text(value: object, param: str) -> str:
    """A text that a model can read.

    Raises:
        Refusal: 400: not a string, empty, or with a character that is no text (NUL, half a surrogate pair).
    """
    if not isinstance(value, str):
        raise Refusal(400, f"{param} must be a string, not {json_kind(value)}", param)
    if not value.strip():
        raise Refusal(400, f"{param} is empty", param)
    if "\0" in value:
        raise Refusal(400, f"{param} has a NUL character at position {value.index(chr(0))}", param)
    try:
        value.encode()
    except UnicodeEncodeError as failure:
        raise Refusal(400, f"{param} has half a surrogate pair at position {failure.start}", param) from None
    return value


def part_of(body: dict[str, Any], parts: Sequence[str]) -> str | None:
    """Take the part out of a request's body: which of a model's heads is to answer; None where it has one head.

    Raises:
        Refusal: 400, with the parts there are, for a part that is missing or not one of them.
    """
    if not parts:
        return None
    there = f"this model has a head for each of {', '.join(map(json.dumps, parts))}"
    if "part" not in body:
        raise Refusal(400, f'the body must name the "part" that is asked; {there}', "part")
    part = body.pop("part")
    if part not in parts:
        raise Refusal(400, f"part is {json.dumps(part)[:80]}; {there}", "part")
    return str(part)


def texts_of(body: dict[str, Any]) -> list[str]:
    """The texts of a `/predict` request: `{"text": "…"}` or `{"texts": ["…", …]}`.

    Raises:
        Refusal: 400, or 413 for too many.
    """
    unknown = sorted(body.keys() - {"text", "texts"})
    if unknown:
        raise Refusal(400, f'unknown key {unknown[0]!r}; the body is {{"text": …}} or {{"texts": […]}}', unknown[0])
    if len(body) != 1:
        raise Refusal(400, 'the body must have one of "text" (a string) and "texts" (an array of strings)')
    if "text" in body:
        return [usable_text(body["text"], "text")]
    texts = body["texts"]
    if not isinstance(texts, list):
        raise Refusal(400, f"texts must be an array of strings, not {json_kind(texts)}", "texts")
    if not texts:
        raise Refusal(400, "texts is empty", "texts")
    if len(texts) > MAX_TEXTS:
        raise Refusal(413, f"texts has {len(texts)} items; at most {MAX_TEXTS} go in one request", "texts")
    return [usable_text(text, f"texts[{i}]") for i, text in enumerate(texts)]


def sentences_of(body: dict[str, Any]) -> list[list[str]]:
    """The words of a `/predict` request to a tagger: `{"tokens": ["…", …]}`, or texts, whose words blanks set apart.

    Raises:
        Refusal: 400, or 413 for too many.
    """
    if "tokens" not in body:
        if not body.keys() & {"text", "texts"}:
            raise Refusal(400, 'the body must have one of "tokens" (an array of words), "text" and "texts"')
        return [text.split() for text in texts_of(body)]
    if len(body) != 1:
        raise Refusal(400, 'the body must have one of "tokens" (an array of words), "text" and "texts"')
    tokens = body["tokens"]
    if not isinstance(tokens, list):
        raise Refusal(400, f"tokens must be an array of strings, not {json_kind(tokens)}", "tokens")
    if not tokens:
        raise Refusal(400, "tokens is empty", "tokens")
    return [[usable_text(token, f"tokens[{i}]") for i, token in enumerate(tokens)]]
