"""What every request has to pass before a route sees it."""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 16 << 20
"""Bytes of a request: a stroke over a 40-megapixel image in the worst case that is painted."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware: host, origin, token, content type and size of the body.

    Args:
        app: the routes.
        token: every request below ``/api/`` must have ``Authorization: Bearer TOKEN``. A browser
            sends that header to another site's server only after a preflight, which is refused.
        hosts: accepted names in the Host header, against DNS rebinding; None accepts all.
    """

    def __init__(self, app: ASGIApp, *, token: str, hosts: Collection[str] | None) -> None:
        self.app = app
        self.token = token
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with an error."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route is a websocket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refused = self._refused(scope)
        if refused is None:
            body = await _body(receive)
            if body is not None:
                await self.app(scope, _replayed(body), guarded)
                return
            refused = 413, f"the request has more than {MAX_BODY} bytes"
        code, reason = refused
        content = json.dumps({"error": reason}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await guarded({"type": "http.response.start", "status": code, "headers": headers})
        await guarded({"type": "http.response.body", "body": content})

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if self.hosts is not None and name not in self.hosts:
            return 403, "open the address that s5mars label printed"
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return 403, "requests from other sites are refused"
        if not scope["path"].startswith("/api/"):
            return None  # a link to the page itself is harmless: it holds nothing without a token
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "requests from other sites are refused"
        given = headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            return 401, "the token is missing or wrong: open the address that s5mars label printed"
        if scope["method"] == "POST" and headers.get("content-type") != "application/json":
            return 415, "the body must be application/json"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return 413, f"the request has more than {MAX_BODY} bytes"
        return None


async def _body(receive: Receive) -> bytes | None:
    """The whole body, or None if it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes) -> Receive:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
