"""Sessions: what a browser shows where it cannot send a header, on EventSource and WebSocket. A page gets one with its
key, as a cookie that scripts cannot read, and again before it is over."""

from ipaddress import ip_address

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import Response

from api.auth import SESSION_COOKIE, Keyring, is_own_page
from api.openapi.columns import object_of
from api.openapi.operation import Answer, described
from api.pages import TIME
from api.problems import json_response
from storage.keys import SESSION_SECONDS, create_session, end_session, hash_of

_PATH = "/v1"


class Sessions:
    """The routes that begin and end a session."""

    def __init__(self, engine: AsyncEngine, keyring: Keyring) -> None:
        self._engine = engine
        self._keyring = keyring

    @described(
        "events",
        answers={200: Answer("The cookie.", object_of({"expires_at": TIME}), ("Set-Cookie",))},
    )
    async def begin(self, request: Request) -> Response:
        """POST /v1/session: a cookie that stands for the key, for streams in a browser."""
        credential = await self._keyring.authenticate(request)
        token, expires_at = await create_session(self._engine, credential.id)
        response = json_response({"expires_at": expires_at}, headers={"Cache-Control": "no-store"})
        response.set_cookie(
            SESSION_COOKIE,
            token,
            max_age=SESSION_SECONDS,
            path=_PATH,
            secure=not _is_plain_loopback(request),
            httponly=True,
            samesite="strict",
        )
        return response

    @described("events", answers={204: Answer("It is over, if there was one.", headers=("Set-Cookie",))}, access=())
    async def end(self, request: Request) -> Response:
        """DELETE /v1/session: end the cookie's session, if there is one."""
        token = request.cookies.get(SESSION_COOKIE)
        if token is not None and is_own_page(request):
            await end_session(self._engine, hash_of(token))
        response = Response(status_code=204)
        response.delete_cookie(SESSION_COOKIE, path=_PATH, httponly=True, samesite="strict")
        return response


def _is_plain_loopback(request: Request) -> bool:
    """Whether the browser is at this machine and speaks plain HTTP, on which it would not take a secure cookie."""
    host = request.url.hostname or ""
    try:
        return request.url.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False
