"""Webhooks: endpoints of the credential's owner, registered, tried and looked after; the workers deliver to them."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.auth import Keyring
from api.events.topics import TOPIC, readable
from api.openapi.columns import Schema, column_schema, list_of, named, object_of
from api.openapi.operation import Answer, Parameter, described
from api.pages import UUID_TEXT, Page, one_of, read_page
from api.problems import Problem, json_response, not_found
from api.submit import read_json
from api.views.reads import page_schema
from commands.command import PRINTABLE, Invalid
from storage.keys import Credential
from storage.sealing import NoSecretKey, Sealer
from storage.settings import Settings
from storage.tables import deliveries, webhooks
from storage.webhooks import endpoints as store
from storage.webhooks.endpoints import CONCURRENCY_MAX, TOPICS_MAX, NewWebhook, Owner, TooMany, new_secret
from storage.webhooks.safe_http import URL_MAX, Outbound, Unacceptable

_STATES = ("pending", "delivered", "failed")


def _whole(value: object) -> object:
    """To JSON, 3.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class WebhookBody(BaseModel):
    """An endpoint on the wire."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=URL_MAX)]
    topics: Annotated[
        list[Annotated[str, StringConstraints(strict=True, max_length=300)]],
        Field(min_length=1, max_length=TOPICS_MAX),
    ]
    description: Annotated[str, StringConstraints(strict=True, max_length=255, pattern=PRINTABLE)] | None = None
    concurrency: Annotated[int, Field(strict=True, ge=1, le=CONCURRENCY_MAX), BeforeValidator(_whole)] = 1
    """Deliveries under way at once; with 1 they come strictly in order."""


def _shown() -> dict[str, Schema]:
    plain = {column.name: column_schema(column) for column in store.SHOWN if column.name != "topics"}
    return plain | {
        "url": {"type": "string", "examples": ["https://example.com/souk"]},
        "topics": list_of({"type": "string", "examples": ["market"]}),
        "enabled": {"type": "boolean"},
        "disabled_reason": {
            "type": ["string", "null"],
            "enum": ["failing", "gone", None],
            "description": "`failing`: a delivery failed for days; `gone`: the endpoint answered 410.",
        },
        "old_secret_until": plain["old_secret_until"] | {"description": "Until then, the secret before signs too."},
        "links": object_of({"self": {"type": "string"}, "deliveries": {"type": "string"}}),
    }


_WEBHOOK = named("Webhook", object_of(_shown()))
_SECRET: Schema = {"type": "string", "pattern": "^whsec_", "description": "Shown this once.", "examples": ["whsec_…"]}
_WITH_SECRET = named("WebhookWithSecret", object_of(_shown() | {"secret": _SECRET}))
_DELIVERY = named(
    "WebhookDelivery",
    object_of(
        {
            "id": {"type": "string", "format": "uuid", "description": "The header `webhook-id` of each attempt."},
            "event": {"type": "string", "examples": ["nft.sold"]},
            "state": {"type": "string", "enum": list(_STATES)},
            "attempts": {"type": "integer", "minimum": 0},
            "last_status": {"type": ["integer", "null"], "description": "What the endpoint answered."},
            "last_error": {
                "type": ["string", "null"],
                "description": "Why it did not answer.",
                "examples": ["timeout"],
            },
            **{
                name: {"type": ["string", "null"], "format": "date-time"}
                for name in ("last_attempt_at", "next_attempt_at", "finished_at")
            },
            "created_at": {"type": "string", "format": "date-time"},
        }
    ),
)
_BODY: Schema = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "format": "uri", "maxLength": URL_MAX, "examples": ["https://example.com/souk"]},
        "topics": list_of(TOPIC, minItems=1, maxItems=TOPICS_MAX),
        "description": {"type": ["string", "null"], "maxLength": 255, "examples": ["Sales"]},
        "concurrency": {
            "type": "integer",
            "minimum": 1,
            "maximum": CONCURRENCY_MAX,
            "default": 1,
            "description": "Deliveries under way at once; with 1 they come strictly in order.",
        },
    },
    "required": ["url", "topics"],
    "additionalProperties": False,
}
_ID = Parameter("id", UUID_TEXT, "Of the endpoint.", "path", required=True)
_DELIVERY_ID = Parameter("delivery_id", UUID_TEXT, "Of the delivery.", "path", required=True)


def _delivery(row: Mapping[str, Any]) -> dict[str, Any]:
    waits = row["state"] == "pending"
    return {
        "id": str(row["id"]),
        "event": row["name"],
        "state": row["state"],
        "attempts": row["attempts"],
        "last_status": row["status"],
        "last_error": row["error"],
        "created_at": row["created_at"],
        "last_attempt_at": row["attempted_at"],
        "next_attempt_at": row["due_at"] if waits else None,
        "finished_at": row["finished_at"],
    }


def _webhook(row: Mapping[str, Any]) -> dict[str, Any]:
    self_link = f"/v1/webhooks/{row['id']}"
    return {
        **row,
        "id": str(row["id"]),
        "topics": ["commands" if topic.startswith("commands:") else topic for topic in row["topics"]],
        "enabled": row["disabled_at"] is None,
        "links": {"self": self_link, "deliveries": f"{self_link}/deliveries"},
    }


_LIST = Page(
    rows=store.ANY,
    show=None,
    ids=(webhooks.c.id,),
    sorts={"id": webhooks.c.id},
    default="-id",
    shape=_webhook,
)
_LOG = Page(
    rows=store.LOG,
    show=None,
    ids=(deliveries.c.seq,),
    sorts={"created_at": deliveries.c.seq},
    default="-created_at",
    shape=_delivery,
    filters={"state": one_of(deliveries.c.state, _STATES)},
)


class Webhooks:
    """The routes of webhooks."""

    def __init__(
        self, settings: Settings, engine: AsyncEngine, keyring: Keyring, outbound: Outbound | None = None
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._keyring = keyring
        self._sealer = Sealer(settings.secret_key)
        self._outbound = outbound or Outbound(
            private=settings.webhook_private, timeout_seconds=settings.webhook_timeout_seconds
        )

    @property
    def routes(self) -> list[Route]:
        one = "/v1/webhooks/{id}"
        return [
            Route("/v1/webhooks", self.register, methods=["POST"]),
            Route("/v1/webhooks", self.many),
            Route(one, self.one),
            Route(one, self.remove, methods=["DELETE"]),
            Route(f"{one}/test", self.test, methods=["POST"]),
            Route(f"{one}/rotate", self.rotate, methods=["POST"]),
            Route(f"{one}/enable", self.enable, methods=["POST"]),
            Route(f"{one}/deliveries", self.log),
            Route(f"{one}/deliveries/{{delivery_id}}/resend", self.resend, methods=["POST"]),
        ]

    async def close(self) -> None:
        await self._outbound.close()

    @described(
        "webhooks",
        body=_BODY,
        answers={201: Answer("The endpoint, and its secret.", _WITH_SECRET, ("Location",))},
        problems=("malformed", "forbidden", "limit_reached", "too_large", "unsupported_media_type", "invalid"),
    )
    async def register(self, request: Request) -> Response:
        """POST /v1/webhooks: register an endpoint.

        Events of its topics are posted to it from now on, signed as Standard Webhooks says. `commands` tells what came
        of the commands that the credential sends."""
        credential = await self._keyring.authenticate(request)
        body, topics = self._read(credential, await read_json(request, self._settings.body_max_bytes))
        secret = new_secret()
        sealed = self._seal(secret)
        try:
            await self._outbound.check(body.url)
        except Unacceptable as error:
            raise Invalid(("url", str(error))) from None
        new = NewWebhook(body.url, topics, body.description, body.concurrency, sealed)
        try:
            row = await store.register(self._engine, Owner.of(credential), new)
        except TooMany as error:
            detail = f"There are {error} endpoints of yours, and no more may be: remove one."
            raise Problem(409, "limit_reached", detail, limit=error.args[0]) from None
        shown = _webhook(row) | {"secret": secret}
        return json_response(shown, 201, {"Location": shown["links"]["self"]})

    @described(
        "webhooks",
        parameters=_LIST.parameters(),
        answers={200: Answer("A page.", page_schema(_WEBHOOK))},
        problems=("invalid",),
    )
    async def many(self, request: Request) -> Response:
        """GET /v1/webhooks: one's own endpoints, newest first."""
        owner = Owner.of(await self._keyring.authenticate(request))
        async with self._engine.connect() as connection:
            page = _LIST._replace(rows=store.of_owner(owner))
            return json_response(await read_page(connection, page, request.query_params))

    @described("webhooks", parameters=(_ID,), answers={200: Answer("It.", _WEBHOOK)}, problems=("not_found",))
    async def one(self, request: Request) -> Response:
        """GET /v1/webhooks/{id}: an endpoint."""
        owner, webhook_id = await self._asked(request)
        async with self._engine.connect() as connection:
            row = await store.find(connection, owner, webhook_id)
        return json_response(_found(row, _webhook))

    @described("webhooks", parameters=(_ID,), answers={204: Answer("It is no more.")}, problems=("not_found",))
    async def remove(self, request: Request) -> Response:
        """DELETE /v1/webhooks/{id}: remove an endpoint, and the log of its deliveries."""
        if not await store.remove(self._engine, *await self._asked(request)):
            raise not_found()
        return Response(status_code=204)

    @described(
        "webhooks",
        parameters=(_ID,),
        answers={202: Answer("The delivery, which is to come.", _DELIVERY, ("Retry-After",))},
        problems=("not_found", "too_many_requests"),
    )
    async def test(self, request: Request) -> Response:
        """POST /v1/webhooks/{id}/test: deliver an event `webhook.test`, once, even while the endpoint is disabled."""
        try:
            row = await store.test(self._engine, *await self._asked(request))
        except TooMany as error:
            raise _busy(error) from None
        return _to_come(_found(row, _delivery))

    @described(
        "webhooks",
        parameters=(_ID,),
        answers={200: Answer("The endpoint, and its new secret.", _WITH_SECRET)},
        problems=("not_found",),
    )
    async def rotate(self, request: Request) -> Response:
        """POST /v1/webhooks/{id}/rotate: replace the secret.

        The one before signs too for a day: deliveries carry both signatures."""
        owner, webhook_id = await self._asked(request)
        secret = new_secret()
        row = await store.rotate(self._engine, owner, webhook_id, self._seal(secret))
        return json_response(_found(row, _webhook) | {"secret": secret})

    @described("webhooks", parameters=(_ID,), answers={200: Answer("It.", _WEBHOOK)}, problems=("not_found",))
    async def enable(self, request: Request) -> Response:
        """POST /v1/webhooks/{id}/enable: deliver again to an endpoint that was disabled, from where it stopped."""
        row = await store.enable(self._engine, self._settings, *await self._asked(request))
        return json_response(_found(row, _webhook))

    @described(
        "webhooks",
        parameters=(_ID, *_LOG.parameters()),
        answers={200: Answer("A page.", page_schema(_DELIVERY))},
        problems=("not_found", "invalid"),
    )
    async def log(self, request: Request) -> Response:
        """GET /v1/webhooks/{id}/deliveries: the deliveries of an endpoint, newest first, for 30 days."""
        owner, webhook_id = await self._asked(request)
        async with self._engine.connect() as connection:
            if await store.find(connection, owner, webhook_id) is None:
                raise not_found()
            page = _LOG._replace(rows=store.log_of(webhook_id))
            return json_response(await read_page(connection, page, request.query_params))

    @described(
        "webhooks",
        parameters=(_ID, _DELIVERY_ID),
        answers={202: Answer("The delivery, which is to come.", _DELIVERY, ("Retry-After",))},
        problems=("not_found", "too_many_requests"),
    )
    async def resend(self, request: Request) -> Response:
        """POST /v1/webhooks/{id}/deliveries/{delivery_id}/resend: deliver it once more, under the same id.

        One that waits for its next attempt need wait no longer."""
        owner, webhook_id = await self._asked(request)
        delivery_id = _uuid(request, "delivery_id")
        try:
            row = await store.resend(self._engine, self._settings, owner, webhook_id, delivery_id)
        except TooMany as error:
            raise _busy(error) from None
        return _to_come(_found(row, _delivery))

    async def _asked(self, request: Request) -> tuple[Owner, UUID]:
        """Who asks, and for which endpoint."""
        credential = await self._keyring.authenticate(request)
        return Owner.of(credential), _uuid(request, "id")

    def _read(self, credential: Credential, content: Any) -> tuple[WebhookBody, list[str]]:
        """The endpoint in a JSON value, and the stored names of its topics. Raises Invalid, and Problem 403."""
        try:
            body = WebhookBody.model_validate(content)
        except ValidationError as error:
            raise Invalid.from_pydantic(error, "") from None
        try:
            self._outbound.read(body.url)
        except Unacceptable as error:
            raise Invalid(("url", str(error))) from None
        try:
            return body, readable(credential, body.topics)
        except Invalid as error:
            raise Invalid(*(("topics", message) for _, message in error.errors)) from None

    def _seal(self, secret: str) -> bytes:
        try:
            return self._sealer.seal_text(secret)
        except NoSecretKey as error:
            raise Problem(503, "unavailable", f"Webhooks are not offered here: {error}.") from None


def _uuid(request: Request, name: str) -> UUID:
    try:
        return UUID(request.path_params[name])
    except ValueError:
        raise not_found() from None


def _found(row: store.Shown | None, shape: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    if row is None:
        raise not_found()
    return shape(row)


def _to_come(delivery: dict[str, Any]) -> Response:
    return json_response(delivery, 202, {"Retry-After": "1"})


def _busy(error: TooMany) -> Problem:
    return Problem(429, "too_many_requests", "Earlier deliveries asked for by hand still wait.", limit=error.args[0])
