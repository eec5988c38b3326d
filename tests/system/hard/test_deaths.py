"""Workers and couriers that die or sleep at the worst moment, and commands delivered more than once."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import pytest
from redis.asyncio import Redis

from storage.gateway.sandbox import Fault
from storage.redis.queue import Queue
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.market import TON
from tests.system.conftest import IMPATIENT
from tests.system.hard import ROUNDS
from tests.system.marketplace import ADDRESS, Marketplace, command, open_marketplace
from tests.system.site import account_locked, end, until_waiting
from workers.worker import execute

LEASE_SECONDS = 1.0


@pytest.fixture
async def mortal(installer: Installer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Marketplace]:
    """A marketplace of its own with short leases and one worker, its first process."""
    settings = await installer.install(partitions=8, lease_seconds=LEASE_SECONDS, **IMPATIENT)
    async with open_marketplace(settings, tmp_path_factory.mktemp("mortal") / "logs", 1) as marketplace:
        yield marketplace


class Sagas:
    """A payout, a return and the transfer of a channel, of a user each."""

    def __init__(self, marketplace: Marketplace, channel: str) -> None:
        self.marketplace = marketplace
        self.channel = channel
        self.references: list[str] = []

    async def prepare(self) -> None:
        marketplace = self.marketplace
        self.payee, self.owner, self.buyer = await marketplace.people(3)
        self.item = await marketplace.item(self.owner)

    async def start(self) -> None:
        wishes = [
            command("market.withdraw", self.payee, amount_nano=9 * TON, address=ADDRESS),
            command("nft.return", self.owner, nft_id=self.item),
            command("channels.buy", self.buyer, channel_id=self.channel, price_nano=5 * TON),
        ]
        self.references = [(await self.marketplace.submit(wish))["id"] for wish in wishes]

    async def assert_each_happened_once(self) -> None:
        marketplace = self.marketplace
        await asyncio.gather(*(marketplace.until_answered(reference) for reference in self.references))
        assert await marketplace.balance(self.payee) == (TON, 0)
        assert await marketplace.balance(self.owner) == (9_900_000_000, 0)
        assert await marketplace.balance(self.buyer) == (5 * TON, 0)
        assert await marketplace.nft(self.item) == (None, "external")
        assert await marketplace.document("channels", self.channel, "state") == ("sold",)
        for reference in self.references:
            assert await marketplace.effects(reference) == 1, "the effect was asked for twice"


class Moments:
    """Instants in the life of a saga at which a worker can be held until it dies: each stops it there, by a lock."""

    def __init__(self, marketplace: Marketplace, sagas: Sagas) -> None:
        self.marketplace = marketplace
        self.sagas = sagas
        self.held = AsyncExitStack()
        self.all: list[Callable[[], Awaitable[None]]] = [
            self.accepted,
            self.being_executed,
            self.claimed,
            self.called,
            self.answered,
            self.written,
        ]

    async def accepted(self) -> None:
        await self.sagas.start()

    async def being_executed(self) -> None:
        await self.held.enter_async_context(account_locked(self.marketplace.site, self.sagas.payee))
        await self.sagas.start()
        await until_waiting(self.marketplace.site)

    async def claimed(self) -> None:
        """The request is said to be sent, and is not."""
        await self.held.enter_async_context(self.locked("sandbox_faults", "ACCESS EXCLUSIVE"))
        await self.sagas.start()
        await self.until("SELECT count(*) = 3 FROM gateway_requests WHERE attempts = 1 AND {}")

    async def called(self) -> None:
        """The effect is there, and nobody has heard."""
        await self.held.enter_async_context(self.marketplace.fault(Fault.SLOW, "*", seconds=30))
        await self.sagas.start()
        await self.until("SELECT count(*) = 3 FROM sandbox_effects WHERE {}")

    async def answered(self) -> None:
        """The answer is heard, and not written."""
        async with self.locked("sandbox_faults", "ACCESS EXCLUSIVE"):
            await self.sagas.start()
            await self.until("SELECT count(*) = 3 FROM gateway_requests WHERE attempts = 1 AND {}")
            await self.held.enter_async_context(self.locked("gateway_log", "EXCLUSIVE"))
        await until_waiting(self.marketplace.site, "souk couriers")

    async def written(self) -> None:
        """The answer is in the journal, and not executed."""
        async with self.locked("sandbox_faults", "ACCESS EXCLUSIVE"):
            await self.sagas.start()
            await self.until("SELECT count(*) = 3 FROM gateway_requests WHERE attempts = 1 AND {}")
            await self.held.enter_async_context(self.marketplace.hold_back())
        await self.until("SELECT count(*) = 3 FROM gateway_requests WHERE state = 'done' AND {}")

    @asynccontextmanager
    async def locked(self, table: str, mode: str) -> AsyncIterator[None]:
        async with connected(self.marketplace.site.settings) as connection, connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN {mode} MODE")
            yield

    async def until(self, query: str) -> None:
        references = ", ".join(f"'{reference}'" for reference in self.sagas.references)

        async def holds() -> bool:
            return bool(await self.marketplace.site.value(query.format(f"reference IN ({references})")))

        await eventually(holds, claim=query)


async def test_nothing_outside_happens_twice_whenever_a_courier_dies(mortal: Marketplace) -> None:
    """H3."""
    site = mortal.site
    worker = site.processes[0]
    seller = await mortal.person(0)
    account = await mortal.old_account(seller)
    channels = await asyncio.gather(*(mortal.channel(seller, account, 5 * TON) for _ in range(ROUNDS // 2)))
    for number, channel in enumerate(channels):
        sagas = Sagas(mortal, channel)
        await sagas.prepare()
        moments = Moments(mortal, sagas)
        async with moments.held:
            await moments.all[number % len(moments.all)]()
            end(worker, signal.SIGKILL)
            worker = site.start_worker()
        # What the dead one had claimed need not be waited for.
        async with connected(site.settings) as connection:
            await connection.execute("UPDATE gateway_requests SET due_at = now() WHERE closed_at IS NULL")
        await sagas.assert_each_happened_once()
    await site.assert_sound()


async def test_a_command_that_is_delivered_again_and_again_has_one_outcome(mortal: Marketplace) -> None:
    """H38: by hints doubled, by hints lost with all of Redis, by its sender, and by workers side by side."""
    site = mortal.site
    site.start_worker()
    redis = Redis.from_url(site.settings.redis_url.get_secret_value())
    queue = Queue(redis)
    seller, buyer = await mortal.people(2, 1_000 * TON)
    for _ in range(ROUNDS):
        item = await mortal.item(seller, TON)
        buy = command("nft.buy", buyer, nft_id=item, price_nano=TON)
        async with mortal.hold_back():
            receipt, again = await asyncio.gather(mortal.submit(buy), mortal.submit(buy))
            assert receipt == again
            await redis.flushall()
            hint = (receipt["partition"], UUID(receipt["id"]))
            await queue.enqueue([hint])
            await queue.enqueue([hint])
        await asyncio.gather(*(execute({"settings": site.settings}, receipt["id"]) for _ in range(3)))
        final = await mortal.final(receipt)
        assert final["status"] == "succeeded"
        assert await mortal.run(buy) == final
        postings = f"SELECT count(*), sum(amount_nano) FROM postings WHERE command_id = '{receipt['id']}'"
        assert await site.rows(postings) == [(2, TON)]
        assert await mortal.nft(item) == (buyer, "held")
    await redis.aclose()
    assert await mortal.balance(buyer) == ((1_000 - ROUNDS) * TON, 0)
    await site.assert_sound()


async def test_a_worker_that_lost_its_lease_in_its_sleep_writes_nothing(mortal: Marketplace) -> None:
    """H38: it sleeps in the middle of a transaction, another executes its commands, and it wakes up."""
    site = mortal.site
    workers = [site.processes[0], site.start_worker()]
    seller, buyer = await mortal.people(2, 1_000 * TON)
    for _ in range(ROUNDS):
        item = await mortal.item(seller, TON)
        buy = command("nft.buy", buyer, nft_id=item, price_nano=TON)
        async with account_locked(site, buyer):
            receipt = await mortal.submit(buy)
            await until_waiting(site)
            owner = str(await site.value(f"SELECT owner FROM partitions WHERE id = {receipt['partition']}"))
            [sleeper] = [worker for worker in workers if f":{worker.pid}:" in owner]
            sleeper.send_signal(signal.SIGSTOP)
        receipt = await mortal.final(receipt)
        assert receipt["status"] == "succeeded"
        sleeper.send_signal(signal.SIGCONT)
        assert await mortal.run(buy) == receipt
        assert await mortal.nft(item) == (buyer, "held")

        async def both_work() -> bool:
            return len(await site.owners()) == 2

        await eventually(both_work)
        postings = f"SELECT count(*), sum(amount_nano) FROM postings WHERE command_id = '{receipt['id']}'"
        assert await site.rows(postings) == [(2, TON)]
    assert await mortal.balance(buyer) == ((1_000 - ROUNDS) * TON, 0)
    await site.assert_sound()
