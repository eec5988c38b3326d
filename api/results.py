"""Receipts: of one command, waited for if wanted, and the list of one's own."""

import asyncio
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, Text, and_, cast, not_, select, true
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Keyring, may_see
from api.openapi.operation import Answer, Parameter, described, ref
from api.pages import UUID_TEXT, Page, one_of, one_of_integers, read_page
from api.problems import Problem, json_response, not_found
from api.submit import Submit
from api.views.reads import page_schema
from commands.command import KINDS, SYSTEM, Invalid, Sender
from commands.outcome import Outcome, Status
from storage.journal.accept import Journal
from storage.journal.cancel import LOCK_SECONDS, cancel
from storage.journal.receipts import Receipt
from storage.keys import Credential, Role
from storage.postgres.connection import is_weather
from storage.redis.hints import Hints
from storage.redis.queue import result_record
from storage.settings import Settings
from storage.tables import archived_commands, commands

_FIELDS = [name for name in Receipt._fields if name != "replayed"]


def _receipts(table: Table) -> Select[Any]:
    """The columns of receipts, from the journal or from the archive."""
    as_text = ("result", "rejection")
    return select(*(cast(table.c[name], Text).label(name) if name in as_text else table.c[name] for name in _FIELDS))


def _page(table: Table) -> Page:
    return Page(
        rows=_receipts(table),
        show=None,
        ids=(table.c.id,),
        sorts={"id": table.c.id},
        default="-id",
        shape=lambda row: Receipt(
            **{name: row[name] for name in _FIELDS} | {"status": Status(row["status"])}
        ).as_json(),
        filters={
            "status": one_of(table.c.status, list(Status)),
            "kind": one_of(table.c.kind),
            "asset": one_of(table.c.asset),
            "actor": one_of_integers(table.c.actor),
        },
    )


_LIST = _page(commands)
CANCELLING_MAX = 2
"""At once: each may wait for a batch, and the pool's other connections are for those who do not."""

COMMAND_ID = Parameter("id", UUID_TEXT, "Of the command.", "path", required=True)
WAIT = Parameter(
    "wait", {"type": "number", "minimum": 0, "maximum": "wait_max_seconds"}, "Seconds to wait for the final receipt."
)


class Results:
    """The routes that tell what came of commands."""

    def __init__(
        self,
        settings: Settings,
        engine: AsyncEngine,
        journal: Journal,
        hints: Hints,
        submit: Submit,
        keyring: Keyring,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._journal = journal
        self._hints = hints
        self._submit = submit
        self._keyring = keyring
        self._cancelling = asyncio.Semaphore(CANCELLING_MAX)

    @described(
        "commands",
        parameters=(COMMAND_ID, WAIT),
        answers={200: Answer("The receipt, final or not.", ref("Receipt"))},
        problems=("not_found", "invalid"),
    )
    async def one(self, request: Request) -> Response:
        """GET /v1/commands/{id}: the receipt of a command, waited for if wanted."""
        credential = await self._keyring.authenticate(request)
        seconds = self._wait_seconds(request)
        receipt = await self._own(credential, request)
        if seconds and not receipt.is_final:
            [receipt] = await self._submit.wait([receipt], seconds)
        return json_response(receipt.as_json())

    @described(
        "commands",
        parameters=_LIST.parameters(),
        answers={200: Answer("A page.", page_schema(ref("Receipt")))},
        problems=("invalid",),
    )
    async def many(self, request: Request) -> Response:
        """GET /v1/commands: one's own commands, newest first."""
        credential = await self._keyring.authenticate(request)
        async with self._engine.connect() as connection:
            return json_response(await read_page(connection, list_for(credential), request.query_params))

    @described(
        "commands",
        parameters=(COMMAND_ID,),
        answers={200: Answer("The receipt: it will not run.", ref("Receipt"))},
        problems=("forbidden", "not_found", "already_final"),
    )
    async def cancel(self, request: Request) -> Response:
        """DELETE /v1/commands/{id}: cancel a command that has not run.

        A cancelled command never has an effect, and one that has run is never cancelled."""
        credential = await self._keyring.authenticate(request)
        receipt = await self._own(credential, request)
        cancelled = not receipt.is_final and await self._cancelled(receipt)
        receipt = await self._journal.read(receipt.id) or receipt
        if cancelled:
            self._hints.finish([(receipt.partition, receipt.id)], self._records(receipt))
            return json_response(receipt.as_json())
        if not receipt.is_final:
            raise Problem(403, "forbidden", "Another command wrote this one; nobody submitted it.")
        raise Problem(409, "already_final", f"The command is {receipt.status}.", receipt=receipt.as_json())

    def _records(self, receipt: Receipt) -> dict[UUID, str]:
        """Arq's record of a cancelled job, where results are kept."""
        if self._settings.arq_results_seconds is None or receipt.finished_at is None:
            return {}
        record = result_record(
            *(receipt.partition, receipt.id, Outcome(Status.CANCELLED)),
            accepted_at=receipt.accepted_at or receipt.finished_at,
            started_at=receipt.finished_at,
            finished_at=receipt.finished_at,
        )
        return {receipt.id: record}

    async def _cancelled(self, receipt: Receipt) -> bool:
        """Whether it was cancelled now. Raises what the database raises, and TimeoutError."""
        async with asyncio.timeout(LOCK_SECONDS):
            await self._cancelling.acquire()
        try:
            return await cancel(self._engine, receipt.id, receipt.partition)
        except Exception as error:
            if not is_weather(error):
                raise
            found = await self._journal.read(receipt.id)  # a COMMIT may have done its work and not said so
            if found is None or found.status is not Status.CANCELLED:
                raise
            return True
        finally:
            self._cancelling.release()

    async def _own(self, credential: Credential, request: Request) -> Receipt:
        """The receipt that the path names. Raises Problem 404."""
        try:
            command_id = UUID(request.path_params["id"])
        except ValueError:
            raise not_found() from None
        receipt = await self._journal.read(command_id)
        if receipt is None or not may_see(credential, receipt):
            raise not_found()
        return receipt

    def _wait_seconds(self, request: Request) -> float:
        text = request.query_params.get("wait", "0")
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= self._settings.wait_max_seconds:
            raise Invalid(("wait", f"must be a number of seconds between 0 and {self._settings.wait_max_seconds:g}"))
        return seconds


def list_for(credential: Credential) -> Page:
    """The list of what the credential may see, archived commands among it. One that was accepted again under its id
    after it was archived is told as the journal has it."""
    journaled = select().where(commands.c.id == archived_commands.c.id).exists()
    archived = _page(archived_commands)
    archived = archived._replace(rows=archived.rows.where(_visible(credential, archived_commands), not_(journaled)))
    return _LIST._replace(rows=_LIST.rows.where(_visible(credential, commands)), also=archived)


def _visible(credential: Credential, table: Table) -> ColumnElement[bool]:
    """The same rule as `may_see`, for a list."""
    match credential.role:
        case Role.OPERATOR:
            return true()
        case Role.USER:
            return table.c.actor == credential.user_id
        case Role.SERVICE:
            return table.c.actor.is_not(None)
        case Role.FEED:
            system = [kind for kind, command in KINDS.items() if Sender.SYSTEM in command.sent_by & SYSTEM]
            return and_(table.c.actor.is_(None), table.c.kind.in_(system))
