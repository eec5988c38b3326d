"""Trades: items for items."""

from typing import Any

import pytest

from tests.market import TON
from tests.system.marketplace import ANY, NOWHERE, Marketplace


async def open_trade(marketplace: Marketplace, owner: int, **facts: Any) -> str:
    trade: str = (await marketplace.trade(owner, [await marketplace.item(owner)], **facts))["trade_id"]
    return trade


async def open_proposal(marketplace: Marketplace, author: int, trade: str) -> str:
    named = await marketplace.proposal(author, {"trade_id": trade}, [await marketplace.item(author)])
    proposal: str = named["proposal_id"]
    return proposal


@pytest.fixture
async def my_trade(marketplace: Marketplace, me: int) -> str:
    return await open_trade(marketplace, me)


@pytest.fixture
async def others_trade(marketplace: Marketplace, other: int) -> str:
    return await open_trade(marketplace, other)


async def test_get_trades_200(marketplace: Marketplace, me: int, others_trade: str) -> None:
    found = await marketplace.read_list(me, "/trades", sort="-created_at")
    assert others_trade in [trade["trade_id"] for trade in found]


async def test_get_my_trades_200(marketplace: Marketplace, me: int, my_trade: str, others_trade: str) -> None:
    assert [trade["trade_id"] for trade in await marketplace.read_list(me, "/trades/mine")] == [my_trade]


async def test_get_personal_trade_200(marketplace: Marketplace, me: int, other: int) -> None:
    assert await marketplace.read_list(me, "/trades/personal") == []
    trade = await open_trade(marketplace, other, receiver_id=me)
    assert [found["trade_id"] for found in await marketplace.read_list(me, "/trades/personal")] == [trade]


async def test_get_my_proposals_200(marketplace: Marketplace, me: int, others_trade: str) -> None:
    assert await marketplace.read_list(me, "/proposals", direction="sent") == []
    proposal = await open_proposal(marketplace, me, others_trade)
    found = await marketplace.read_list(me, "/proposals", direction="sent")
    assert [one["proposal_id"] for one in found] == [proposal]


async def test_get_proposals_200(marketplace: Marketplace, me: int, other: int, my_trade: str) -> None:
    assert await marketplace.read_list(me, "/proposals", direction="received") == []
    proposal = await open_proposal(marketplace, other, my_trade)
    found = await marketplace.read_list(me, "/proposals", direction="received")
    assert [one["proposal_id"] for one in found] == [proposal]


async def test_new_trade_200(marketplace: Marketplace, me: int) -> None:
    item = await marketplace.item(me)
    receipt = await marketplace.do("trades.create", me, nft_ids=[item], requirements=ANY)
    assert receipt["result"]["trade_id"] == receipt["id"]
    trade = await marketplace.read(me, f"/trades/{receipt['id']}")
    assert [one["nft_id"] for one in trade["items"]] == [str(item)]
    assert [(one["collection"], one.get("backdrop")) for one in trade["requirements"]] == [("Plush Pepe", None)]
    assert await marketplace.document("trades", receipt["id"], "owner_id", "state", "fee_bp") == (me, "open", 200)
    assert await marketplace.nft(item) == (me, "held")
    assert await marketplace.balance(me) == (10 * TON, 0)


async def test_delete_trades_200(marketplace: Marketplace, me: int, my_trade: str) -> None:
    await marketplace.do("trades.delete", me, trade_id=my_trade)
    assert await marketplace.document("trades", my_trade, "state", "closed_at IS NULL") == ("deleted", False)
    assert await marketplace.balance(me) == (10 * TON, 0)


async def test_new_proposal_nft_not_found(marketplace: Marketplace, me: int, others_trade: str) -> None:
    unknown = marketplace.new_id()
    rejection = await marketplace.refused(
        "NFT_NOT_FOUND", "trades.propose", me, trade_id=others_trade, nft_ids=[unknown]
    )
    assert rejection["nft_id"] == str(unknown)
    assert await marketplace.document("trades", others_trade, "state") == ("open",)


async def test_delete_proposals_200(marketplace: Marketplace, me: int, others_trade: str) -> None:
    proposal = await open_proposal(marketplace, me, others_trade)
    await marketplace.do("trades.withdraw_proposal", me, trade_id=others_trade, proposal_id=proposal)
    assert await marketplace.document("proposals", proposal, "state") == ("withdrawn",)
    await marketplace.refused(
        "PROPOSAL_NOT_FOUND", "trades.withdraw_proposal", me, trade_id=others_trade, proposal_id=NOWHERE
    )
    assert await marketplace.document("trades", others_trade, "state") == ("open",)


async def test_cancel_proposal_not_found(marketplace: Marketplace, me: int, my_trade: str) -> None:
    await marketplace.refused("PROPOSAL_NOT_FOUND", "trades.decline", me, trade_id=my_trade, proposal_id=NOWHERE)
    assert await marketplace.document("trades", my_trade, "state") == ("open",)


async def test_accept_proposal_not_found(marketplace: Marketplace, me: int, my_trade: str) -> None:
    await marketplace.refused("PROPOSAL_NOT_FOUND", "trades.accept", me, trade_id=my_trade, proposal_id=NOWHERE)
    assert await marketplace.document("trades", my_trade, "state") == ("open",)


async def test_get_deals_200(marketplace: Marketplace, me: int, other: int, my_trade: str, others_trade: str) -> None:
    for trade, owner, author in ((my_trade, me, other), (others_trade, other, me)):
        proposal = await open_proposal(marketplace, author, trade)
        accepted = await marketplace.do("trades.accept", owner, trade_id=trade, proposal_id=proposal)
        found = {deal["deal_id"]: deal for deal in await marketplace.read_list(me, "/trades/deals")}
        gave, got = accepted["result"]["sent"], accepted["result"]["received"]
        sent, received = (gave, got) if owner == me else (got, gave)
        deal = found[accepted["id"]]
        assert [[item["nft_id"] for item in deal[side]] for side in ("sent", "received")] == [sent, received]
        for item in sent:
            assert await marketplace.nft(int(item)) == (other, "held")
        for item in received:
            assert await marketplace.nft(int(item)) == (me, "held")
    assert len(await marketplace.read_list(me, "/trades/deals")) == 2
