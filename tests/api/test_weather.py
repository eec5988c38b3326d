"""Servers that are away: what the API does without each, what it says, and that it comes back by itself."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis
from storage.keys import Role
from storage.settings import load_settings
from tests.api.api import Api, assert_problem, running
from tests.deadline import eventually
from tests.installation import PASSWORD, Installer, database_url, prepare
from tests.market import register, set_price
from workers.worker import execute

REDIS_PASSWORD = "canary-of-the-redis-password"
INTERNALS = (
    "Traceback",
    "SELECT",
    "INSERT",
    "asyncpg",
    "sqlalchemy",
    "redis.exceptions",
    ".py",
    PASSWORD,
    REDIS_PASSWORD,
)


@pytest.fixture
async def own(installer: Installer, tmp_path: Path) -> AsyncIterator[tuple[Api, EmbeddedPostgres, EmbeddedRedis]]:
    """An installation on servers of its own, so that they can be taken away."""
    with EmbeddedPostgres(tmp_path) as postgres, EmbeddedRedis(tmp_path) as redis:
        settings = load_settings(
            database_url=SecretStr(database_url(postgres, "souk")), redis_url=SecretStr(redis.url), partitions=4
        )
        await prepare(settings)
        async with running(settings) as api:
            yield api, postgres, redis


async def parts(api: Api) -> dict[str, object]:
    response = await api.anonymous.get("/readyz")
    body: dict[str, object] = response.json()
    assert body["ready"] == (response.status_code == 200)
    return {"status": response.status_code, **dict(body["parts"])}  # type: ignore[call-overload]


async def ready(api: Api) -> bool:
    return await parts(api) == {"status": 200, "postgresql": "ok", "redis": "ok"}


async def test_it_is_alive_and_ready(api: Api) -> None:
    async with api.unchanged():
        assert (await api.anonymous.get("/healthz")).status_code == 200
        await eventually(lambda: ready(api))


async def test_commands_are_accepted_without_redis(installer: Installer, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{taken.getsockname()[1]}/0"
        settings = (await installer.install()).model_copy(update={"redis_url": SecretStr(url)})
        async with running(settings) as api:
            start = time.monotonic()
            receipts = [await api.send(register(number)) for number in range(1, 11)]
            assert time.monotonic() - start < 5
            assert await api.count("status = 'accepted'") == 10
            for receipt in receipts:
                await execute({"settings": settings}, receipt["id"])
            done = await api.operator.get(receipts[-1]["links"]["self"], params={"wait": "10"})
            assert done.json()["status"] == "succeeded"
            assert await parts(api) == {"status": 200, "postgresql": "ok", "redis": "unavailable"}
    assert REDIS_PASSWORD not in caplog.text


async def test_a_hint_is_late_but_no_command_is_lost_when_redis_goes_and_comes(
    own: tuple[Api, EmbeddedPostgres, EmbeddedRedis],
) -> None:
    api, _, redis = own
    await eventually(lambda: ready(api))
    redis.kill()
    await api.send(register(1))

    async def redis_is_away() -> bool:
        return (await parts(api))["redis"] == "unavailable"

    await eventually(redis_is_away)
    await api.send(register(2))
    redis.start()
    await eventually(lambda: ready(api))
    await api.send(register(3))
    assert await api.count("status = 'accepted'") == 3


async def test_without_postgresql_nothing_is_accepted_and_all_is_well_when_it_is_back(
    own: tuple[Api, EmbeddedPostgres, EmbeddedRedis], caplog: pytest.LogCaptureFixture
) -> None:
    api, postgres, _ = own
    caplog.set_level(logging.INFO)
    receipt = await api.send(register(1))
    unseen = await api.as_role(Role.OPERATOR)
    before = await api.tables()
    postgres.kill()
    for client in (api.operator, unseen):
        for answer in (
            await client.post("/v1/commands", json=register(2)),
            await client.post("/v1/commands/batch", json={"commands": [register(2)] * 3}),
            await client.get("/v1/commands"),
            await client.get(receipt["links"]["self"]),
            await client.get("/v1/listings"),
            await client.get("/v1/users/me", params={"actor": 1}),
        ):
            assert_problem(answer, 503, "unavailable")
            assert not [word for word in INTERNALS if word in answer.text]
    assert (await api.anonymous.get("/healthz")).status_code == 200
    assert (await parts(api))["postgresql"] == "unavailable"
    assert (await parts(api))["status"] == 503

    postgres.start()
    await eventually(lambda: ready(api))
    assert await api.tables() == before
    await api.send(register(3))
    assert (await api.operator.get(receipt["links"]["self"])).json() == receipt
    assert PASSWORD not in caplog.text


async def test_a_hung_postgresql_is_answered_in_bounded_time(
    own: tuple[Api, EmbeddedPostgres, EmbeddedRedis],
) -> None:
    """What was sent before the hang may still be stored after it, so a repeat under the same key must be safe."""
    api, postgres, _ = own
    await api.send(register(1))
    command = register(2) | {"idempotency_key": "hung"}
    backends = [psutil.Process(postgres.pid), *psutil.Process(postgres.pid).children()]
    for backend in backends:
        backend.send_signal(signal.SIGSTOP)
    try:
        start = time.monotonic()
        answers = await asyncio.gather(*(api.operator.post("/v1/commands", json=command) for _ in range(5)))
        assert time.monotonic() - start < 10
        for answer in answers:
            assert_problem(answer, 503, "unavailable")
    finally:
        for backend in backends:
            backend.send_signal(signal.SIGCONT)
    await eventually(lambda: ready(api))
    receipt = await api.send(command)
    assert (await api.send(command))["id"] == receipt["id"]
    assert await api.count("idempotency_key = 'hung'") == 1


async def test_a_bug_is_answered_with_an_id_and_told_to_the_log_alone(
    installer: Installer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(await installer.install(), raise_bugs=False) as api:
        key = api.operator.headers["authorization"].partition(" ")[2]
        async with api.engine.begin() as connection:
            await connection.exec_driver_sql("ALTER TABLE nfts RENAME TO lost")
            await connection.exec_driver_sql("ALTER TABLE commands ADD CONSTRAINT bug CHECK (actor IS NULL)")
        for answer in (
            await api.operator.get("/v1/listings"),
            await api.operator.post("/v1/commands", json=set_price(1, 1)),
            await api.operator.post("/v1/commands/batch", json={"commands": [set_price(1, 1)]}),
        ):
            problem = assert_problem(answer, 500, "internal")
            assert problem["id"] in caplog.text
            assert not [word for word in INTERNALS if word in answer.text]
        assert await api.count() == 0
        await api.send(register(1))
        for secret in (PASSWORD, key):
            assert secret not in caplog.text
