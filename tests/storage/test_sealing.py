"""Secret fields: they reach whom they are for, and are found nowhere else, neither before nor after."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from commands.accounts.sign_in import Approve
from commands.command import KINDS, SEALED, Invalid, decode, secret_fields
from storage.journal.entry import new_id
from storage.sealing import NoSecretKey, Sealer
from storage.settings import Settings
from storage.tables import metadata
from tests.api.api import Api, assert_problem, running
from tests.bridge import SECRET, ABridge, a_bridge
from tests.couriers import some_couriers
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.market import register

KEY = base64.urlsafe_b64encode(bytes(32)).decode()
OTHER_KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
USER = 7
CODE, PASSWORD = "4071926", "canary of the password"
LOGIN = {"code": CODE, "password": PASSWORD, "name": "mine"}


def approve(account_id: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "accounts.approve", "actor": USER, "payload": {"account_id": account_id, **LOGIN, **changes}}


def test_accounts_approve_is_what_has_secrets() -> None:
    secretive = {kind: secret_fields(command) for kind, command in KINDS.items() if secret_fields(command)}
    assert secretive == {"accounts.approve": ("code", "password")}


def test_what_is_sealed_is_opened_under_the_same_key_only() -> None:
    command = Approve(account_id=new_id(), **LOGIN)
    sealed = Sealer(SecretStr(KEY)).seal(command)
    assert sealed.secrets is not None
    assert Sealer(SecretStr(KEY)).open(sealed.secrets) == {"code": CODE, "password": PASSWORD}
    for sealer in (Sealer(SecretStr(OTHER_KEY)), Sealer(None)):
        with pytest.raises(NoSecretKey):
            sealer.open(sealed.secrets)
    with pytest.raises(NoSecretKey):
        Sealer(None).seal(command)


def test_stored_payloads_show_a_word_in_the_place_of_secrets() -> None:
    account_id = new_id()
    sealed = Sealer(SecretStr(KEY)).seal(Approve(account_id=account_id, **LOGIN))
    shown = {"account_id": str(account_id), "code": SEALED, "password": SEALED, "name": "mine"}
    assert json.loads(sealed.payload) == shown
    assert decode("accounts.approve", sealed.payload, stored=True).model_dump(mode="json") == shown
    without = Sealer(SecretStr(KEY)).seal(Approve(account_id=account_id, code=CODE, name="mine"))
    assert json.loads(without.payload) == shown | {"password": None}


def test_the_word_is_no_code_when_it_is_submitted() -> None:
    payload = json.dumps({"account_id": str(new_id()), "code": SEALED, "name": "mine"})
    with pytest.raises(Invalid) as raised:
        decode("accounts.approve", payload)
    assert [path for path, _ in raised.value.errors] == ["payload.code"]


def test_a_code_cannot_be_found_by_trying_all_fingerprints() -> None:
    command = Approve(account_id=UUID(int=1), **LOGIN)
    sealed = Sealer(SecretStr(KEY)).seal(command)
    assert sealed.fingerprint == Sealer(SecretStr(KEY)).seal(command).fingerprint
    assert sealed.fingerprint != Sealer(SecretStr(OTHER_KEY)).seal(command).fingerprint
    assert sealed.fingerprint != sha256(f"{command.kind}\n{command.model_dump_json()}".encode()).digest()[:16]
    other = command.model_copy(update={"code": "4071927"})
    assert sealed.fingerprint != Sealer(SecretStr(KEY)).seal(other).fingerprint


# -- the whole way


class Login:
    """A user whose phone was sent a code, the API, couriers and the bridge they speak to."""

    def __init__(self, api: Api, bridge: ABridge, account_id: str) -> None:
        self.api = api
        self.bridge = bridge
        self.account_id = account_id

    async def text_of_the_database(self) -> str:
        """Every row of every table."""
        async with connected(self.api.settings) as connection:
            tables = [await connection.fetch(f"SELECT t::text FROM {table} AS t") for table in metadata.tables]
        return "\n".join(row[0] for rows in tables for row in rows)

    async def keeps_secrets(self) -> bool:
        return bool(await self.api.count("secrets IS NOT NULL"))

    async def forgot(self) -> bool:
        return not await self.keeps_secrets()

    async def no_request_is_open(self) -> bool:
        async with connected(self.api.settings) as connection:
            return bool(await connection.fetchval("SELECT bool_and(closed_at IS NOT NULL) FROM gateway_requests"))

    @asynccontextmanager
    async def couriers(self, **settings: Any) -> AsyncIterator[None]:
        async with some_couriers(self.api.settings.model_copy(update=settings)):
            yield


def answers_to(outcome: str, **more: Any) -> Any:
    async def respond(call: str, fields: dict[str, Any]) -> Response:
        standing = {"telegram_id": 99, "stars": 0, "premium": False}
        return JSONResponse({"reference": fields["reference"], "outcome": outcome, **standing, **more})

    return respond


async def install(installer: Installer, **changes: Any) -> Settings:
    quick = {"gateway_timeout_seconds": 5, "gateway_backoff_seconds": 0.05, "gateway_backoff_max_seconds": 0.1}
    return await installer.install(**quick | changes)


@pytest.fixture
async def login(installer: Installer) -> AsyncIterator[Login]:
    async with a_bridge() as bridge:
        given = {"gateway_url": bridge.url, "gateway_secret": SecretStr(SECRET), "secret_key": SecretStr(KEY)}
        async with running(await install(installer, **given)) as api:
            connect = {"kind": "accounts.connect", "actor": USER, "payload": {"phone": "+15550100"}}
            account_id = (await api.settle([register(USER), connect]))[1]["result"]["account_id"]
            code_sent = {"user_id": USER, "account_id": account_id}
            await api.settle([{"kind": "accounts.connect_confirm", "payload": code_sent}])
            yield Login(api, bridge, account_id)


async def test_secrets_reach_the_bridge_and_are_then_forgotten(login: Login) -> None:
    login.bridge.respond = answers_to("done")
    [receipt] = await login.api.settle([approve(login.account_id)])
    assert receipt["status"] == "succeeded"
    assert await login.keeps_secrets()
    before = await login.text_of_the_database()
    async with login.couriers():
        await eventually(login.no_request_is_open)
        await eventually(login.forgot)
    [seen] = login.bridge.seen
    assert (seen.fields["code"], seen.fields["password"]) == (CODE, PASSWORD)
    for text in (before, await login.text_of_the_database(), str(receipt)):
        assert CODE not in text
        assert PASSWORD not in text


async def test_secrets_are_kept_while_the_answer_is_unknown(login: Login) -> None:
    login.bridge.respond = answers_to("unknown")
    await login.api.settle([approve(login.account_id)])
    async with login.couriers():
        await eventually(lambda: _at_least(login.bridge, 4))
        assert await login.keeps_secrets()
        login.bridge.respond = answers_to("refused", reason=f"wrong_{CODE}")
        await eventually(login.forgot)
    assert [seen.call for seen in login.bridge.seen].count("perform") == 1
    assert all("code" not in seen.fields for seen in login.bridge.seen if seen.call == "lookup")
    assert CODE not in await login.text_of_the_database()


async def _at_least(bridge: ABridge, count: int) -> bool:
    return len(bridge.seen) >= count


async def test_secrets_of_a_command_that_asked_for_nothing_are_forgotten(login: Login) -> None:
    late = approve(login.account_id) | {"not_after": "2020-01-01T00:00:00Z"}
    receipts = await login.api.settle([approve(str(new_id())), late])
    assert [receipt["status"] for receipt in receipts] == ["rejected", "expired"]
    assert await login.api.count("secrets IS NOT NULL") == 2
    async with login.couriers():
        await eventually(login.forgot)


async def _is(api: Api, count: int) -> bool:
    return await api.count("secrets IS NOT NULL") == count


async def test_secrets_of_a_request_that_was_given_up_are_forgotten(login: Login) -> None:
    [receipt] = await login.api.settle([approve(login.account_id)])
    ids = {"user_id": USER, "account_id": login.account_id, "approve_id": receipt["id"]}
    await login.api.settle([{"kind": "accounts.approve_fail", "payload": {**ids, "reason": "expired"}}])
    async with login.couriers():
        await eventually(login.forgot)
    assert login.bridge.seen == []


async def test_a_failed_command_keeps_its_secrets_and_shows_none(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(command: Approve, *_: Any) -> dict[str, Any]:
        raise ValueError(f"bug: {command!r} {command.model_dump_json()}")

    monkeypatch.setattr(Approve, "execute", stumble)
    [receipt] = await login.api.settle([approve(login.account_id)])
    assert receipt["status"] == "failed"
    async with login.couriers():
        await eventually(lambda: _is(login.api, 1))
    text = await login.text_of_the_database()
    assert "bug" in text
    assert CODE not in text
    assert PASSWORD not in text


@pytest.mark.parametrize("key", [None, SecretStr(OTHER_KEY)])
async def test_a_courier_without_the_key_sends_nothing(login: Login, key: SecretStr | None) -> None:
    login.bridge.respond = answers_to("done")
    await login.api.settle([approve(login.account_id)])
    tried = "SELECT bool_or(reason = 'no_secret_key') FROM gateway_log"
    async with login.couriers(secret_key=key), connected(login.api.settings) as connection:
        await eventually(lambda: connection.fetchval(tried))
    assert login.bridge.seen == []
    assert await login.keeps_secrets()
    async with login.couriers():
        await eventually(login.forgot)
    assert login.bridge.seen[-1].fields["code"] == CODE


async def test_a_repeated_key_is_known_by_its_secrets(login: Login) -> None:
    first = await login.api.send(approve(login.account_id), idempotency_key="k")
    again = await login.api.send(approve(login.account_id), idempotency_key="k")
    assert again["id"] == first["id"]
    other = approve(login.account_id, code="4071927") | {"idempotency_key": "k"}
    response = await login.api.operator.post("/v1/commands", json=other)
    assert_problem(response, 422, "idempotency_key_reused")


async def test_what_is_wrong_with_a_secret_is_said_without_it(login: Login) -> None:
    wrong = approve(login.account_id, code="4071926x", password="p" * 256)
    response = await login.api.operator.post("/v1/commands", json=wrong)
    assert_problem(response, 422, "invalid", ["payload.code", "payload.password"])
    assert "4071926" not in response.text
    assert "ppp" not in response.text


async def test_without_a_key_secrets_are_refused(installer: Installer) -> None:
    async with running(await install(installer)) as api, api.unchanged():
        response = await api.operator.post("/v1/commands", json=approve(str(new_id())))
        assert "SOUK_SECRET_KEY" in assert_problem(response, 503, "unavailable")["detail"]
