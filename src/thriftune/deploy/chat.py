"""OpenAI's chat completions format: what a request may say, what an answer looks like.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thriftune.deploy.bodies import json_kind, usable_text
from thriftune.deploy.refusals import Refusal
from thriftune.tasks.base import Message

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MAX_STOPS = 4
MAX_TEMPERATURE = 2.0
MAX_SEED = 2**63 - 1
DONE = b"data: [DONE]\n\n"

READ = frozenset(
    {
        "messages",
        "model",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "seed",
        "stop",
        "stream",
        "stream_options",
    }
)
HARMLESS = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})
"""Keys that never change an answer."""

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
}
"""Keys of OpenAI's that this service does not do, with the values (besides null) that ask for nothing."""


@dataclass(frozen=True)
class ChatRequest:
    """A chat request, checked."""

    messages: list[Message]
    model: str | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False

    @property
    def plain(self) -> bool:
        """Whether it asks for the predictor's own greedy answer, which can be generated in a batch."""
        return not (self.stream or self.stop or self.temperature or self.max_tokens is not None)


def parse_chat(body: dict[str, Any]) -> ChatRequest:
    """A request's JSON as a chat request.

    Raises:
        Refusal: 400, naming the key and what it should be.
    """
    given = {key: value for key, value in body.items() if value is not None}
    for key, value in given.items():
        if key in NEUTRAL:
            if value not in NEUTRAL[key]:
                raise Refusal(400, f"{key} = {json.dumps(value)[:60]} is not supported here", key, "unsupported_value")
        elif key not in READ | HARMLESS:
            raise Refusal(400, f"Unrecognized request argument supplied: {key}", key, "unknown_parameter")
    stream = _boolean(given, "stream")
    return ChatRequest(
        messages=_messages(given.get("messages")),
        model=_string(given, "model"),
        max_tokens=_max_tokens(given),
        temperature=_temperature(given),
        seed=_integer(given, "seed", -MAX_SEED, MAX_SEED),
        stop=_stops(given.get("stop")),
        stream=stream,
        include_usage=_include_usage(given, stream),
    )


def _messages(found: object) -> list[Message]:
    if not isinstance(found, list) or not found:
        raise Refusal(400, "messages must be an array of at least one message", "messages")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(found)]


def _message(found: object, param: str) -> Message:
    if not isinstance(found, dict):
        raise Refusal(400, f"{param} must be an object with role and content, not {json_kind(found)}", param)
    unknown = sorted(key for key, value in found.items() if key not in ("role", "content") and value is not None)
    if unknown:
        raise Refusal(400, f"{param}.{unknown[0]} is not supported here", f"{param}.{unknown[0]}", "unsupported_value")
    role = found.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise Refusal(400, f"{param}.role must be one of {', '.join(ROLES)}", f"{param}.role")
    return {"role": ROLES[role], "content": _content(found.get("content"), f"{param}.content")}


def _content(found: object, param: str) -> str:
    if not isinstance(found, list):
        return usable_text(found, param)
    parts: list[str] = []
    for i, part in enumerate(found):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise Refusal(
                400, f'{param}[{i}] must be {{"type": "text", "text": …}}; only text is read here', f"{param}[{i}]"
            )
        parts.append(usable_text(part.get("text"), f"{param}[{i}].text"))
    return usable_text("".join(parts), param)


def _max_tokens(given: dict[str, Any]) -> int | None:
    old = _integer(given, "max_tokens", 1, None)
    new = _integer(given, "max_completion_tokens", 1, None)
    if old is not None and new is not None and old != new:
        raise Refusal(400, "max_tokens and max_completion_tokens say different things; give one", "max_tokens")
    return old if new is None else new


def _temperature(given: dict[str, Any]) -> float:
    value = given.get("temperature", 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TEMPERATURE:
        raise Refusal(400, f"temperature must be a number from 0 (greedy) to {MAX_TEMPERATURE:g}", "temperature")
    return float(value)


def _stops(found: object) -> tuple[str, ...]:
    stops = [] if found is None else [found] if isinstance(found, str) else found
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise Refusal(400, f"stop must be a string or an array of at most {MAX_STOPS}, none of them empty", "stop")
    return tuple(stops)


def _include_usage(given: dict[str, Any], stream: bool) -> bool:
    options = given.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise Refusal(400, "stream_options goes with stream = true", "stream_options")
    if not isinstance(options, dict) or options.keys() - {"include_usage", "include_obfuscation"}:
        raise Refusal(400, 'stream_options must be {"include_usage": true or false}', "stream_options")
    return _boolean(options, "include_usage")


def _boolean(given: dict[str, Any], key: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise Refusal(400, f"{key} must be true or false, not {json_kind(value)}", key)
    return value


def _integer(given: dict[str, Any], key: str, low: int, high: int | None) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        raise Refusal(400, f"{key} must be {wanted}", key)
    return value


def _string(given: dict[str, Any], key: str) -> str | None:
    value = given.get(key)
    if value is not None and not isinstance(value, str):
        raise Refusal(400, f"{key} must be a string, not {json_kind(value)}", key)
    return value


class StopFilter:
    """Lets an answer's pieces through up to the first stop sequence, which it keeps back.

    Text that may be the beginning of a stop sequence waits until the next pieces tell.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """What may be shown now that `piece` has been generated."""
        text = self._held + piece
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back, now that the answer has ended without a stop sequence."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The longest end of `text` that begins `stop`, in characters."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


@dataclass(frozen=True)
class Usage:
    """Tokens read and generated."""

    prompt_tokens: int
    completion_tokens: int

    def json(self) -> dict[str, int]:
        """As OpenAI's format has it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass(frozen=True)
class Envelope:
    """What all parts of one answer have in common: its id, its time (UTC epoch seconds), the release."""

    id: str
    created: int
    model: str

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.model,
            "choices": choices,
        }

    def completion(self, text: str, finish_reason: str, usage: Usage | None) -> dict[str, Any]:
        """A whole answer (`chat.completion`); without usage where the predictor does not count tokens."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return self._frame("chat.completion", [choice]) | ({"usage": usage.json()} if usage else {})

    def chunk(self, delta: dict[str, str], finish_reason: str | None, include_usage: bool) -> bytes:
        """One event of a streamed answer (`chat.completion.chunk`)."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(self._frame("chat.completion.chunk", [choice]) | ({"usage": None} if include_usage else {}))

    def usage_chunk(self, usage: Usage | None) -> bytes:
        """The event after the last piece that carries the tokens, when the request asked for it."""
        return event(self._frame("chat.completion.chunk", []) | {"usage": usage.json() if usage else None})


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
