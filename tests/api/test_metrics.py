"""GET /metrics: true figures, of bounded number, that give nobody away."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis
from storage.settings import load_settings
from tests.api.api import Api, running
from tests.deadline import eventually
from tests.installation import Installer, connected, database_url, prepare
from tests.market import register

Figures = dict[tuple[str, ...], float]

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml"
WORKER = "secret-host:4711:abcd"


@pytest.fixture
async def api(installer: Installer) -> AsyncIterator[Api]:
    """An application of its own, whose figures begin at nothing."""
    async with running(await installer.install()) as api:
        yield api


async def figures(api: Api) -> Figures:
    """Each sample, by its name and its labels' values."""
    response = await api.anonymous.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_what_was_accepted_answered_and_waits_is_counted(api: Api) -> None:
    await api.send(register(1))
    await api.send(register(2) | {"idempotency_key": "twice"})
    await api.send(register(2) | {"idempotency_key": "twice"})
    found = await figures(api)
    assert found["souk_accepted_total",] == 2
    assert found["souk_backlog_commands",] == 2
    assert found["souk_backlog_oldest_seconds",] > 0
    assert found["souk_partitions_free",] == api.settings.partitions
    assert found["souk_http_requests_total", "POST", "/v1/commands", "202"] == 3
    assert found["souk_up", "postgresql"] == 1


async def test_workers_are_told_apart_without_their_hosts(api: Api) -> None:
    async with connected(api.settings) as connection:
        await connection.execute(
            "INSERT INTO workers (id, alive_until, batches, commands, round_trips, succeeded, rejected)"
            f" VALUES ('{WORKER}', now() + interval '1 hour', 3, 9, 20, 7, 2);"
            f"UPDATE partitions SET owner = '{WORKER}' WHERE id < 3"
        )
    found = await figures(api)
    assert found["souk_workers",] == 1
    assert found["souk_worker_partitions", "abcd"] == 3
    assert found["souk_worker_batches_total", "abcd"] == 3
    assert found["souk_worker_outcomes_total", "succeeded", "abcd"] == 7
    assert found["souk_worker_outcomes_total", "rejected", "abcd"] == 2
    assert "secret-host" not in (await api.anonymous.get("/metrics")).text


async def test_the_alerts_ask_for_figures_that_exist(api: Api) -> None:
    async with connected(api.settings) as connection:
        await connection.execute(
            "INSERT INTO workers (id, alive_until, batches, commands, round_trips)"
            f" VALUES ('{WORKER}', now() + interval '1 hour', 0, 0, 0)"
        )
    asked = set(re.findall(r"souk_\w+", RULES.read_text()))
    assert len(asked) > 4
    assert asked <= {name for name, *_ in await figures(api)}


async def test_nobody_can_make_the_figures_many(api: Api) -> None:
    """Neither by paths that do not exist, nor by ids in those that do, nor by methods of one's own."""
    await figures(api)
    for number in range(30):
        await api.anonymous.get(f"/nowhere/{number}")
        await api.operator.get(f"/v1/commands/{number}")
        await api.anonymous.request(f"METHOD{number}", "/v1/commands")
    found = await figures(api)
    assert found["souk_http_requests_total", "GET", "none", "404"] == 30
    assert found["souk_http_requests_total", "other", "/v1/commands", "405"] == 30
    assert len([sample for sample in found if sample[0] == "souk_http_requests_total"]) < 10


async def test_parts_that_are_away_are_told_and_nothing_false(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path) as postgres, EmbeddedRedis(tmp_path) as redis:
        settings = load_settings(
            database_url=SecretStr(database_url(postgres, "souk")), redis_url=SecretStr(redis.url), partitions=4
        )
        await prepare(settings)
        async with running(settings) as api:

            async def up(**parts: float) -> bool:
                found = await figures(api)
                return all(found["souk_up", part] == value for part, value in parts.items())

            await eventually(lambda: up(postgresql=1, redis=1))
            redis.kill()
            await eventually(lambda: up(postgresql=1, redis=0))
            await api.send(register(1))
            found = await figures(api)
            assert found["souk_notices_connected",] == 0
            postgres.kill()
            await eventually(lambda: up(postgresql=0, redis=0))
            assert ("souk_backlog_commands",) not in await figures(api)
            postgres.start()
            redis.start()
            await eventually(lambda: up(postgresql=1, redis=1))
            assert (await figures(api))["souk_hints_lost_total",] == 1
