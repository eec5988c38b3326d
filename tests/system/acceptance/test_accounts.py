"""Telegram accounts."""

from tests.system.marketplace import Marketplace


async def test_get_accounts_200(marketplace: Marketplace, me: int) -> None:
    account = await marketplace.account(me)
    [found] = await marketplace.read_list(me, "/accounts")
    assert (found["account_id"], found["state"]) == (account, "connected")


async def test_delete_account_200(marketplace: Marketplace, me: int) -> None:
    account, item = await marketplace.account(me), await marketplace.item(me)
    await marketplace.do("accounts.disconnect", me, account_id=account)
    [found] = await marketplace.read_list(me, "/accounts")
    assert (found["account_id"], found["state"]) == (account, "disconnected")
    assert await marketplace.document("telegram_accounts", account, "state", "closed_at IS NULL") == (
        "disconnected",
        False,
    )
    assert await marketplace.nft(item) == (me, "held")


async def test_get_gifts_200(marketplace: Marketplace, me: int) -> None:
    assert await marketplace.read_list(me, "/accounts/gifts") == []
    account = await marketplace.account(me)
    synced = await marketplace.do("accounts.sync", me, account_id=account)
    await marketplace.until_answered(synced["id"])
    found = await marketplace.read_list(me, "/accounts/gifts")
    assert found
    assert {gift["account_id"] for gift in found} == {account}
