"""Items that several want, whose price moves, or that hang on something else."""

import asyncio
import random

import pytest

from tests.market import TON, gift
from tests.system.hard import ROUNDS
from tests.system.marketplace import ANY, Command, Marketplace, command


@pytest.mark.parametrize("rivals", [2, 50])
async def test_of_all_who_buy_one_item_at_once_one_gets_it(marketplace: Marketplace, rivals: int) -> None:
    """H6."""
    buyers = await marketplace.people(rivals, 1_000 * TON)
    seller = await marketplace.person(0)
    for _ in range(ROUNDS):
        before = {buyer: await marketplace.balance(buyer) for buyer in buyers[:3]}
        item = await marketplace.item(seller, TON)
        wishes = [command("nft.buy", buyer, nft_id=item, price_nano=TON) for buyer in buyers]
        receipts = await (marketplace.race(wishes) if rivals == 2 else marketplace.crowd(wishes))
        [winner] = [buyer for buyer, receipt in zip(buyers, receipts, strict=True) if receipt["status"] == "succeeded"]
        assert await marketplace.nft(item) == (winner, "held")
        codes = [receipt["rejection"]["code"] for receipt in receipts if receipt["status"] == "rejected"]
        assert codes == ["NFT_NOT_ON_SALE"] * (rivals - 1)
        for buyer, (available, held) in before.items():
            paid = TON if buyer == winner else 0
            assert await marketplace.balance(buyer) == (available - paid, held)


async def test_a_buyer_pays_the_price_that_was_seen_or_nothing(marketplace: Marketplace) -> None:
    """H7."""
    sellers = await marketplace.people(ROUNDS, 0)
    buyer = await marketplace.person(1_000 * TON)
    for number, seller in enumerate(sellers):
        item = await marketplace.item(seller, TON)
        reprice = command("nft.set_price", seller, nft_id=item, price_nano=2 * TON)
        buy = command("nft.buy", buyer, nft_id=item, price_nano=TON)
        available, _ = await marketplace.balance(buyer)
        if number % 3 == 0:
            priced, bought = await marketplace.race([reprice, buy])
            buy_came_first = await marketplace.seq(bought) < await marketplace.seq(priced)
        else:
            buy_came_first = number % 3 == 1
            order = [buy, reprice] if buy_came_first else [reprice, buy]
            receipts = await marketplace.in_order(order)
            bought, priced = receipts if buy_came_first else reversed(receipts)
        if buy_came_first:
            assert bought["status"] == "succeeded"
            await marketplace.assert_refused(priced, "NFT_PERMISSION_DENIED")
            assert await marketplace.nft(item) == (buyer, "held")
            assert await marketplace.balance(buyer) == (available - TON, 0)
        else:
            assert priced["status"] == "succeeded"
            await marketplace.assert_refused(bought, "PRICE_CHANGED")
            assert bought["rejection"]["price_nano"] == 2 * TON
            assert await marketplace.nft(item) == (seller, "listed")
            assert await marketplace.balance(buyer) == (available, 0)


async def test_a_sale_closes_the_trades_and_proposals_of_the_item(marketplace: Marketplace) -> None:
    """H11."""
    for _ in range(ROUNDS):
        owner, author, third = await marketplace.people(3)
        given, asked, offered = await marketplace.items([owner, owner, author], TON)
        sold_away = await marketplace.trade(owner, [given])
        on_it = await marketplace.proposal(author, sold_away, [await marketplace.item(author)])
        kept = await marketplace.trade(owner, [asked])
        proposed = await marketplace.proposal(author, kept, [offered])

        await marketplace.do("nft.buy", third, nft_id=given, price_nano=TON)
        assert await marketplace.document("trades", sold_away["trade_id"], "state", "reason") == ("closed", "sold")
        assert await marketplace.document("proposals", on_it["proposal_id"], "state") == ("closed",)
        await marketplace.refused("TRADE_NOT_OPEN", "trades.accept", owner, **on_it)

        await marketplace.do("nft.buy", third, nft_id=offered, price_nano=TON)
        assert await marketplace.document("proposals", proposed["proposal_id"], "state") == ("closed",)
        assert await marketplace.document("trades", kept["trade_id"], "state") == ("open",)
        await marketplace.refused("PROPOSAL_NOT_OPEN", "trades.accept", owner, **proposed)
        for item in (given, offered):
            assert await marketplace.nft(item) == (third, "held")


async def test_a_sale_and_the_acceptance_of_a_trade_at_once_give_the_item_to_one(marketplace: Marketplace) -> None:
    """H11: as a race over two keys."""
    for number in range(ROUNDS):
        owner, author, third = await marketplace.people(3)
        item, offered = await marketplace.items([owner, author], TON)
        proposed = await marketplace.proposal(author, await marketplace.trade(owner, [item]), [offered])
        sold = item if number % 2 else offered
        bought, accepted = await marketplace.race(
            [
                command("nft.buy", third, nft_id=sold, price_nano=TON),
                command("trades.accept", owner, **proposed),
            ]
        )
        if bought["status"] == "succeeded":
            await marketplace.assert_refused(accepted, "TRADE_NOT_OPEN" if sold == item else "PROPOSAL_NOT_OPEN")
            assert await marketplace.nft(sold) == (third, "held")
        else:
            await marketplace.assert_refused(bought, "NFT_NOT_ON_SALE")
            assert accepted["status"] == "succeeded"
            assert await marketplace.nft(sold) == (author if sold == item else owner, "held")


async def test_an_item_on_auction_belongs_to_its_auction(marketplace: Marketplace) -> None:
    """H13."""
    seller, other = await marketplace.people(2, 1_000 * TON)
    others_item = await marketplace.item(other)
    trade = await marketplace.trade(other, [others_item])
    for _ in range(ROUNDS):
        item = await marketplace.item(seller)
        auction = await marketplace.auction(seller, item)
        attempts = [
            command("nft.set_price", seller, nft_id=item, price_nano=TON),
            command("nft.set_price", seller, nft_id=item, price_nano=None),
            command("nft.buy", other, nft_id=item, price_nano=TON),
            command("offers.create", other, nft_id=item, price_nano=TON),
            command("trades.create", seller, nft_ids=[item], requirements=ANY),
            command("trades.propose", seller, **trade, nft_ids=[item]),
            command("nft.transfer", seller, nft_id=item, to_user_id=other),
            command("nft.return", seller, nft_id=item),
        ]
        for receipt in await marketplace.race(attempts):
            await marketplace.assert_refused(receipt, "NFT_ON_AUCTION")
        await marketplace.refused("AUCTION_ALREADY_EXISTS", "auctions.create", seller, nft_id=item, start_nano=TON)
        assert await marketplace.nft(item) == (seller, "on_auction")
        assert await marketplace.document("auctions", auction["auction_id"], "state") == ("active",)


async def test_nobody_trades_with_himself(marketplace: Marketplace) -> None:
    """H24."""
    me = await marketplace.person(1_000 * TON)
    channel = await marketplace.channel(me, await marketplace.old_account(me), TON)
    for _ in range(ROUNDS):
        listed, auctioned, traded, held = await marketplace.items([me] * 4)
        await marketplace.do("nft.set_price", me, nft_id=listed, price_nano=TON)
        auction = await marketplace.auction(me, auctioned)
        presale = await marketplace.presale(me, marketplace.new_id(), TON)
        trade = await marketplace.trade(me, [traded])
        attempts = [
            command("nft.buy", me, nft_id=listed, price_nano=TON),
            command("offers.create", me, nft_id=listed, price_nano=TON),
            command("auctions.place_bid", me, **auction, amount_nano=TON),
            command("presale.buy", me, **presale, price_nano=TON),
            command("trades.propose", me, **trade, nft_ids=[held]),
            command("trades.create", me, nft_ids=[held], requirements=ANY, receiver_id=me),
            command("nft.transfer", me, nft_id=held, to_user_id=me),
            command("channels.buy", me, channel_id=channel, price_nano=TON),
        ]
        for receipt in await marketplace.race(attempts):
            await marketplace.assert_refused(receipt, "SELF_TRADE_NOT_ALLOWED")


async def test_a_gift_from_a_stranger_is_received_once(marketplace: Marketplace) -> None:
    """H28."""
    for _ in range(ROUNDS):
        stranger, item = marketplace.new_id(), marketplace.new_id()
        report = {"nft_id": item, "gift": gift(item), "sender_id": stranger, "message_ref": f"message-{item}"}
        receipts = await marketplace.race([command("nft.receive", **report) for _ in range(2)])
        [second] = [receipt for receipt in receipts if receipt["status"] != "succeeded"]
        await marketplace.assert_refused(second, "INTAKE_ALREADY_RECORDED")
        assert await marketplace.nft(item) == (stranger, "held")
        assert (await marketplace.read(stranger, "/users/me"))["available_nano"] == 0


async def test_a_blocked_user_gets_back_what_is_his_and_no_more(marketplace: Marketplace) -> None:
    """H37."""
    seller, rival = await marketplace.people(2, 1_000 * TON)
    for _ in range(ROUNDS):
        blocked = await marketplace.person(10 * TON)
        listed, auctioned, other = await marketplace.items([seller] * 3)
        await marketplace.do("nft.set_price", seller, nft_id=listed, price_nano=4 * TON)
        await marketplace.do("nft.set_price", seller, nft_id=other, price_nano=TON)
        offer = await marketplace.offer(blocked, listed, 3 * TON)
        auction = await marketplace.auction(seller, auctioned)
        await marketplace.do("auctions.place_bid", blocked, **auction, amount_nano=2 * TON)
        await marketplace.do("users.block", user_id=blocked, reason="a complaint")
        assert await marketplace.balance(blocked) == (5 * TON, 5 * TON)

        await marketplace.refused("USER_BLOCKED", "nft.buy", blocked, nft_id=other, price_nano=TON)
        await marketplace.do("offers.withdraw", blocked, **offer)
        assert await marketplace.balance(blocked) == (8 * TON, 2 * TON)
        await marketplace.do("auctions.place_bid", rival, **auction, amount_nano=3 * TON)
        assert await marketplace.balance(blocked) == (10 * TON, 0)


async def test_trades_over_many_keys_at_once_leave_every_item_with_one_owner(marketplace: Marketplace) -> None:
    """Crossing trades of the same items, bought, given and swapped at once, across workers: no deadlock survives."""
    chance = random.Random(7)

    async def crossing(people: list[int], items: list[int], place: int) -> list[Command]:
        owner, other, buyer = (people[(place + step) % 4] for step in range(3))
        trade = await marketplace.trade(owner, [items[place]])
        proposed = await marketplace.proposal(other, trade, [items[(place + 1) % 4]])
        return [
            command("trades.accept", owner, **proposed),
            command("nft.buy", buyer, nft_id=items[place], price_nano=TON),
        ]

    for _ in range(ROUNDS):
        people = await marketplace.people(4)
        items = await marketplace.items(people, TON)
        crossings = await asyncio.gather(*(crossing(people, items, place) for place in range(4)))
        offers = [offer for offers in crossings for offer in offers]
        chance.shuffle(offers)
        receipts = await marketplace.race(offers)
        assert {receipt["status"] for receipt in receipts} <= {"succeeded", "rejected"}
        owners = await asyncio.gather(*(marketplace.nft(item) for item in items))
        assert all(owner in people and state == "held" for owner, state in owners)
