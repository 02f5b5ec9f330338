"""Who may ask: a token whenever the service can be reached from another machine."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from thriftune.deploy.refusals import Refusal
from thriftune.errors import BadInput

OPEN_PATHS = frozenset({"/healthz"})  # a load balancer's probe carries no token and learns nothing


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def service_token(host: str, variable: str, environment: Mapping[str, str]) -> str | None:
    """The token that requests must carry, out of the environment; None where none is set nor needed.

    Raises:
        BadInput: the host is not loopback and the variable is not set.
    """
    token = environment.get(variable, "").strip()
    if token:
        return token
    if is_loopback(host):
        return None
    raise BadInput(
        "a service that other machines can reach needs a token",
        where=f"deploy.host {host}",
        found=f"the environment variable {variable} is not set",
        expected="a secret in it, which clients send as `Authorization: Bearer …`",
        way_out=f"set it, for example `export {variable}=$(openssl rand -hex 24)`, or serve on 127.0.0.1",
    )


class TokenCheck:
    """ASGI middleware: answers 401 to a request without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request pass, or not."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._allowed(scope):
            await self._app(scope, receive, send)
            return
        refusal = Refusal(
            401,
            "this service wants a token: send it as `Authorization: Bearer …`",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await refusal.response()(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._token)
