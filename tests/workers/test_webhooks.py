"""Webhooks: every event reaches every endpoint that wants it, in order, whatever receivers and workers do."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from standardwebhooks import Webhook, WebhookVerificationError

from storage.keys import Role, create_key, revoke_key
from storage.postgres.connection import Connection, engine
from storage.sealing import Sealer
from storage.settings import Settings
from storage.webhooks import endpoints as store
from storage.webhooks.endpoints import NewWebhook, Owner, TooMany, new_secret
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.receiver import OK, Respond, Seen, a_receiver, answer, says
from workers.services import deliveries as webhooks
from workers.services import fan_out
from workers.services.deliveries import Webhooks
from workers.services.fan_out import FanOut

ME = Owner(7, None)
QUICK: dict[str, Any] = {
    "webhook_private": True,
    "webhook_backoff_seconds": [0.02],
    "webhook_timeout_seconds": 5,
}


class Office:
    """Endpoints, events, and workers that deliver."""

    def __init__(self, settings: Settings, pool: AsyncEngine, connection: Connection) -> None:
        self.settings = settings
        self.pool = pool
        self.connection = connection
        self.sealer = Sealer(settings.secret_key)

    async def register(
        self, url: str, *topics: str, concurrency: int = 1, owner: Owner = ME, secret: str | None = None
    ) -> UUID:
        sealed = self.sealer.seal_text(secret or new_secret())
        row = await store.register(self.pool, owner, NewWebhook(url, topics or ["market"], None, concurrency, sealed))
        id_: UUID = row["id"]
        return id_

    async def happen(self, count: int = 1, *topics: str, first: int = 1) -> None:
        """Events, numbered."""
        await self.connection.execute(
            "INSERT INTO events (name, topics, fields, at)"
            " SELECT 'nft.sold', $1, json_build_object('number', n), now() FROM generate_series($2::int, $3::int) AS n",
            list(topics) or ["market"],
            first,
            first + count - 1,
        )

    @asynccontextmanager
    async def workers(self, count: int = 1) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(Webhooks(self.settings).run()) for _ in range(count)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks), [task.exception() for task in tasks if not task.cancelled()]

    async def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.connection.fetch(query, *arguments)]

    async def log(self, webhook_id: UUID | None = None) -> list[tuple[Any, ...]]:
        """State, attempts, status and error of each delivery, in order."""
        return await self.rows(
            "SELECT state, attempts, status, error FROM deliveries WHERE $1::uuid IS NULL OR webhook_id = $1"
            " ORDER BY seq",
            webhook_id,
        )

    async def ended(self) -> bool:
        """Whether what happened is delivered or given up, to all."""
        [(behind,)] = await self.rows(
            "SELECT count(*) FROM events, webhooks WHERE events.topics && webhooks.topics AND disabled_at IS NULL"
            " AND (txid::text::bigint, events.id) > (after_txid, after_id)"
        )
        [(waiting,)] = await self.rows("SELECT count(*) FROM deliveries WHERE state = 'pending'")
        return not behind and not waiting

    async def fan_out(self) -> None:
        """One turn."""
        once = FanOut(self.settings, lambda: None)
        await once.turn()
        await once._line.close()

    def ended_for(self, webhook_id: UUID) -> Callable[[], Awaitable[bool]]:
        async def ended() -> bool:
            behind = await self.rows(
                "SELECT FROM events, webhooks WHERE events.topics && webhooks.topics AND webhooks.id = $1"
                " AND (txid::text::bigint, events.id) > (after_txid, after_id)",
                webhook_id,
            )
            return not behind and {entry[0] for entry in await self.log(webhook_id)} == {"delivered"}

        return ended

    async def disabled(self, webhook_id: UUID) -> str | None:
        [(reason,)] = await self.rows("SELECT disabled_reason FROM webhooks WHERE id = $1", webhook_id)
        return None if reason is None else str(reason)

    async def complaints(self) -> list[tuple[Any, ...]]:
        rows = await self.rows("SELECT topics, fields FROM events WHERE name = 'webhook.disabled' ORDER BY id")
        return [(topics, json.loads(fields)) for topics, fields in rows]

    async def first_delivery(self, webhook_id: UUID) -> UUID:
        [(id_,)] = await self.rows("SELECT id FROM deliveries WHERE webhook_id = $1 ORDER BY seq LIMIT 1", webhook_id)
        return UUID(str(id_))


@asynccontextmanager
async def opened(installer: Installer, **settings: Any) -> AsyncIterator[Office]:
    key = SecretStr(Fernet.generate_key().decode())
    installed = await installer.install(secret_key=key, **(QUICK | settings))
    pool = engine(installed)
    async with connected(installed) as connection:
        yield Office(installed, pool, connection)
    await pool.dispose()


@pytest.fixture
async def office(installer: Installer) -> AsyncIterator[Office]:
    async with opened(installer) as office:
        yield office


def numbers(seen: Sequence[Seen]) -> list[int]:
    return [each.body["data"]["fields"]["number"] for each in seen]


def failing(respond: Respond, *first: int, times: int = 1) -> Respond:
    """Does as told to the first attempts at these events, and says yes afterwards."""
    left = dict.fromkeys(first, times)

    async def does(seen: Seen, writer: asyncio.StreamWriter) -> None:
        [number] = numbers([seen])
        if left.get(number, 0):
            left[number] -= 1
            await respond(seen, writer)
        else:
            writer.write(OK)

    return does


async def hang(_: Seen, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


NO = says(answer(500))

# -- what is delivered


async def test_every_event_of_its_topics_comes_once_in_order_and_signed(office: Office) -> None:
    secret = new_secret()
    async with a_receiver() as receiver:
        await office.happen(3, first=100)  # before its time
        await office.register(receiver.url, "market", "nft:1", secret=secret)
        async with office.workers():
            await office.happen(20)
            await office.happen(5, "nft:2")
            await office.happen(20, "nft:1", "market", first=21)
            await eventually(office.ended)
        assert numbers(receiver.seen) == list(range(1, 41))
        bodies = [seen.verified(secret) for seen in receiver.seen]
        assert all(
            body["type"] == "nft.sold" and body["timestamp"] == body["data"]["at"] and len(json.dumps(body)) < 20_000
            for body in bodies
        )
        assert bodies[0]["data"].keys() == {"id", "name", "command_id", "topics", "at", "fields"}
        assert len({seen.id for seen in receiver.seen}) == 40
        assert all(entry == ("delivered", 1, 200, None) for entry in await office.log())
        with pytest.raises(WebhookVerificationError):
            receiver.seen[0].verified(new_secret())


async def test_each_endpoint_is_told_its_own(office: Office) -> None:
    async with a_receiver() as receiver:
        for number in range(5):
            await office.register(f"{receiver.url}{number}", f"nft:{number}", "market")
        async with office.workers():
            for number in range(5):
                await office.happen(4, f"nft:{number}", first=10 * number)
            await office.happen(1, first=99)
            await eventually(office.ended)
        for number in range(5):
            expected = [*range(10 * number, 10 * number + 4), 99]
            assert numbers(receiver.of(f"/hook{number}")) == expected


async def test_what_commits_late_is_not_passed_over(office: Office) -> None:
    async with a_receiver() as receiver, connected(office.settings) as late:
        await office.register(receiver.url)
        async with office.workers():
            transaction = late.transaction()
            await transaction.start()
            await late.execute(
                "INSERT INTO events (name, topics, fields, at) VALUES ('a', '{market}', '{\"number\": 0}', now())"
            )
            await office.happen(5)
            await office.register(receiver.url)
            await transaction.commit()
            await eventually(office.ended)
        assert numbers(receiver.seen)[0] == 0
        assert sorted(set(numbers(receiver.seen))) == [0, 1, 2, 3, 4, 5]


async def test_an_event_too_long_comes_without_its_fields(office: Office) -> None:
    async with a_receiver() as receiver:
        await office.register(receiver.url)
        async with office.workers():
            await office.connection.execute(
                "INSERT INTO events (name, topics, fields, at)"
                " VALUES ('trade.opened', '{market}', json_build_object('nft_ids', repeat('1', 30000)), now())"
            )
            await eventually(office.ended)
        [seen] = receiver.seen
        assert len(seen.content) < 20_000
        assert (seen.body["data"]["fields"], seen.body["data"]["fields_omitted"]) == ({}, True)


# -- receivers


FAILURES = [
    (NO, 500, None),
    (says(answer(302, "location: http://127.0.0.1:1/")), 302, None),
    (says(answer(404)), 404, None),
    (says(b"HTTP/1.1 2"), None, "broken_off"),
    (says(b""), None, "broken_off"),
    (hang, None, "timeout"),
]


@pytest.mark.parametrize(("respond", "status", "error"), FAILURES)
async def test_what_fails_is_logged_and_tried_again_under_its_id(
    installer: Installer, respond: Respond, status: int | None, error: str | None
) -> None:
    async with opened(installer, webhook_timeout_seconds=0.5, webhook_backoff_seconds=[1_000, 0.02]) as office:
        await failed_and_tried_again(office, respond, ("pending", 1, status, error))


async def failed_and_tried_again(office: Office, respond: Respond, failed: tuple[Any, ...]) -> None:
    secret = new_secret()
    async with a_receiver() as receiver, office.workers():
        receiver.respond = failing(respond, 1)
        await office.register(receiver.url, secret=secret)
        await office.happen(2)

        async def logged() -> bool:
            return await office.log() == [failed, ("pending", 0, None, None)]

        await eventually(logged)
        await office.connection.execute("UPDATE deliveries SET due_at = clock_timestamp()")
        await eventually(office.ended)
        assert numbers(receiver.seen) == [1, 1, 2]
        assert receiver.seen[0].id == receiver.seen[1].id != receiver.seen[2].id
        assert receiver.seen[0].content == receiver.seen[1].content
        assert all(seen.verified(secret) for seen in receiver.seen)
        assert [entry[:2] for entry in await office.log()] == [("delivered", 2), ("delivered", 1)]


async def test_the_later_wait_for_one_that_fails(office: Office) -> None:
    async with a_receiver() as receiver:
        receiver.respond = failing(NO, 3, 7, times=4)
        await office.register(receiver.url)
        async with office.workers():
            await office.happen(10)
            await eventually(office.ended)
        assert numbers(receiver.seen) == [1, 2, *[3] * 5, 4, 5, 6, *[7] * 5, 8, 9, 10]
        assert receiver.under_way_max == 1


async def test_with_some_concurrency_one_that_fails_holds_nobody_up(installer: Installer) -> None:
    async with opened(installer, webhook_backoff_seconds=[1_000]) as office, a_receiver() as receiver:
        receiver.respond = failing(NO, 1)
        webhook_id = await office.register(receiver.url, concurrency=3)
        await office.happen(30)

        async def all_but_one() -> bool:
            return [entry[0] for entry in await office.log(webhook_id)].count("delivered") == 29

        async with office.workers():
            await eventually(all_but_one)
        assert (await office.log(webhook_id))[0] == ("pending", 1, 500, None)
        assert receiver.under_way_max <= 3


async def test_as_many_are_under_way_as_the_endpoint_allows(office: Office) -> None:
    async with a_receiver() as receiver:
        release = asyncio.Event()

        async def wait(_: Seen, writer: asyncio.StreamWriter) -> None:
            await release.wait()
            writer.write(OK)

        async def three() -> bool:
            return receiver.under_way == 3

        receiver.respond = wait
        await office.register(receiver.url, concurrency=3)
        await office.happen(10)
        async with office.workers(2):
            await eventually(three)
            release.set()
            await eventually(office.ended)
        assert receiver.under_way_max == 3
        assert sorted(numbers(receiver.seen)) == list(range(1, 11))


async def test_a_receiver_that_is_away_keeps_no_more_than_a_few_waiting(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "_EVENTS_MAX", 40)
    async with a_receiver() as receiver:
        receiver.respond = failing(NO, 1, times=10)
        await office.register(receiver.url)
        most = 0

        async def ended() -> bool:
            nonlocal most
            [(waiting,)] = await office.rows("SELECT count(*) FROM deliveries WHERE state = 'pending'")
            most = max(most, waiting)
            return await office.ended()

        await office.happen(300)
        async with office.workers():
            await eventually(ended, seconds=60)
        assert 0 < most <= fan_out.WAITING_MAX + 40
        assert [number for number in numbers(receiver.seen) if number > 1] == list(range(2, 301))


async def test_one_owner_with_slow_receivers_holds_nobody_else_up(office: Office) -> None:
    async with a_receiver() as slow, a_receiver() as quick:
        slow.respond = hang
        for _ in range(20):
            await office.register(slow.url, concurrency=10)
        await office.register(quick.url, owner=Owner(8, None))
        await office.happen(20)

        async def told() -> bool:
            return len(quick.seen) == 20

        async with office.workers():
            await eventually(told)
        assert slow.under_way_max <= webhooks.OWNER_SENDS_MAX


# -- the end of an endpoint


async def test_gone_disables_at_once_and_says_so(office: Office) -> None:
    key_id, _ = await create_key(office.pool, Role.SERVICE)
    async with a_receiver() as receiver:
        receiver.respond = failing(says(answer(410)), 1, times=2)
        mine = await office.register(receiver.url)
        a_keys = await office.register(receiver.url, owner=Owner(None, key_id))

        async def both() -> bool:
            return await office.disabled(mine) == await office.disabled(a_keys) == "gone"

        async with office.workers():
            await office.happen(2)
            await eventually(both)
            await office.happen(3, first=3)
            # Nothing more is sent, and nothing is lost.
            fields = [{"webhook_id": str(each), "reason": "gone"} for each in (mine, a_keys)]
            told = await office.complaints()
            assert sorted(told, key=str) == sorted([(["user:7"], fields[0]), (["ops"], fields[1])], key=str)
            assert numbers(receiver.seen) == [1, 1]
            await store.enable(office.pool, office.settings, ME, mine)
            await eventually(office.ended_for(mine))
        assert numbers(receiver.seen)[2:] == [1, 2, 3, 4, 5]
        assert await office.disabled(mine) is None


async def test_what_fails_for_too_long_is_given_up_and_its_endpoint_disabled(installer: Installer) -> None:
    async with opened(installer, webhook_give_up_seconds=1) as office, a_receiver() as receiver:
        receiver.respond = failing(NO, 1, times=1_000)
        webhook_id = await office.register(receiver.url)

        async def disabled() -> bool:
            return await office.disabled(webhook_id) == "failing"

        async with office.workers():
            await office.happen(3)
            await eventually(disabled)
            attempts = len(receiver.seen)
            assert attempts >= 3
            assert [entry[0] for entry in await office.log()] == ["failed", "pending", "pending"]
            assert await office.complaints() == [(["user:7"], {"webhook_id": str(webhook_id), "reason": "failing"})]

            await store.enable(office.pool, office.settings, ME, webhook_id)
            await eventually(office.ended)
            assert numbers(receiver.seen)[attempts:] == [2, 3]

            receiver.respond = says(OK)
            given_up = await office.first_delivery(webhook_id)
            assert await store.resend(office.pool, office.settings, ME, webhook_id, given_up)
            await eventually(office.ended)
        assert numbers(receiver.seen)[attempts:] == [2, 3, 1]
        assert receiver.seen[-1].id == receiver.seen[0].id == str(given_up)
        assert [entry[0] for entry in await office.log()] == ["delivered"] * 3


async def test_who_is_enabled_is_tried_soon_and_has_all_the_time_again(installer: Installer) -> None:
    async with opened(installer, webhook_backoff_seconds=[1_000]) as office, a_receiver() as receiver:
        receiver.respond = failing(NO, 1, times=2)
        webhook_id = await office.register(receiver.url)
        await office.happen()

        def failed(times: int) -> Callable[[], Awaitable[bool]]:
            async def logged() -> bool:
                return await office.log() == [("pending", times, 500, None)]

            return logged

        async with office.workers():
            await eventually(failed(1))
            await office.connection.execute(
                "UPDATE webhooks SET disabled_at = now(), disabled_reason = 'failing';"
                "UPDATE deliveries SET failing_since = now() - interval '4 days',"
                " attempted_at = now() - interval '1 hour'"
            )
            await store.enable(office.pool, office.settings, ME, webhook_id)
            await eventually(failed(2))
        assert await office.disabled(webhook_id) is None


async def test_the_pauses_grow_and_end_with_the_time_there_is(installer: Installer) -> None:
    """Of three days, which nobody waits for: each attempt is made as its time had come."""
    async with opened(installer, webhook_backoff_seconds=Settings.model_fields["webhook_backoff_seconds"].default) as (
        office
    ):
        webhook_id = await office.register("http://127.0.0.1:1/")
        await office.happen()
        worker = Webhooks(office.settings)
        await office.fan_out()
        pauses: list[float] = []
        while await office.disabled(webhook_id) is None:
            assert len(pauses) < 20
            [claim] = await worker._claim()
            await worker._send(claim)
            await worker._hear()
            left = await office.rows(
                "SELECT extract(epoch FROM due_at - clock_timestamp())::float8 FROM deliveries WHERE state = 'pending'"
            )
            pauses += [row[0] for row in left]
            # So much time goes by.
            await office.connection.execute(
                "UPDATE deliveries SET failing_since = failing_since - (due_at - clock_timestamp()),"
                " due_at = clock_timestamp()"
            )
        await worker._farewell()
        assert await office.disabled(webhook_id) == "failing"
        steps = office.settings.webhook_backoff_seconds
        assert len(pauses) == len(steps)
        for pause, step in zip(pauses[:-1], steps, strict=False):
            assert 0.85 * step < pause < 1.15 * step
        assert timedelta(days=2.9) < timedelta(seconds=sum(pauses)) < timedelta(days=3.01)


# -- by hand


async def test_a_test_comes_although_the_order_waits_or_the_endpoint_is_disabled(installer: Installer) -> None:
    async with opened(installer, webhook_backoff_seconds=[1_000]) as office, a_receiver() as receiver:
        secret = new_secret()
        receiver.respond = says(answer(410))
        webhook_id = await office.register(receiver.url, secret=secret)
        await office.happen()

        async def disabled() -> bool:
            return await office.disabled(webhook_id) is not None

        async def tested() -> bool:
            return bool((await office.log(webhook_id))[-1][0] == "delivered")

        async with office.workers():
            await eventually(disabled)
            receiver.respond = says(OK)
            row = await store.test(office.pool, ME, webhook_id)
            assert row is not None
            await eventually(tested)
        body = receiver.seen[-1].verified(secret)
        assert (body["type"], receiver.seen[-1].id) == ("webhook.test", str(row["id"]))
        assert body["data"]["fields"] == {"webhook_id": str(webhook_id)}


async def test_a_test_that_fails_is_not_repeated_and_harms_nobody(office: Office) -> None:
    async with a_receiver() as receiver:
        receiver.respond = NO
        webhook_id = await office.register(receiver.url)
        await store.test(office.pool, ME, webhook_id)
        async with office.workers():
            await eventually(office.ended)
        assert await office.log() == [("failed", 1, 500, None)]
        assert len(receiver.seen) == 1
        assert await office.disabled(webhook_id) is None


async def test_a_resend_is_the_same_again(office: Office) -> None:
    async with a_receiver() as receiver:
        webhook_id = await office.register(receiver.url)
        await office.happen(3)
        async with office.workers():
            await eventually(office.ended)
            delivery = await office.first_delivery(webhook_id)
            await store.resend(office.pool, office.settings, ME, webhook_id, delivery)
            await eventually(office.ended)
        assert numbers(receiver.seen) == [1, 2, 3, 1]
        assert (receiver.seen[0].id, receiver.seen[0].content) == (receiver.seen[3].id, receiver.seen[3].content)


async def test_a_resend_does_not_wait_for_the_order(installer: Installer) -> None:
    async with opened(installer, webhook_backoff_seconds=[1_000]) as office, a_receiver() as receiver:
        receiver.respond = failing(NO, 2)
        webhook_id = await office.register(receiver.url)
        await office.happen(3)

        async def failed_once() -> bool:
            return ("pending", 1, 500, None) in await office.log(webhook_id)

        async def resent() -> bool:
            return numbers(receiver.seen) == [1, 2, 1]

        async with office.workers():
            await eventually(failed_once)
            given = await office.first_delivery(webhook_id)
            await store.resend(office.pool, office.settings, ME, webhook_id, given)
            await eventually(resent)


async def test_a_resend_that_fails_holds_nobody_up(office: Office) -> None:
    async with a_receiver() as receiver:
        webhook_id = await office.register(receiver.url)
        await office.happen(1)
        async with office.workers():
            await eventually(office.ended)
            receiver.respond = failing(NO, 1)
            given = await office.first_delivery(webhook_id)
            await store.resend(office.pool, office.settings, ME, webhook_id, given)
            await office.happen(2, first=2)
            await eventually(office.ended)
        assert sorted(numbers(receiver.seen)) == [1, 1, 2, 3]
        assert [entry[:3] for entry in await office.log()] == [
            ("failed", 2, 500),
            ("delivered", 1, 200),
            ("delivered", 1, 200),
        ]


async def test_a_resend_of_what_waits_for_its_next_attempt_is_one_now(installer: Installer) -> None:
    async with opened(installer, webhook_backoff_seconds=[1_000]) as office, a_receiver() as receiver:
        receiver.respond = failing(NO, 1)
        webhook_id = await office.register(receiver.url)
        await office.happen(2)

        async def failed_once() -> bool:
            log = await office.log(webhook_id)
            return bool(log) and log[0] == ("pending", 1, 500, None)

        async with office.workers():
            await eventually(failed_once)
            # As if the attempt had been long ago: nobody can be at it any more.
            await office.connection.execute("UPDATE deliveries SET attempted_at = attempted_at - interval '1 hour'")
            delivery = await office.first_delivery(webhook_id)
            await store.resend(office.pool, office.settings, ME, webhook_id, delivery)
            await eventually(office.ended)
        assert numbers(receiver.seen) == [1, 1, 2]


async def test_only_a_few_may_wait_by_hand(office: Office) -> None:
    webhook_id = await office.register("http://127.0.0.1:1/")
    for _ in range(store.BY_HAND_MAX):
        await store.test(office.pool, ME, webhook_id)
    with pytest.raises(TooMany):
        await store.test(office.pool, ME, webhook_id)


# -- secrets


async def test_after_a_rotation_both_secrets_sign_until_the_old_one_has_had_its_day(office: Office) -> None:
    old, new = new_secret(), new_secret()
    async with a_receiver() as receiver:
        webhook_id = await office.register(receiver.url, secret=old)
        async with office.workers():
            await office.happen(1)
            await eventually(office.ended)
            await store.rotate(office.pool, ME, webhook_id, office.sealer.seal_text(new))
            await office.happen(1)
            await eventually(office.ended)
            await office.connection.execute("UPDATE webhooks SET old_secret_until = clock_timestamp()")
            await office.happen(1)
            await eventually(office.ended)
        first, second, third = receiver.seen
        assert first.verified(old)
        assert second.verified(old)
        assert second.verified(new)
        assert third.verified(new)
        for seen, stranger in ((first, new), (third, old)):
            with pytest.raises(WebhookVerificationError):
                seen.verified(stranger)


async def test_the_signature_is_of_the_id_the_time_and_the_body(office: Office) -> None:
    secret = new_secret()
    async with a_receiver() as receiver:
        await office.register(receiver.url, secret=secret)
        async with office.workers():
            await office.happen(1)
            await eventually(office.ended)
        [seen] = receiver.seen
        timestamp = int(seen.headers["webhook-timestamp"])
        for header, value in (("webhook-id", "another"), ("webhook-timestamp", str(timestamp + 1))):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(seen.content, seen.headers | {header: value})
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(seen.content + b" ", seen.headers)


async def test_a_worker_without_the_key_leaves_deliveries_to_others(office: Office) -> None:
    async with a_receiver() as receiver:
        await office.register(receiver.url)
        await office.happen(3)
        ignorant = office.settings.model_copy(update={"secret_key": None})
        task = asyncio.create_task(Webhooks(ignorant).run())

        async def fanned_out() -> bool:
            return len(await office.log()) == 3

        await eventually(fanned_out)
        assert {entry[0] for entry in await office.log()} == {"pending"}
        async with office.workers():
            await eventually(office.ended)
        task.cancel()
        await asyncio.wait([task])
        assert numbers(receiver.seen) == [1, 2, 3]


# -- workers


async def test_many_workers_make_of_one_endpoint_no_repeat_and_no_disorder(office: Office) -> None:
    async with a_receiver() as receiver:
        receiver.respond = failing(NO, 5, 50)
        await office.register(receiver.url)
        async with office.workers(4):
            for first in range(1, 101, 10):
                await office.happen(10, first=first)
            await eventually(office.ended, seconds=60)
        expected = [number for number in range(1, 101) for _ in range(2 if number in (5, 50) else 1)]
        assert numbers(receiver.seen) == expected
        assert receiver.under_way_max == 1
        assert [
            number
            for number, *_ in await office.rows(
                "SELECT (body::json->'data'->'fields'->>'number')::int FROM deliveries ORDER BY seq"
            )
        ] == list(range(1, 101))


async def test_an_answer_heard_too_late_changes_nothing(office: Office) -> None:
    """Its lease had run out, and another worker has claimed the delivery."""
    async with a_receiver() as receiver:
        webhook_id = await office.register(receiver.url)
        await office.happen(2)
        zombie, heir = Webhooks(office.settings), Webhooks(office.settings)
        await office.fan_out()
        [first] = await zombie._claim()
        assert await heir._claim() == []
        await office.connection.execute("UPDATE deliveries SET due_at = clock_timestamp() WHERE attempts > 0")
        [second] = await heir._claim()
        assert (first.id, first.attempt, second.attempt) == (second.id, 1, 2)
        await zombie._send(first)
        await zombie._hear()
        assert (await office.log(webhook_id))[0][:2] == ("pending", 2)
        await heir._send(second)
        await heir._hear()
        assert (await office.log(webhook_id))[0][:2] == ("delivered", 2)
        [third] = await zombie._claim()
        assert third.id != first.id
        for worker in (zombie, heir):
            await worker._farewell()


async def test_who_slept_with_a_claim_in_hand_does_not_send(office: Office) -> None:
    async with a_receiver() as receiver:
        await office.register(receiver.url)
        await office.happen(1)
        worker = Webhooks(office.settings)
        await office.fan_out()
        [claim] = await worker._claim()
        await worker._send(claim._replace(since=claim.since - 60))
        await worker._farewell()
        assert receiver.connections == 0


async def test_two_who_fan_out_at_once_make_one_delivery_of_each_event(office: Office) -> None:
    for topic in ("market", "market", "nft:1"):
        await office.register("http://127.0.0.1:1/", topic)
    await office.happen(50)
    await office.happen(50, "nft:1")
    both = [FanOut(office.settings, lambda: None) for _ in range(2)]
    for _ in range(3):
        await asyncio.gather(*(each.turn() for each in both))
    assert len(await office.log()) == 150
    for each in both:
        await each._line.close()


async def test_one_that_was_away_catches_up_while_the_others_go_on(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "_EVENTS_MAX", 20)
    async with a_receiver() as receiver:
        behind = await office.register(f"{receiver.url}1")
        await office.connection.execute(
            "UPDATE webhooks SET disabled_at = now(), disabled_reason = 'failing' WHERE id = $1", behind
        )
        await office.register(f"{receiver.url}2")
        async with office.workers():
            await office.happen(130)
            await eventually(office.ended, seconds=60)
            assert len(receiver.of("/hook2")) == 130
            assert not receiver.of("/hook1")
            await store.enable(office.pool, office.settings, ME, behind)
            await office.happen(10, first=131)
            await eventually(office.ended, seconds=60)
        assert numbers(receiver.of("/hook1")) == numbers(receiver.of("/hook2")) == list(range(1, 141))


async def test_the_endpoints_of_a_revoked_key_are_told_nothing(office: Office) -> None:
    async with a_receiver() as receiver:
        key_id, _ = await create_key(office.pool, Role.OPERATOR)
        await office.register(f"{receiver.url}1", "ops", owner=Owner(None, key_id))
        await office.register(f"{receiver.url}2", "ops")
        await revoke_key(office.pool, key_id)
        await office.happen(3, "ops")

        async def told() -> bool:
            return len(receiver.of("/hook2")) == 3

        async with office.workers():
            await eventually(told)
        assert not receiver.of("/hook1")


async def test_the_log_is_kept_for_a_month(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_receiver() as receiver:
        await office.register(receiver.url)
        await office.happen(3)
        async with office.workers():
            await eventually(office.ended)
        await office.connection.execute(
            "UPDATE deliveries SET finished_at = finished_at - interval '31 days' WHERE body LIKE '%\"number\":2}%'"
        )
        forgetful = FanOut(office.settings, lambda: None)
        forgetful._forgot_at = float("-inf")
        await forgetful._forget()
        await forgetful._line.close()
        assert len(await office.log()) == 2


async def test_a_thousand_endpoints_are_served_in_bounded_time(office: Office) -> None:
    """Of a reading for so many, a few events at a time."""
    await office.register("http://127.0.0.1:1/")
    await office.connection.execute(
        "INSERT INTO webhooks (id, user_id, url, topics, concurrency, secret, after_txid, after_id)"
        " SELECT gen_random_uuid(), n, url, topics, concurrency, secret, after_txid, after_id"
        " FROM webhooks, generate_series(1, 999) AS n"
    )
    await office.happen(10)
    looking = FanOut(office.settings, lambda: None)

    async def all_made() -> bool:
        await looking.turn()
        return len(await office.log()) == 10_000

    await eventually(all_made, seconds=60)
    await looking._line.close()
    worker = Webhooks(office.settings)
    assert len(await worker._claim()) == webhooks.SENDS_MAX
    await worker._farewell()
