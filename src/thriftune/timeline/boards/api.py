"""Asking a service's REST API: patience within bounds, and errors in which no secret stands.

A request that was refused for its rate (429) is sent again after what `Retry-After` says. One that met an error of the
server or of the network is sent again only where sending it twice does what sending it once does: something that was
perhaps made is looked for by the next synchronisation, never made twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from thriftune.errors import BadInput

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 6
FIRST_PAUSE = 1.0  # seconds; doubled each time, unless the service says how long
MOST_WAITING = 300.0  # seconds in one synchronisation, all pauses together
TIMEOUT_SECONDS = 30.0
TOO_MANY = 429
MOST_PAGES = 1000
LOOPBACK = ("127.0.0.1", "localhost", "::1")
AGAIN_IS_THE_SAME = ("GET", "PUT")
TOLD_CHARACTERS = 200


class Refused(BadInput):
    """The service does not take a request; others may do."""

    status = 0


class OutOfReach(BadInput):
    """The service does not answer, or asks for more patience than there is; nothing else is worth asking for now."""


class Api:
    """A service's REST API.

    Args:
        service: its name, for messages.
        address: what paths are put behind; https, or a machine of one's own.
        headers: with the secrets.
        secrets: what must stand in no message.
        sleep: waits.

    Raises:
        BadInput: secrets would go over the network unencrypted, or cannot stand in a header.
    """

    def __init__(
        self,
        service: str,
        address: str,
        headers: Mapping[str, str],
        secrets: Sequence[str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import httpx

        parts = urlsplit(address)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise BadInput(
                f"{service} is not asked at this address",
                found=f"{parts.scheme or 'no scheme'}://{parts.hostname or ''}",
                expected="an address that begins with https://, so that the token stays secret",
                way_out=f"correct or unset THRIFTUNE_{service.upper()}_URL",
            )
        self.service = service
        self.waited = 0.0
        self._secrets = [secret for secret in secrets if secret]
        self._sleep = sleep
        # No redirects: they could lead the token to another machine.
        self._client = httpx.Client(
            base_url=address.rstrip("/"),
            headers=dict(headers),
            timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=parts.scheme == "https",  # a proxy does not reach a machine of one's own
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        or_none: bool = False,
    ) -> Any:
        """What the service answers, read from JSON.

        Args:
            method: GET, POST or PUT.
            path: behind the service's address.
            params: of the query.
            body: sent as JSON.
            or_none: answer None where there is no such thing (404, 410).

        Raises:
            Refused: it does not take this request.
            OutOfReach: it does not answer in time.
            BadInput: it does not take the token.
        """
        import httpx

        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS
            try:
                response = self._client.request(method, path, params=params, json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
                if last or not (unsent or method in AGAIN_IS_THE_SAME):
                    raise self._out_of_reach(method, path, self._said(str(error) or type(error).__name__)) from None
                self._pause(FIRST_PAUSE * 2.0 ** (attempt - 1), f"{method} {path}")
                continue
            if response.status_code == TOO_MANY and not last:
                self._pause(_asked_pause(response, attempt), f"{method} {path}")
                continue
            if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR and not last and method in AGAIN_IS_THE_SAME:
                self._pause(_asked_pause(response, attempt), f"{method} {path}")
                continue
            return self._answer(method, path, response, or_none)
        raise AssertionError("the last attempt answers or raises")

    def _answer(self, method: str, path: str, response: httpx.Response, or_none: bool) -> Any:
        import httpx

        status, told = response.status_code, self._told(response)
        if or_none and status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            return None
        if status == httpx.codes.UNAUTHORIZED or (status == httpx.codes.FORBIDDEN and method == "GET"):
            raise BadInput(
                f"{self.service} does not take the token",
                where=f"{method} {path}",
                found=told,
                expected="a token that may read and write this place",
                way_out="make a new one, and set it in the environment",
            )
        if status == TOO_MANY or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise self._out_of_reach(method, path, told)
        if not response.is_success:
            refused = Refused(
                f"{self.service} does not take this",
                where=f"{method} {path}",
                found=told,
                expected="a request that it takes",
                way_out="see what it says; the rest goes on",
            )
            refused.status = status
            raise refused
        try:
            return response.json()
        except ValueError:
            raise Refused(
                f"{self.service} answers something else than JSON",
                where=f"{method} {path}",
                found=self._said(response.text) or "nothing",
                expected="JSON",
                way_out="check that the address is the service's own",
            ) from None

    def _pause(self, seconds: float, where: str) -> None:
        if self.waited + seconds > MOST_WAITING:
            raise OutOfReach(
                f"{self.service} asks for more patience than there is",
                where=where,
                found=f"{seconds:.0f} s more, after {self.waited:.0f} s",
                expected=f"at most {MOST_WAITING:.0f} s in all",
                way_out="try again later: what is done is recorded, and the same command goes on from here",
            )
        self.waited += seconds
        self._sleep(seconds)

    def _out_of_reach(self, method: str, path: str, found: str) -> OutOfReach:
        return OutOfReach(
            f"{self.service} does not answer",
            where=f"{method} {path}",
            found=found,
            expected="an answer",
            way_out="try again later: what is done is recorded, and the same command goes on from here",
        )

    def _told(self, response: httpx.Response) -> str:
        """What an error says, in one line."""
        try:
            body = response.json()
        except ValueError:
            body = response.text
        if isinstance(body, dict):
            first = (body.get("errors") or [{}])[0] if isinstance(body.get("errors"), list) else {}
            body = (first.get("message") if isinstance(first, dict) else "") or body.get("message") or ""
        said = self._said(str(body))
        return f"{response.status_code}: {said}" if said else str(response.status_code)

    def _said(self, text: str) -> str:
        """A text of the service's as it may be shown: one line, no secret."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= TOLD_CHARACTERS else line[: TOLD_CHARACTERS - 1] + "…"


def secret_of(environment: Mapping[str, str], name: str, service: str) -> str:
    """A token from the environment.

    Raises:
        BadInput: there is none, or it cannot be one; it is never shown.
    """
    value = environment.get(name, "").strip()
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", value) or '"' in value:
        raise BadInput(
            f"{service} needs a token",
            where=name,
            found="something that is no token" if value else "nothing in the environment",
            expected="a token of yours, in the environment only",
            way_out=f"export {name}=…",
        )
    return value


def instant_text(instant: float) -> str:
    """An instant as both services take it: ISO 8601, UTC, whole seconds."""
    return datetime.fromtimestamp(round(instant), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def instant_read(text: Any) -> float | None:
    """The instant in a text of a service's; None where there is none."""
    if not isinstance(text, str) or not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _asked_pause(response: httpx.Response, attempt: int) -> float:
    """Seconds to wait: as the service asks (Retry-After, in seconds or as a date; Trello's interval), else doubled."""
    asked = response.headers.get("retry-after", "").strip()
    if asked.isdigit():
        return float(asked)
    if asked:
        try:
            return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
        except (ValueError, TypeError):
            pass
    interval = response.headers.get("x-rate-limit-api-token-interval-ms", "")
    if response.status_code == TOO_MANY and interval.isdigit():
        return float(interval) / 1000
    return FIRST_PAUSE * 2.0 ** (attempt - 1)
