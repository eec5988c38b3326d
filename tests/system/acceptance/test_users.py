"""Users and their money."""

from tests.market import TON
from tests.system.marketplace import Marketplace


async def test_auth_200(marketplace: Marketplace, me: int) -> None:
    assert [(await marketplace.read(me, "/users/me"))["user_id"] for _ in range(2)] == [me, me]
    unknown = await marketplace.site.client.get("/v1/users/me", headers={"Authorization": ""})
    assert (unknown.status_code, unknown.json()["code"]) == (401, "unauthenticated")


async def test_me_200(marketplace: Marketplace, me: int) -> None:
    user = await marketplace.read(me, "/users/me")
    assert (user["user_id"], user["available_nano"], user["held_nano"]) == (me, 10_000_000_000, 0)


async def test_topups_200(marketplace: Marketplace, me: int) -> None:
    [deposit] = await marketplace.read_list(me, "/users/me/deposits")
    assert (deposit["amount_nano"], deposit["state"]) == (10 * TON, "credited")


async def test_withdraws_200(marketplace: Marketplace, me: int) -> None:
    assert await marketplace.read_list(me, "/users/me/withdrawals") == []
