"""Entity tags: an answer that the client has already is not sent again."""

from collections.abc import Mapping
from hashlib import blake2b

from starlette.requests import Request
from starlette.responses import Response


def unless_known(request: Request, content: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """The content under its tag, or 304 when the client has just that."""
    tag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    known = {known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")}
    if tag in known or "*" in known:
        return Response(status_code=304, headers={**headers, "ETag": tag})
    return Response(content, headers={**headers, "ETag": tag}, media_type=media_type)
