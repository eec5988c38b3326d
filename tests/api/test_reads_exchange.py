"""The reads of what is exchanged: offers, presales, auctions, swaps, accounts and channels, and what operators see."""

from typing import Any

from tests.api.api import assert_problem, running
from tests.api.bazaar import ALICE, BOB, CAROL, CHANNEL, DAVE, UNLISTED_CHANNEL, WANTED, Bazaar
from tests.installation import Installer
from tests.market import TON

ITEM = {"nft_id", "gift", "state", "price_nano", "promoted_until", "received_at"}


# -- offers, presales, auctions


async def test_offers_are_on_the_right_side_and_only_their_author_sees_the_hold(bazaar: Bazaar) -> None:
    [sent] = await bazaar.items("/offers", BOB, direction="sent")
    assert sent.keys() == {
        *("offer_id", "direction", "item", "price_nano", "counter_nano", "held_nano", "expires_at", "state")
    }
    assert (sent["direction"], sent["held_nano"], sent["counter_nano"]) == ("sent", TON, 2 * TON - 1)
    assert sent["item"].keys() == ITEM
    [received] = await bazaar.items("/offers", ALICE)
    assert received == sent | {"direction": "received", "held_nano": None}
    assert await bazaar.items("/offers", BOB, direction="received") == []
    assert len(await bazaar.items("/offers", ALICE, state=["open", "refused"])) == 2
    assert await bazaar.get(f"/offers/{bazaar.ids['offer']}", BOB) == sent
    assert await bazaar.status(f"/offers/{bazaar.ids['offer']}", CAROL) == 404


async def test_presales_that_are_listed_are_public_and_ones_own_tell_more(bazaar: Bazaar) -> None:
    [listed] = await bazaar.items("/presales")
    assert listed.keys() == {"presale_id", "gift", "price_nano", "state", "transferable_at", "deadline_at"}
    assert (listed["presale_id"], listed["gift"]["id"]) == (bazaar.ids["presale"], "101")
    assert await bazaar.items("/presales", collection="Swiss Watch") == []
    mine = await bazaar.items("/presales/mine", ALICE)
    assert [(presale["price_nano"], presale["deposit_held_nano"], presale["role"]) for presale in mine] == [
        (10 * TON, 2 * TON, "seller"),
        (20 * TON, 4 * TON, "seller"),
        (None, 0, "seller"),
    ]
    [bought] = await bazaar.items("/presales/mine", BOB)
    assert (bought["role"], bought["state"]) == ("buyer", "sold")
    assert len(await bazaar.items("/presales/mine", ALICE, state=["sold", "registered"])) == 2
    assert await bazaar.items("/presales/mine", ALICE, role="buyer") == []
    assert (await bazaar.get(f"/presales/{bazaar.ids['presale']}")) == listed


async def test_auctions_tell_what_must_be_bid_next(bazaar: Bazaar) -> None:
    auctions = await bazaar.items("/auctions", sort="-price")
    assert [auction["auction_id"] for auction in auctions] == [bazaar.ids["fresh"], bazaar.ids["auction"]]
    fresh, leading = auctions
    assert leading.keys() == {
        *("auction_id", "item", "start_nano", "current_nano", "minimum_next_nano", "bid_count"),
        *("ends_at", "planned_ends_at", "state"),
    }
    assert (fresh["current_nano"], fresh["minimum_next_nano"], fresh["bid_count"]) == (7 * TON, 7 * TON, 0)
    assert (leading["current_nano"], leading["minimum_next_nano"], leading["bid_count"]) == (6 * TON, 66 * TON // 10, 2)
    assert len(await bazaar.items("/auctions", price_min_nano=7 * TON)) == 1
    assert len(await bazaar.items("/auctions", collection=["Swiss Watch", "Plush Pepe"], num_max=5)) == 1
    bids = await bazaar.items(f"/auctions/{bazaar.ids['auction']}/bids", BOB)
    assert [(bid["bid_id"], bid["amount_nano"], bid["mine"]) for bid in bids] == [
        (bazaar.ids[f"bid of {CAROL}"], 6 * TON, False),
        (bazaar.ids[f"bid of {BOB}"], 5 * TON, True),
    ]
    assert (await bazaar.get(f"/auctions/{bazaar.ids['cancelled']}"))["state"] == "cancelled"


async def test_my_auctions_are_those_i_hold_and_those_i_bid_in(bazaar: Bazaar) -> None:
    async def found(**query: Any) -> set[str]:
        return {auction["auction_id"] for auction in await bazaar.items("/auctions/mine", BOB, **query)}

    auction, fresh, cancelled = (bazaar.ids[name] for name in ("auction", "fresh", "cancelled"))
    assert await found() == {auction, fresh, cancelled}
    assert await found(role="bidder") == {auction}
    assert await found(role="seller", state="active") == {fresh}


# -- swaps


async def test_public_trades_show_nobody_and_are_found_by_what_they_give_and_want(bazaar: Bazaar) -> None:
    [trade] = await bazaar.items("/trades")
    assert trade.keys() == {"trade_id", "items", "requirements", "private", "receiver_id", "state"}
    assert (trade["trade_id"], trade["requirements"]) == (bazaar.ids["trade"], WANTED)
    assert (trade["private"], trade["receiver_id"]) == (False, None)
    assert [item["nft_id"] for item in trade["items"]] == ["4", "5"]
    assert trade["items"][0].keys() == ITEM
    assert [trade] == await bazaar.items("/trades", collection="Plush Pepe", num=4, wants_collection="Swiss Watch")
    for nothing in ({"num": 6}, {"collection": "Swiss Watch"}, {"wants_collection": "X"}, {"wants_backdrop": "Onyx"}):
        assert await bazaar.items("/trades", **nothing) == []


async def test_a_private_trade_is_there_for_its_parties_alone(bazaar: Bazaar) -> None:
    path = f"/trades/{bazaar.ids['private']}"
    for user_id in (ALICE, BOB):
        seen = await bazaar.get(path, user_id)
        assert (seen["private"], seen["receiver_id"]) == (True, BOB)
    for user_id in (CAROL, DAVE):
        assert await bazaar.status(path, user_id) == 404
    assert_problem(await bazaar.api.operator.get(f"/v1{path}"), 404, "not_found")
    [personal] = await bazaar.items("/trades/personal", BOB)
    assert personal["trade_id"] == bazaar.ids["private"]
    assert await bazaar.items("/trades/personal", ALICE) == []
    assert len(await bazaar.items("/trades/mine", ALICE)) == 3
    assert [trade["trade_id"] for trade in await bazaar.items("/trades/mine", ALICE, state="accepted")] == [
        bazaar.ids["done"]
    ]


async def test_the_fee_of_a_proposal_is_told_to_the_trades_owner_alone(bazaar: Bazaar) -> None:
    fee = 2 * (4 * TON * 200 // 10_000)
    path, proposal = f"/trades/{bazaar.ids['trade']}", bazaar.ids["proposal"]
    assert (await bazaar.get(path, ALICE, proposal_id=proposal))["fee_estimate_nano"] == fee
    assert (await bazaar.get(path, BOB, proposal_id=proposal))["fee_estimate_nano"] is None
    assert "fee_estimate_nano" not in await bazaar.get(path, ALICE)
    [received] = await bazaar.items("/proposals", ALICE, direction="received")
    assert received.keys() == {"trade_id", "proposal_id", "direction", "items", "state", "fee_nano"}
    assert (received["proposal_id"], received["fee_nano"]) == (proposal, fee)
    [sent] = await bazaar.items("/proposals", BOB, direction="sent", trade_id=bazaar.ids["trade"])
    assert sent == received | {"direction": "sent", "fee_nano": None}
    assert [item["nft_id"] for item in sent["items"]] == ["13", "14"]
    assert len(await bazaar.items("/proposals", BOB, state=["open", "accepted"])) == 2
    assert await bazaar.items("/proposals", CAROL) == []


# -- outside


async def test_accounts_show_four_digits_and_only_to_their_owner(bazaar: Bazaar) -> None:
    account_id = bazaar.ids["account"]
    [account] = await bazaar.items("/accounts", ALICE)
    assert account.pop("connected_at")
    assert account == {
        "account_id": account_id,
        "phone": "3456",
        "name": "main",
        "state": "connected",
        "telegram_id": 77,
        "stars": 5,
        "premium": True,
        "reason": None,
    }
    [found] = await bazaar.items("/accounts/gifts", ALICE)
    assert (found["account_id"], found["gift"]["id"]) == (account_id, "8")
    assert await bazaar.items(f"/accounts/{account_id}/channels", ALICE) == [
        {"channel_id": "9", "title": "Nine", "username": None}
    ]
    assert (await bazaar.get(f"/accounts/{account_id}", ALICE))["account_id"] == account_id
    assert await bazaar.status(f"/accounts/{account_id}", BOB) == 404
    assert await bazaar.items(f"/accounts/{account_id}/channels", BOB) == []


async def test_channels_are_found_by_their_gifts_and_seen_while_for_sale(bazaar: Bazaar) -> None:
    [channel] = await bazaar.items("/channels")
    assert channel.keys() == {"channel_id", "title", "username", "price_nano", "gifts", "state"}
    assert channel["channel_id"] == str(CHANNEL)
    assert [(held["gift"]["collection"], held["quantity"]) for held in channel["gifts"]] == [
        ("Toy Bear", 2),
        ("Plush Pepe", 1),
    ]
    assert [channel] == await bazaar.items("/channels", collection="Toy Bear", num=202, price_max_nano=30 * TON)
    assert await bazaar.items("/channels", collection="Toy Bear", num=203) == []
    assert await bazaar.items("/channels", price_min_nano=31 * TON) == []
    assert await bazaar.get(f"/channels/{CHANNEL}", DAVE) == channel
    assert await bazaar.status(f"/channels/{UNLISTED_CHANNEL}", DAVE) == 404
    assert (await bazaar.get(f"/channels/{UNLISTED_CHANNEL}", ALICE))["state"] == "unlisted"
    mine = await bazaar.items("/channels/mine", ALICE)
    assert {own["channel_id"] for own in mine} == {str(CHANNEL), str(UNLISTED_CHANNEL)}
    assert all(own.keys() == channel.keys() | {"account_id", "reason"} for own in mine)
    for sort, prices in (("price", [channel["price_nano"], None]), ("-price", [None, channel["price_nano"]])):
        assert [own["price_nano"] for own in await bazaar.items("/channels/mine", ALICE, sort=sort)] == prices
    assert len(await bazaar.items("/channels/mine", ALICE, state="unlisted")) == 1


async def test_a_sold_channel_leaves_the_lists_and_is_a_deal_of_both(installer: Installer) -> None:
    async with running(await installer.install()) as api:
        bazaar = Bazaar(api)
        await bazaar.open()
        purchase_id = await bazaar.sell_channel()
        assert await bazaar.items("/channels") == []
        for user_id, role in ((BOB, "buyer"), (ALICE, "seller")):
            [purchase] = await bazaar.items("/channels/purchases", user_id)
            assert (purchase["purchase_id"], purchase["role"]) == (purchase_id, role)
            assert (purchase["state"], purchase["request_state"], purchase["reason"]) == ("requested", "pending", None)
        await bazaar.do("channels.buy_confirm", channel_id=CHANNEL, purchase_id=purchase_id)
        assert [own["channel_id"] for own in await bazaar.items("/channels/mine", ALICE)] == [str(UNLISTED_CHANNEL)]
        assert await bazaar.status(f"/channels/{CHANNEL}", ALICE) == 404
        [sold] = await bazaar.items("/channels/deals", ALICE, side="sell")
        [bought] = await bazaar.items("/channels/deals", BOB, side="buy")
        assert (sold["deal_id"], len(sold["items"])) == (purchase_id, 2)
        assert bought == sold | {"side": "buy"}


# -- operators


async def test_operators_see_what_waits_for_them(bazaar: Bazaar) -> None:
    [lost] = await bazaar.items("/ops/deposits")
    assert (lost["deposit_id"], lost["state"], lost["reason"]) == (
        bazaar.ids["unclaimed"],
        "unclaimed",
        "memo_unreadable",
    )
    assert len(await bazaar.items("/ops/deposits", state=["credited", "unclaimed"])) == 4
    requests = await bazaar.items("/ops/requests")
    assert {request["op"] for request in requests} == {"ton.pay", "gift.transfer"}
    assert requests[0].keys() == {
        *("reference", "op", "state", "attempts", "lookups", "opened_at", "due_at", "age_seconds")
    }
    assert await bazaar.items("/ops/requests", state="unknown") == []
    ledger = await bazaar.get("/ops/ledger")
    assert [(account["id"], account["name"]) for account in ledger["items"]] == [
        (-1, "fees"),
        (-2, "deposits"),
        (-3, "withdrawals"),
        (-4, "expense"),
        (-5, "unclaimed"),
    ]
    assert ledger["wallet_nano"] == 3_001 * TON


# -- answers that a client has already


async def test_an_answer_that_has_not_changed_is_not_sent_again(bazaar: Bazaar) -> None:
    client, tag = bazaar.api.operator, ""
    for path, query in (("/v1/listings", {}), ("/v1/nfts/1", {}), ("/v1/offers", {"actor": BOB})):
        first = await client.get(path, params=query)
        tag = first.headers["etag"]
        again = await client.get(path, params=query, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        other = await client.get(path, params=query, headers={"If-None-Match": '"other"'})
        assert (other.status_code, other.json()) == (200, first.json())
    assert (await client.get("/v1/offers", params={"actor": ALICE})).headers["etag"] != tag
