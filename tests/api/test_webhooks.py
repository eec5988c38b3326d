"""/v1/webhooks: endpoints belong to somebody, their secrets are shown once, and none leads where it must not."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from storage.keys import Role
from storage.webhooks.endpoints import BY_HAND_MAX, WEBHOOKS_MAX
from tests.api.api import Api, assert_problem, running
from tests.installation import Installer, connected

URL = "http://127.0.0.1:1/hook"
NOBODYS = "0197b0c4-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
async def site(installer: Installer) -> AsyncIterator[Api]:
    """Where endpoints may be anywhere, so that no test asks the internet."""
    key = SecretStr(Fernet.generate_key().decode())
    async with running(await installer.install(secret_key=key, webhook_private=True)) as api:
        yield api


async def register(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post("/v1/webhooks", json={"url": URL, "topics": ["market"]} | fields)
    assert response.status_code == 201, response.text
    webhook: dict[str, Any] = response.json()
    assert response.headers["location"] == webhook["links"]["self"] == f"/v1/webhooks/{webhook['id']}"
    return webhook


async def test_a_registered_endpoint_is_there_and_its_secret_shown_once(
    site: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = await site.as_role(Role.USER, 42)
    made = await register(client, topics=["market", "user:42", "commands"], description="Sales", concurrency=3)
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert (made["topics"], made["concurrency"]) == (["market", "user:42", "commands"], 3)
    assert (made["enabled"], made["disabled_at"], made["old_secret_until"]) == (True, None, None)
    assert (await client.get(made["links"]["self"])).json() == made
    assert made in (await client.get("/v1/webhooks")).json()["items"]
    async with connected(site.settings) as connection:
        row = await connection.fetchrow("SELECT * FROM webhooks WHERE id = $1", made["id"])
        assert secret not in str(dict(row or {}))
    assert secret not in caplog.text


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, ["topics", "url"]),
        ([], [""]),
        ({"url": URL, "topics": []}, ["topics"]),
        ({"url": URL, "topics": ["market"] * 101}, ["topics"]),
        ({"url": URL, "topics": ["weather"]}, ["topics"]),
        ({"url": URL, "topics": ["nft:x"]}, ["topics"]),
        ({"url": URL, "topics": [1]}, ["topics.0"]),
        ({"url": URL, "topics": "market"}, ["topics"]),
        ({"url": 1, "topics": ["market"]}, ["url"]),
        ({"url": "ftp://example.com", "topics": ["market"]}, ["url"]),
        ({"url": "https://user:password@example.com/", "topics": ["market"]}, ["url"]),
        ({"url": "https://example.com/\0", "topics": ["market"]}, ["url"]),
        ({"url": "https://example.com/" + "x" * 3_000, "topics": ["market"]}, ["url"]),
        ({"url": URL, "topics": ["market"], "concurrency": 0}, ["concurrency"]),
        ({"url": URL, "topics": ["market"], "concurrency": 11}, ["concurrency"]),
        ({"url": URL, "topics": ["market"], "concurrency": True}, ["concurrency"]),
        ({"url": URL, "topics": ["market"], "concurrency": 1.5}, ["concurrency"]),
        ({"url": URL, "topics": ["market"], "description": "x\0"}, ["description"]),
        ({"url": URL, "topics": ["market"], "secret": "mine"}, ["secret"]),
    ],
)
async def test_a_bad_endpoint_is_refused_by_the_name_of_what_is_wrong(site: Api, body: Any, paths: list[str]) -> None:
    async with site.unchanged():
        assert_problem(await site.operator.post("/v1/webhooks", json=body), 422, "invalid", paths)


@pytest.mark.parametrize(
    "url",
    [
        *("http://93.184.215.14/", "https://127.0.0.1/", "https://0x7f.1/", "https://[::1]/", "https://localhost/"),
        *("https://169.254.169.254/latest/meta-data", "https://[::ffff:10.0.0.1]/", "https://10.1.2.3:8443/hook"),
    ],
)
async def test_an_endpoint_that_leads_inside_is_refused_at_once(api: Api, url: str) -> None:
    async with api.unchanged():
        response = await api.operator.post("/v1/webhooks", json={"url": url, "topics": ["market"]})
        assert_problem(response, 422, "invalid", ["url"])


async def test_a_public_address_is_not_refused(api: Api) -> None:
    response = await api.operator.post("/v1/webhooks", json={"url": "https://93.184.215.14/", "topics": ["market"]})
    assert response.status_code == 201


@pytest.mark.parametrize(
    ("role", "user_id", "topic"),
    [
        (Role.USER, 42, "user:43"),
        (Role.USER, 42, "ops"),
        (Role.FEED, None, "user:43"),
        (Role.SERVICE, None, "ops"),
    ],
)
async def test_nobody_is_told_what_another_may_see(site: Api, role: Role, user_id: int | None, topic: str) -> None:
    client = await site.as_role(role, user_id)
    async with site.unchanged():
        response = await client.post("/v1/webhooks", json={"url": URL, "topics": ["market", topic]})
        assert_problem(response, 403, "forbidden")


async def test_what_is_anothers_is_not_there(site: Api) -> None:
    owner = await site.as_role(Role.USER, 50)
    mine = (await register(owner))["links"]["self"]
    delivery = (await owner.post(f"{mine}/test")).json()["id"]
    others = [
        await site.as_role(Role.USER, 51),
        await site.as_role(Role.SERVICE),
        await site.as_role(Role.FEED),
        site.operator,
    ]
    async with site.unchanged():
        for client in others:
            for method, path in (
                *(("GET", mine), ("DELETE", mine), ("POST", f"{mine}/test"), ("POST", f"{mine}/rotate")),
                *(("POST", f"{mine}/enable"), ("GET", f"{mine}/deliveries")),
                ("POST", f"{mine}/deliveries/{delivery}/resend"),
            ):
                assert_problem(await client.request(method, path), 404, "not_found")
            assert mine not in (await client.get("/v1/webhooks")).text
        for path in (f"/v1/webhooks/{NOBODYS}", "/v1/webhooks/x"):
            assert_problem(await owner.get(path), 404, "not_found")
            assert_problem(await owner.post(f"{path}/deliveries/{delivery}/resend"), 404, "not_found")
        for other in (uuid4(), "x"):
            assert_problem(await owner.post(f"{mine}/deliveries/{other}/resend"), 404, "not_found")
    second_key = await site.as_role(Role.USER, 50)
    assert (await second_key.get(mine)).status_code == 200


async def test_a_delivery_is_resent_by_its_own_endpoint_only(site: Api) -> None:
    client = await site.as_role(Role.USER, 52)
    first, second = [(await register(client))["links"]["self"] for _ in range(2)]
    delivery = (await client.post(f"{first}/test")).json()["id"]
    async with site.unchanged():
        assert_problem(await client.post(f"{second}/deliveries/{delivery}/resend"), 404, "not_found")


async def test_nothing_is_told_without_a_credential(site: Api) -> None:
    path = f"/v1/webhooks/{NOBODYS}"
    for method, target in (("GET", "/v1/webhooks"), ("POST", "/v1/webhooks"), ("DELETE", path), ("GET", path)):
        assert_problem(await site.anonymous.request(method, target, json={}), 401, "unauthenticated")


async def test_an_owner_has_a_few_endpoints_and_no_more(site: Api) -> None:
    client = await site.as_role(Role.USER, 60)
    body = {"url": URL, "topics": ["market"]}
    answers = await asyncio.gather(*(client.post("/v1/webhooks", json=body) for _ in range(WEBHOOKS_MAX + 5)))
    assert [answer.status_code for answer in answers].count(201) == WEBHOOKS_MAX
    refused = next(answer for answer in answers if answer.status_code != 201)
    assert assert_problem(refused, 409, "limit_reached")["limit"] == WEBHOOKS_MAX
    page = (await client.get("/v1/webhooks", params={"limit": 15})).json()
    rest = (await client.get("/v1/webhooks", params={"limit": 15, "cursor": page["next"]})).json()
    assert len({item["id"] for item in page["items"] + rest["items"]}) == WEBHOOKS_MAX
    assert (await client.delete(page["items"][0]["links"]["self"])).status_code == 204
    assert (await client.post("/v1/webhooks", json=body)).status_code == 201


async def test_a_removed_endpoint_is_gone_with_its_log(site: Api) -> None:
    client = await site.as_role(Role.USER, 61)
    made = await register(client)
    await client.post(f"{made['links']['self']}/test")
    assert (await client.delete(made["links"]["self"])).status_code == 204
    assert_problem(await client.delete(made["links"]["self"]), 404, "not_found")
    assert_problem(await client.get(made["links"]["deliveries"]), 404, "not_found")
    async with connected(site.settings) as connection:
        assert await connection.fetchval("SELECT count(*) FROM deliveries WHERE webhook_id = $1", made["id"]) == 0


async def test_a_rotation_shows_the_new_secret_and_how_long_the_old_one_signs_too(site: Api) -> None:
    made = await register(site.operator)
    rotated = (await site.operator.post(f"{made['links']['self']}/rotate")).json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != made["secret"]
    assert rotated["old_secret_until"] is not None
    shown = (await site.operator.get(made["links"]["self"])).json()
    assert shown == {name: value for name, value in rotated.items() if name != "secret"}


async def test_the_log_shows_deliveries_newest_first_in_pages(site: Api) -> None:
    made = await register(site.operator)
    sent = [(await site.operator.post(f"{made['links']['self']}/test")).json() for _ in range(5)]
    assert sent[0] | {"id": "", "created_at": "", "next_attempt_at": ""} == {
        "id": "",
        "event": "webhook.test",
        "state": "pending",
        "attempts": 0,
        "last_status": None,
        "last_error": None,
        "created_at": "",
        "last_attempt_at": None,
        "next_attempt_at": "",
        "finished_at": None,
    }
    log = made["links"]["deliveries"]
    first = (await site.operator.get(log, params={"limit": 3})).json()
    second = (await site.operator.get(log, params={"limit": 3, "cursor": first["next"]})).json()
    assert first["items"] + second["items"] == sent[::-1]
    assert second["next"] is None
    assert (await site.operator.get(log, params={"state": "failed"})).json()["items"] == []
    assert_problem(await site.operator.get(log, params={"state": "lost"}), 422, "invalid", ["state"])


async def test_only_a_few_tests_may_wait(site: Api) -> None:
    made = await register(site.operator)
    answers = [await site.operator.post(f"{made['links']['self']}/test") for _ in range(BY_HAND_MAX + 1)]
    assert [answer.status_code for answer in answers] == [202] * BY_HAND_MAX + [429]
    assert assert_problem(answers[-1], 429, "too_many_requests")["limit"] == BY_HAND_MAX


async def test_an_endpoint_that_was_disabled_is_enabled(site: Api) -> None:
    made = await register(site.operator)
    async with connected(site.settings) as connection:
        await connection.execute(
            "UPDATE webhooks SET disabled_at = now(), disabled_reason = 'failing' WHERE id = $1", made["id"]
        )
    shown = (await site.operator.get(made["links"]["self"])).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "failing")
    for _ in range(2):
        shown = (await site.operator.post(f"{made['links']['self']}/enable")).json()
        assert (shown["enabled"], shown["disabled_reason"], shown["disabled_at"]) == (True, None, None)


async def test_without_a_key_for_secrets_webhooks_are_not_offered(installer: Installer) -> None:
    async with running(await installer.install(webhook_private=True)) as api, api.unchanged():
        response = await api.operator.post("/v1/webhooks", json={"url": URL, "topics": ["market"]})
        assert_problem(response, 503, "unavailable")


async def test_what_waits_and_who_is_disabled_is_among_the_figures(installer: Installer) -> None:
    key = SecretStr(Fernet.generate_key().decode())
    async with running(await installer.install(secret_key=key, webhook_private=True)) as api:
        for disabled in ("now()", "NULL"):
            made = await register(api.operator)
            async with connected(api.settings) as connection:
                await connection.execute(
                    f"UPDATE webhooks SET disabled_at = {disabled},"
                    f" disabled_reason = CASE WHEN {disabled} IS NOT NULL THEN 'gone' END WHERE id = $1",
                    made["id"],
                )
                await connection.execute(
                    "INSERT INTO deliveries (id, webhook_id, name, body, created_at)"
                    " SELECT gen_random_uuid(), $1, 'nft.sold', '{}', now() - interval '1 hour'"
                    " FROM generate_series(1, 3)",
                    made["id"],
                )
        figures = (await api.anonymous.get("/metrics")).text
        assert "souk_webhooks_disabled 1.0\n" in figures
        assert "souk_webhook_deliveries_waiting 3.0\n" in figures
        assert "souk_webhook_oldest_seconds 36" in figures
