"""What is told of a command that has left the journal."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from storage.journal.retire import retire_commands
from storage.keys import Role
from tests.api.api import Api, assert_problem, running
from tests.installation import Installer, connected
from tests.market import TON, buy, fund, receive, register, set_price

SELLER, BUYER = 1, 2


@pytest.fixture
async def api(installer: Installer) -> AsyncIterator[Api]:
    async with running(await installer.install()) as api:
        yield api


async def sale(api: Api) -> list[dict[str, Any]]:
    """The receipts of all that leads to a sale, and of a refusal."""
    commands = [register(SELLER), register(BUYER), fund(BUYER), receive(7, SELLER), set_price(SELLER, 7)]
    return await api.settle([*commands, buy(BUYER, 7), buy(BUYER, 7)])


async def retire(api: Api, *, archive: bool) -> None:
    """Let go of all that has finished, as if long ago."""
    settings = api.settings.model_copy(update={"keep_commands_days": -1, "archive_commands": archive})
    async with connected(settings) as connection:
        await retire_commands(connection, settings)
        assert await connection.fetchval("SELECT count(*) FROM commands") == 0


async def test_the_receipt_of_an_archived_command_is_the_same(api: Api) -> None:
    receipts = await sale(api)
    assert {receipt["status"] for receipt in receipts} == {"succeeded", "rejected"}
    await retire(api, archive=True)
    async with api.unchanged():
        for receipt in receipts:
            again = await api.operator.get(receipt["links"]["self"], params={"wait": "30"})
            assert (again.status_code, again.json()) == (200, receipt)


async def test_an_archived_command_is_still_a_secret_to_others(api: Api) -> None:
    receipts = await sale(api)
    await retire(api, archive=True)
    buyer, seller = [await api.as_role(Role.USER, user) for user in (BUYER, SELLER)]
    link = receipts[-1]["links"]["self"]
    assert (await buyer.get(link)).json() == receipts[-1]
    assert_problem(await seller.get(link), 404, "not_found")


async def test_a_deleted_command_is_not_found(api: Api) -> None:
    receipts = await sale(api)
    await retire(api, archive=False)
    for link in (receipts[0]["links"]["self"], f"/v1/commands/{uuid4()}"):
        assert_problem(await api.operator.get(link), 404, "not_found")


async def test_a_list_has_archived_commands_too_newest_first(api: Api) -> None:
    receipts = await sale(api)
    await retire(api, archive=True)
    receipts += await api.settle([register(3), set_price(BUYER, 7)])
    whole = (await api.operator.get("/v1/commands")).json()
    assert whole == {"items": receipts[::-1], "next": None}
    assert (await api.operator.get("/v1/commands", params={"sort": "id"})).json()["items"] == receipts
    priced = (await api.operator.get("/v1/commands", params={"kind": "nft.set_price", "asset": "nft:7"})).json()[
        "items"
    ]
    assert priced == [receipts[-1], receipts[4]]
    rejected = (await api.operator.get("/v1/commands", params={"status": "rejected", "actor": BUYER})).json()["items"]
    assert rejected == [receipts[6]]


async def test_archived_commands_are_listed_to_whom_they_were_shown_before(api: Api) -> None:
    await sale(api)
    readers = [
        *[await api.as_role(Role.USER, user) for user in (SELLER, BUYER)],
        *[await api.as_role(role) for role in (Role.SERVICE, Role.FEED)],
    ]
    before = [(await reader.get("/v1/commands")).json() for reader in readers]
    await retire(api, archive=True)
    assert [(await reader.get("/v1/commands")).json() for reader in readers] == before
    assert [len(page["items"]) for page in before] == [1, 2, 3, 4]


async def test_no_command_is_missed_or_repeated_while_pages_are_read_and_commands_move(api: Api) -> None:
    receipts = await sale(api)
    seen, query = [], {"limit": "2"}
    while True:
        page = (await api.operator.get("/v1/commands", params=query)).json()
        seen += page["items"]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
        async with connected(api.settings) as connection:  # some of what was seen, and some of what was not
            settings = api.settings.model_copy(update={"keep_commands_days": -1})
            await retire_commands(connection, settings, 2)
    assert seen == receipts[::-1]


async def test_a_command_that_came_again_after_it_was_archived_is_listed_once(api: Api) -> None:
    receipts = await sale(api)
    await retire(api, archive=True)
    async with connected(api.settings) as connection:
        await connection.execute("""
            INSERT INTO commands (id, kind, asset, partition, payload, status, fingerprint, accepted_at)
            SELECT id, kind, asset, partition, payload, 'accepted', '', now() FROM archived_commands
            ORDER BY id LIMIT 1
        """)
    listed = (await api.operator.get("/v1/commands")).json()["items"]
    assert [item["id"] for item in listed] == [receipt["id"] for receipt in receipts[::-1]]
    assert [item["status"] for item in listed[-2:]] == ["succeeded", "accepted"]


@pytest.mark.parametrize("archive", [True, False])
async def test_what_commands_did_stays(api: Api, archive: bool) -> None:
    await sale(api)
    buyer = await api.as_role(Role.USER, BUYER)
    paths = ["/v1/users/me", "/v1/users/me/ledger", "/v1/users/me/deals", "/v1/users/me/nfts"]
    before = [(await buyer.get(path)).json() for path in paths]
    await retire(api, archive=archive)
    after = [(await buyer.get(path)).json() for path in paths]
    kinds = {entry["kind"] for entry in after[1]["items"]}
    assert kinds == ({"nft.buy", "market.deposit"} if archive else {None})
    if not archive:
        for entry in (*before[1]["items"], *after[1]["items"]):
            del entry["kind"]
    assert after == before
    assert before[0]["available_nano"] == 1_000 * TON - TON
