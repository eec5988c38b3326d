"""The description, for programs at /openapi.json and for people at /docs: Swagger UI, from the files of its package.

Nobody needs a credential for these, and no page refers to another origin: its policy would not let it.
"""

import asyncio
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from api.entity_tags import unless_known
from api.openapi.document import build
from api.openapi.operation import Answer, Parameter, described
from api.problems import not_found
from storage.settings import Settings

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Souk: the API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  showExtensions: true,
  validatorUrl: null,
});
"""
_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}
_TEXTS = {"type": "string"}


class Docs:
    """The description is built once, when first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        found = find_spec("swagger_ui")  # its files alone are wanted, so it is not imported
        assert found is not None and found.origin is not None  # noqa: PT018,S101 - a dependency
        self._static = Path(found.origin).parent / "static"
        self._read: dict[str, bytes] = {"start.js": _START}
        self._building: asyncio.Task[bytes] | None = None
        self.routes: list[BaseRoute] = [
            Route("/openapi.json", self.document),
            Route("/docs", self.page),
            Route("/docs/{name}", self.file),
        ]

    @described(
        "process",
        answers={200: Answer("OpenAPI 3.1.", {"type": "object"}, ("ETag",), example={"openapi": "3.1.0"})},
        access=(),
    )
    async def document(self, request: Request) -> Response:
        """GET /openapi.json: this description."""
        if self._building is None:
            self._building = asyncio.create_task(asyncio.to_thread(self._build, request.app.routes))
        content = await asyncio.shield(self._building)
        return unless_known(request, content, "application/json", {"Cache-Control": "public, no-cache"})

    def _build(self, routes: Iterable[BaseRoute]) -> bytes:
        return to_json(build(routes, self._settings))

    @described("process", answers={200: Answer("A page.", {"text/html": _TEXTS}, ("ETag",))}, access=())
    async def page(self, request: Request) -> Response:
        """GET /docs: this description, for people."""
        return unless_known(request, _PAGE, "text/html", _HEADERS | {"Cache-Control": "public, no-cache"})

    @described(
        "process",
        parameters=(Parameter("name", {"type": "string", "enum": ["start.js", *_FILES]}, place="path", required=True),),
        answers={
            200: Answer("The file.", {"text/javascript": _TEXTS, "text/css": _TEXTS, "image/png": _TEXTS}, ("ETag",))
        },
        problems=("not_found",),
        access=(),
    )
    async def file(self, request: Request) -> Response:
        """GET /docs/{name}: what the page is made of."""
        name = request.path_params["name"]
        if name not in self._read:
            if name not in _FILES:
                raise not_found()
            self._read[name] = (self._static / name).read_bytes()
        headers = _HEADERS | {"Cache-Control": "public, max-age=3600"}
        return unless_known(request, self._read[name], _FILES.get(name, "text/javascript"), headers)
