"""Checks every request before anything else happens with it.

The studio is for the person at this machine. Other programs and foreign pages can send requests to it too (through the browser:
cross-site requests, DNS rebinding). So a request must name this machine, come from the studio's own page, and carry the cookie that
a token gave, or the key from the studio's folder. The User-Agent plays no part.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = {"GET", "HEAD"}
HEADER = "x-impasto"  # a page of another origin cannot send it without a preflight request, which is always refused
STAYS = 30 * 86400  # seconds that a browser keeps its cookie
PAGES = "/pages/"  # the pages that the studio shows in a frame
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


class Keys:
    """The credentials: a token, valid once, that gives a browser its cookie; the cookie; a key for programs.

    Cookie and key are signatures with the folder's `secret`, so open pages work on after a restart.
    """

    def __init__(self, secret: bytes, port: int, announce: Callable[[str], None]) -> None:
        self.cookie_name = f"impasto-{port}"
        self.cookie, self.key = (hmac.new(secret, of, hashlib.sha256).hexdigest() for of in (b"cookie", b"key"))
        self.announce = announce
        self.token = secrets.token_urlsafe(24)

    def use_token(self, token: str) -> bool:
        """Whether this is the token. It becomes invalid, and the next one is announced."""
        if not equal(token, self.token):
            return False
        self.token = secrets.token_urlsafe(24)
        self.announce(self.token)
        return True

    def accepts(self, headers: Headers) -> bool:
        """Whether the request carries the cookie or the key."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        cookie = cookie_parser(headers.get("cookie", "")).get(self.cookie_name, "")  # it may hold any cookies of other ports
        return equal(cookie, self.cookie) or (scheme.lower() == "bearer" and equal(key, self.key))


def equal(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def hosts_of(port: int) -> set[str]:
    """The Host names of the studio for a browser on this machine."""
    names = ("127.0.0.1", "localhost", "[::1]")
    return {f"{name}:{port}" for name in names} | set(names if port == 80 else ())


def refusal(method: str, headers: Headers, hosts: Iterable[str]) -> tuple[int, str] | None:
    """(status, reason) for a request from anywhere but the studio's page or a program here; None for one that may pass."""
    named = headers.getlist("host")
    if len(named) != 1 or named[0].lower() not in hosts:
        return 421, "this is not the address of the studio"
    origins = headers.getlist("origin")
    if origins and (len(origins) > 1 or origins[0].lower() != f"http://{named[0].lower()}"):
        return 403, "another page may not send this request"
    if method not in SAFE_METHODS:
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "another page may not send this request"
        if HEADER not in headers:
            return 403, f"a request that changes something needs the header {HEADER}"
    return None


class Guard:
    """Refuses bad requests, and adds the security headers to every answer."""

    def __init__(self, app: ASGIApp, keys: Keys, port: int) -> None:
        self.app, self.keys, self.hosts = app, keys, hosts_of(port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = self._answer(scope) or self.app
            await answer(scope, receive, with_headers(send, scope["path"]))
        else:  # a web socket, which the studio does not use
            await send({"type": "websocket.close", "code": 1008})

    def _answer(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if refused := refusal(scope["method"], headers, self.hosts):
            return _error(*refused)
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and token and scope["method"] == "GET" and self.keys.use_token(token):
            entry = RedirectResponse("/", 303)
            entry.set_cookie(self.keys.cookie_name, self.keys.cookie, httponly=True, samesite="strict", path="/", max_age=STAYS)
            return entry
        if self.keys.accepts(headers):
            return RedirectResponse("/", 303) if token and scope["path"] == "/" else None
        if scope["path"] == "/":
            again = (
                {"refresh": "0; url=/"} if headers.get("sec-fetch-site") == "cross-site" else None
            )  # then the strict cookie is sent
            return Response(LOCKED, 401, again, media_type="text/html")
        return _error(401, "open the address that the studio printed at its start")


LOCKED = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Impasto studio</title>
<h1>Impasto studio</h1>
<p>This browser has no access. Run <code>impasto studio</code> again: it opens the studio that runs, at a new address.
Each address works once; a browser that has opened one has access to this folder's studio for 30 days.</p></html>
"""


def _error(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status)


def with_headers(send: Send, path: str) -> Callable[[Message], Awaitable[None]]:
    """Add the headers of every answer. Only the pages below PAGES may be framed, and only by the studio."""
    frames = "'self'" if path.startswith(PAGES) else "'none'"

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update({**HEADERS, "content-security-policy": f"{POLICY}; frame-ancestors {frames}"})
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending
