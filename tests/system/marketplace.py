"""A running marketplace that many tests share, each with people and items of its own: HTTP in, receipts out.

Time is not waited for: `hold_back` lets commands be accepted while none is executed, and `age` moves a document, its
timers and its commands into the past.
"""

import asyncio
from base64 import urlsafe_b64encode
from binascii import crc_hqx
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
import httpx

from commands.users import memo_of
from storage.gateway.sandbox import Fault, clear_faults, set_fault
from storage.keys import Role, create_key
from storage.postgres.connection import Connection
from storage.settings import Settings
from tests.deadline import again_while_busy, eventually
from tests.installation import connected
from tests.market import TON, deposit, gift, receive, register, set_price
from tests.system.site import Site, site_of

NOWHERE = "01900000-0000-7000-8000-000000000000"
"""The id of no document."""
ANY = [{"collection": "Plush Pepe", "backdrop": None}]
"""Requirements that any item of these tests meets."""
FIRST_ID = 1_000
_ACCOUNT = bytes([0x51, 0]) + bytes(range(32))
ADDRESS = urlsafe_b64encode(_ACCOUNT + crc_hqx(_ACCOUNT, 0).to_bytes(2)).decode()
"""A TON address that is not the platform's."""
DAY = 86_400
"""Seconds."""
Receipt = dict[str, Any]


class Command(NamedTuple):
    """What a user sends; nobody's when the actor is None, as feeds and timers send. Sent twice, it is the same one."""

    kind: str
    actor: int | None
    payload: dict[str, Any]
    key: str

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "actor": self.actor, "payload": self.payload, "idempotency_key": self.key}


def command(kind: str, actor: int | None = None, /, **payload: Any) -> Command:
    return Command(kind, actor, payload, uuid4().hex)


@asynccontextmanager
async def open_marketplace(settings: Settings, directory: Path, workers: int) -> AsyncIterator["Marketplace"]:
    """A marketplace with an API and so many workers, found sound when its tests have passed."""
    async with site_of(settings, directory) as site:
        async with connected(settings) as connection:
            # What tests ask for again and again, and nobody else.
            await connection.execute("CREATE INDEX ON events (command_id); CREATE INDEX ON postings (command_id)")
        for _ in range(workers):
            site.start_worker()
        await site.start_api()
        marketplace = Marketplace(site)
        try:
            yield marketplace
        finally:
            await marketplace.close()


class Marketplace:
    """`site` is where it runs. Operators send commands in their actors' names; users read with keys of their own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._ids = count(FIRST_ID)
        self._keys: dict[int, str] = {}
        self._idle: list[Connection] = []
        self._moments: dict[str, list[str]] = {}

    def new_id(self) -> int:
        return next(self._ids)

    # -- commands

    async def submit(self, sent: Command, wait: int = 0) -> Receipt:
        """The receipt as it is answered: final when it is so within the wait."""
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        response = await again_while_busy(
            lambda: self.site.client.post("/v1/commands", json=sent.as_json(), headers=headers)
        )
        assert response.status_code in (200, 202), response.text
        receipt: Receipt = response.json()
        return receipt

    async def final(self, receipt: Receipt) -> Receipt:
        response = await self.site.client.get(f"/v1/commands/{receipt['id']}?wait=30")
        final: Receipt = response.json()
        assert final["finished_at"] is not None, f"it has no outcome: {final}"
        return final

    async def run(self, sent: Command) -> Receipt:
        """The final receipt."""
        return await self.final(await self.submit(sent, wait=30))

    async def do(self, kind: str, actor: int | None = None, /, **payload: Any) -> Receipt:
        """The receipt of a command that succeeds."""
        receipt = await self.run(command(kind, actor, **payload))
        assert receipt["status"] == "succeeded", receipt
        return receipt

    async def refused(self, code: str, kind: str, actor: int | None = None, /, **payload: Any) -> dict[str, Any]:
        """The rejection of a command that is refused with this code, and leaves nothing behind."""
        before = await self.balance(actor)
        receipt = await self.run(command(kind, actor, **payload))
        await self.assert_refused(receipt, code)
        assert await self.balance(actor) == before
        rejection: dict[str, Any] = receipt["rejection"]
        return rejection

    async def assert_refused(self, receipt: Receipt, code: str) -> None:
        assert (receipt["status"], (receipt["rejection"] or {}).get("code")) == ("rejected", code), receipt
        left = await self.site.rows(
            f"SELECT (SELECT count(*) FROM postings WHERE command_id = '{receipt['id']}'),"
            f" (SELECT count(*) FROM deals WHERE id = '{receipt['id']}'),"
            f" (SELECT count(*) FROM events WHERE command_id = '{receipt['id']}' AND name <> 'gateway.contradicted')"
        )
        assert left == [(0, 0, 0)], "a refused command left something behind"

    async def race(self, commands: Sequence[Command]) -> list[Receipt]:
        """The final receipts of commands sent at the same time, each in a request of its own."""
        return await asyncio.gather(*(self.run(sent) for sent in commands))

    async def crowd(self, commands: Sequence[Command], clients: int = 5) -> list[Receipt]:
        """The final receipts of many commands, sent at the same time by a few clients."""
        size = -(-len(commands) // clients)
        parts = [commands[start : start + size] for start in range(0, len(commands), size)]
        answers = await asyncio.gather(
            *(self.site.submit([sent.as_json() for sent in part], wait=30) for part in parts)
        )
        receipts = [receipt for answer in answers for receipt in answer]
        assert all(receipt["finished_at"] for receipt in receipts), receipts
        return receipts

    async def in_order(self, commands: Sequence[Command]) -> list[Receipt]:
        """The final receipts of commands accepted in this order, and executed only when all are accepted."""
        async with self.hold_back():
            receipts = [await self.submit(sent) for sent in commands]
        return [await self.final(receipt) for receipt in receipts]

    # -- people and things

    async def people(self, number: int, balance_nano: int = 10 * TON) -> list[int]:
        """New users, each with the balance."""
        users = [self.new_id() for _ in range(number)]
        await self.site.succeed([register(user) for user in users])
        if balance_nano:
            await self.site.succeed([deposit(memo_of(user), balance_nano, self.new_id()) for user in users])
        return users

    async def person(self, balance_nano: int = 10 * TON) -> int:
        [user] = await self.people(1, balance_nano)
        return user

    async def items(self, owners: Sequence[int], price_nano: int | None = None, **traits: Any) -> list[int]:
        """A new item of each owner, listed when there is a price."""
        items = [self.new_id() for _ in owners]
        await self.site.succeed([receive(item, owner, **traits) for item, owner in zip(items, owners, strict=True)])
        if price_nano is not None:
            await self.site.succeed(
                [set_price(owner, item, price_nano) for item, owner in zip(items, owners, strict=True)]
            )
        return items

    async def item(self, owner: int, price_nano: int | None = None, **traits: Any) -> int:
        [item] = await self.items([owner], price_nano, **traits)
        return item

    async def auction(self, seller: int, item: int, start_nano: int = TON, **facts: Any) -> dict[str, Any]:
        """What names a new auction of the item."""
        opened = await self.do("auctions.create", seller, nft_id=item, start_nano=start_nano, **facts)
        return {"nft_id": item, "auction_id": opened["id"]}

    async def offer(self, author: int, item: int, price_nano: int) -> dict[str, Any]:
        """What names a new offer on the item."""
        made = await self.do("offers.create", author, nft_id=item, price_nano=price_nano)
        return {"nft_id": item, "offer_id": made["id"]}

    async def trade(self, owner: int, items: Sequence[int], **facts: Any) -> dict[str, Any]:
        """What names a new trade of the items for any item."""
        opened = await self.do("trades.create", owner, nft_ids=list(items), **{"requirements": ANY} | facts)
        return {"trade_id": opened["id"]}

    async def proposal(self, author: int, trade: Mapping[str, Any], items: Sequence[int]) -> dict[str, Any]:
        """What names a new proposal of the items."""
        made = await self.do("trades.propose", author, **trade, nft_ids=list(items))
        return {**trade, "proposal_id": made["id"]}

    async def deposit(self, user: int, amount_nano: int) -> None:
        await self.site.succeed([deposit(memo_of(user), amount_nano, self.new_id())])

    async def drain(self, user: int) -> None:
        """Take all that the user has available."""
        available, _ = await self.balance(user)
        if available:
            await self.do("market.adjust", user_id=user, amount_nano=-available, reason="a fresh start")

    async def presale(
        self, seller: int, gift_id: int, price_nano: int | None = None, days: float = 10
    ) -> dict[str, Any]:
        """What names a new presale of a gift that can be moved after so many days, listed when there is a price."""
        transferable_at = datetime.now(UTC) + timedelta(days=days)
        receipt = await self.do(
            "presale.register",
            gift_id=gift_id,
            gift=gift(gift_id),
            seller_id=seller,
            transferable_at=transferable_at.isoformat(),
        )
        presale = {"gift_id": gift_id, "presale_id": receipt["id"]}
        if price_nano is not None:
            await self.do("presale.set_price", seller, **presale, price_nano=price_nano)
        return presale

    async def account(self, user: int) -> str:
        """The id of a new Telegram account of the user, connected."""
        account: str = (await self.do("accounts.connect", user, phone=f"+{70_000_000_000 + self.new_id()}"))["id"]
        await self.until_answered(account)
        name = f"account {self.new_id()}"
        approved = await self.do("accounts.approve", user, account_id=account, code="12345", name=name)
        await self.until_answered(approved["id"])
        assert await self.document("telegram_accounts", account, "state") == ("connected",)
        return account

    async def channel(self, owner: int, account: str, price_nano: int | None = None) -> str:
        """The id of a new channel of the account, listed when there is a price."""
        channel = str(self.new_id())
        added = await self.do("channels.add", owner, channel_id=channel, account_id=account)
        await self.until_answered(added["id"])
        if price_nano is not None:
            await self.do("channels.set_price", owner, channel_id=channel, price_nano=price_nano)
        return channel

    async def old_account(self, user: int) -> str:
        """The id of a Telegram account that the user connected two days ago."""
        account = await self.account(user)
        await self.age("telegram_accounts", account, 2 * DAY)
        return account

    # -- what there is to see

    async def ask(self, user: int, path: str, **filters: Any) -> httpx.Response:
        """The answer to the user's own key."""
        if user not in self._keys:
            _, self._keys[user] = await create_key(self.site.engine, Role.USER, user)
        headers = {"Authorization": f"Bearer {self._keys[user]}"}
        return await self.site.client.get(f"/v1{path}", params=filters, headers=headers)

    async def read(self, user: int, path: str, **filters: Any) -> dict[str, Any]:
        """What the user is answered, with 200, for a path under /v1."""
        response = await self.ask(user, path, **filters)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def read_list(self, user: int, path: str, **filters: Any) -> list[dict[str, Any]]:
        """The items of a page."""
        answer = await self.read(user, path, **filters)
        items: list[dict[str, Any]] = answer["items"]
        assert isinstance(items, list), answer
        return items

    async def balance(self, user: int | None) -> tuple[int, int]:
        """What the user has available and held."""
        rows = await self.site.rows(f"SELECT available_nano, held_nano FROM accounts WHERE id = {user or 0}")
        return (rows[0][0], rows[0][1]) if rows else (0, 0)

    async def seq(self, receipt: Receipt) -> int:
        """The place of a command in the journal: those of one key are executed in this order."""
        return int(await self.site.value(f"SELECT seq FROM commands WHERE id = '{receipt['id']}'"))

    async def fees(self, *users: int) -> int:
        """What these users have paid to the platform."""
        paid = f"debit_account = ANY(ARRAY{list(users)}::bigint[]) AND credit_account = -1"
        return int(await self.site.value(f"SELECT coalesce(sum(amount_nano), 0) FROM postings WHERE {paid}"))

    async def nft(self, nft_id: int) -> tuple[int | None, str]:
        """The owner and the state of an item."""
        [row] = await self.site.rows(f"SELECT owner_id, state FROM nfts WHERE id = {nft_id}")
        return row[0], row[1]

    async def document(self, table: str, id_: Any, *columns: str) -> tuple[Any, ...]:
        [row] = await self.site.rows(f"SELECT {', '.join(columns)} FROM {table} WHERE id::text = '{id_}'")
        return row

    async def timers(self, kind: str, id_: str) -> list[str]:
        """The statuses of a document's timers, in the order in which they are or were due."""
        return [row[0] for row in await self.site.rows(f"SELECT status {_TIMERS.format(kind=kind, id=id_)}")]

    async def timer_codes(self, kind: str, id_: str) -> list[str]:
        """The codes with which a document's timers were rejected."""
        rows = await self.site.rows(f"SELECT rejection ->> 'code' {_TIMERS.format(kind=kind, id=id_)}")
        return [row[0] for row in rows if row[0] is not None]

    async def until_final(self, kind: str, id_: str, count: int = 1) -> None:
        """Wait until so many timers of the document have had their outcome."""

        async def enough() -> bool:
            waiting = ("scheduled", "accepted")
            return sum(status not in waiting for status in await self.timers(kind, id_)) >= count

        await eventually(enough, claim=f"the timer {kind} of {id_} has no outcome")

    async def until_answered(self, reference: str) -> None:
        """Wait until a request has ended, and with it what it was for."""

        async def answered() -> bool:
            return bool(
                await self.site.value(
                    "SELECT count(*) FROM gateway_requests JOIN commands"
                    " ON id >= overlay(reference::text PLACING '0000-0000-000000000000' FROM 15)::uuid"
                    " AND kind IN (answers || '_confirm', answers || '_fail') AND status = 'succeeded'"
                    f" AND payload::text LIKE '%{reference}%' WHERE reference = '{reference}'"
                )
            )

        await eventually(answered, claim=f"the request {reference} is not answered")

    async def until_accepted(self, kind: str, id_: str) -> None:
        """Wait until a timer of the document is accepted."""

        async def accepted() -> bool:
            return "accepted" in await self.timers(kind, id_)

        await eventually(accepted, claim=f"the timer {kind} of {id_} is not accepted")

    async def withdraw(self, user: int, amount_nano: int = 2 * TON) -> str:
        """The id of a new withdrawal."""
        withdrawal: str = (await self.do("market.withdraw", user, amount_nano=amount_nano, address=ADDRESS))["id"]
        return withdrawal

    # -- the world outside

    @asynccontextmanager
    async def fault(self, fault: Fault, op: str, **facts: Any) -> AsyncIterator[None]:
        """Within, every call of the operation is struck, unless `times` says how many."""
        async with self._transaction(None) as connection:
            await set_fault(connection, fault, op, **{"times": None} | facts)
        try:
            yield
        finally:
            async with self._transaction(None) as connection:
                await clear_faults(connection)

    @asynccontextmanager
    async def no_couriers(self) -> AsyncIterator[None]:
        """Within, nobody attempts a new request: it is due later."""
        later = "ALTER TABLE gateway_requests ALTER COLUMN due_at SET DEFAULT "
        async with self._transaction(None) as connection:
            await connection.execute(later + "'infinity'")
        try:
            yield
        finally:
            async with self._transaction(None) as connection:
                await connection.execute(later + "now()")
                await connection.execute("UPDATE gateway_requests SET due_at = now() WHERE due_at = 'infinity'")

    async def calls(self, reference: str) -> list[tuple[str, str | None]]:
        """Each call that was made for a request, and what came of it."""
        rows = await self.site.rows(
            f"SELECT call, outcome FROM gateway_log WHERE reference = '{reference}' ORDER BY number"
        )
        return [(row[0], row[1]) for row in rows]

    async def until_unknown(self, reference: str, lookups: int = 1) -> None:
        """Wait until so many lookups of a request have brought nothing."""

        async def unknown() -> bool:
            rows = await self.site.rows(f"SELECT state, lookups FROM gateway_requests WHERE reference = '{reference}'")
            return bool(rows[0][0] == "unknown" and rows[0][1] > lookups)

        await eventually(unknown, claim=f"the request {reference} does not become unknown")

    async def effects(self, reference: str) -> int:
        """How many calls had the effect or met it; the effect itself is there once or not at all."""
        rows = await self.site.rows(f"SELECT calls FROM sandbox_effects WHERE reference = '{reference}'")
        return int(rows[0][0]) if rows else 0

    # -- time

    @asynccontextmanager
    async def hold_back(self) -> AsyncIterator[Connection]:
        """Within, commands are accepted and none is executed: the partitions are locked. Gives that transaction, for
        what is to be changed before any of them runs."""
        async with self._transaction(None) as connection:
            await connection.execute("SELECT 1 FROM partitions ORDER BY id FOR UPDATE")
            yield connection

    async def age(
        self,
        table: str,
        id_: Any,
        seconds: float,
        *,
        timers: bool = True,
        connection: Connection | None = None,
    ) -> None:
        """Move a document into the past, as if it had been opened so many seconds earlier, and its timers with it."""
        past = f"- interval '{seconds} seconds'"
        async with self._transaction(connection) as own:
            if table not in self._moments:
                self._moments[table] = [row[0] for row in await own.fetch(_MOMENTS, table)]
            moves = ", ".join(f"{column} = {column} {past}" for column in self._moments[table])
            await own.execute(f"UPDATE {table} SET {moves} WHERE id::text = '{id_}'")
            if timers:
                await self.age_timers(id_, seconds, own)

    async def age_timers(self, id_: Any, seconds: float, connection: Connection | None = None) -> None:
        """Move only the timers of a document into the past."""
        named = " OR ".join(f"payload ->> '{name}' = '{id_}'" for name in _NAMES)
        async with self._transaction(connection) as own:
            await own.execute(
                f"UPDATE commands SET run_at = run_at - interval '{seconds} seconds'"
                f" WHERE status = 'scheduled' AND ({named})"
            )

    async def nearly_end(self, auction_id: str, seconds: float) -> None:
        """Move an auction so far into the past that it ends within the time."""
        left = await self.site.value(
            f"SELECT extract(epoch FROM ends_at - clock_timestamp())::float8 FROM auctions WHERE id = '{auction_id}'"
        )
        if left > seconds:
            await self.age("auctions", auction_id, left - seconds)

    async def set_acceptance(self, receipt: Receipt, moment: str, connection: Connection) -> None:
        """Make it that the command was accepted at the moment that the query gives."""
        await connection.execute(f"UPDATE commands SET accepted_at = ({moment}) WHERE id = '{receipt['id']}'")

    @asynccontextmanager
    async def _transaction(self, connection: Connection | None) -> AsyncIterator[Connection]:
        """One within the connection's transaction, or in one of the idle connections."""
        own = connection or (self._idle.pop() if self._idle else await self._connect())
        try:
            async with own.transaction():
                yield own
        finally:
            if connection is None:
                self._idle.append(own)

    async def _connect(self) -> Connection:
        return await asyncpg.connect(self.site.settings.database_url.get_secret_value())

    async def close(self) -> None:
        for connection in self._idle:
            await connection.close()


_NAMES = ("auction_id", "offer_id", "presale_id", "withdrawal_id", "return_id", "purchase_id", "check_id")
# Ids begin with the time: what is about a document is not older than it.
_TIMERS = """
FROM commands WHERE id >= overlay('{id}' PLACING '0000-0000-000000000000' FROM 15)::uuid
    AND kind = '{kind}' AND run_at IS NOT NULL AND payload::text LIKE '%{id}%' ORDER BY run_at
"""
_MOMENTS = """
SELECT column_name::text FROM information_schema.columns
WHERE table_name = $1 AND data_type = 'timestamp with time zone' AND column_name <> 'closed_at'
"""
