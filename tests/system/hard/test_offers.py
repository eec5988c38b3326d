"""Offers that end in two ways at once, or too late, or because the item goes another way."""

import asyncio

from tests.market import TON
from tests.system.hard import ROUNDS
from tests.system.marketplace import Command, Marketplace, command

HOUR = 3_600
DAY = 86_400


async def test_an_offer_ends_when_the_item_goes_another_way(marketplace: Marketplace) -> None:
    """H20."""
    for number in range(ROUNDS):
        owner, author, other = await marketplace.people(3)
        item, swapped = await marketplace.items([owner, other], 4 * TON)
        offer = await marketplace.offer(author, item, 3 * TON)
        if number % 6 == 0:
            how, new_owner, reason = command("nft.buy", other, nft_id=item, price_nano=4 * TON), other, "sold"
        elif number % 6 == 1:
            rival = await marketplace.offer(other, item, 2 * TON)
            how = command("offers.accept", owner, **rival, price_nano=2 * TON)
            new_owner, reason = other, "sold"
        elif number % 6 == 2:
            how = command("nft.transfer", owner, nft_id=item, to_user_id=other)
            new_owner, reason = other, "transferred"
        elif number % 6 == 3:
            proposed = await marketplace.proposal(other, await marketplace.trade(owner, [item]), [swapped])
            how, new_owner, reason = command("trades.accept", owner, **proposed), other, "swapped"
        elif number % 6 == 4:
            how = command("nft.return", owner, nft_id=item)
            new_owner, reason = owner, "returned"
        else:
            await marketplace.do("nft.set_price", owner, nft_id=item, price_nano=None)
            how = command("auctions.create", owner, nft_id=item, start_nano=TON)
            new_owner, reason = owner, "auctioned"
        gone = await marketplace.run(how)
        assert gone["status"] == "succeeded", gone
        if reason == "returned":
            await marketplace.until_answered(gone["id"])
        facts = await marketplace.document("offers", offer["offer_id"], "state", "held_nano", "reason")
        assert facts == ("closed", 0, reason)
        assert await marketplace.balance(author) == (10 * TON, 0)
        in_it = f"SELECT count(*) FROM events WHERE name = 'offer.closed' AND command_id = '{gone['id']}'"
        assert await marketplace.site.value(f"{in_it} AND fields ->> 'offer_id' = '{offer['offer_id']}'") == 2
        await marketplace.refused("OFFER_NOT_OPEN", "offers.accept", new_owner, **offer, price_nano=3 * TON)


async def test_of_two_ends_of_an_offer_the_first_wins(marketplace: Marketplace) -> None:
    """H21."""
    for number in range(ROUNDS):
        owner, author = await marketplace.people(2)
        item = await marketplace.item(owner, 4 * TON)
        offer = await marketplace.offer(author, item, 3 * TON)
        accept = command("offers.accept", owner, **offer, price_nano=3 * TON)
        rival = command("offers.withdraw", author, **offer) if number % 2 else command("offers.refuse", owner, **offer)
        order = [[accept, rival], [rival, accept]][number // 2 % 2]
        if number % 5:
            first, second = await marketplace.in_order(order)
        else:
            receipts = await marketplace.race(order)
            places = await asyncio.gather(*(marketplace.seq(receipt) for receipt in receipts))
            first, second = receipts if places[0] < places[1] else reversed(receipts)
        assert first["status"] == "succeeded"
        await marketplace.assert_refused(second, "OFFER_NOT_OPEN")
        if first["kind"] == "offers.accept":
            assert await marketplace.nft(item) == (author, "held")
            assert await marketplace.balance(author) == (7 * TON, 0)
        else:
            assert await marketplace.nft(item) == (owner, "listed")
            assert await marketplace.balance(author) == (10 * TON, 0)


async def test_a_counter_price_without_money_or_after_its_time_changes_nothing(marketplace: Marketplace) -> None:
    """H23."""
    for _ in range(ROUNDS):
        owner, author = await marketplace.people(2)
        item = await marketplace.item(owner, 16 * TON)
        offer = await marketplace.offer(author, item, 8 * TON)
        await marketplace.do("offers.counter", owner, **offer, price_nano=11 * TON)
        rejection = await marketplace.refused(
            "INSUFFICIENT_BALANCE", "offers.accept", author, **offer, price_nano=11 * TON
        )
        assert (rejection["required_nano"], rejection["available_nano"]) == (3 * TON, 2 * TON)
        as_before = ("open", 8 * TON, 11 * TON)
        facts = ("state", "held_nano", "counter_nano")
        assert await marketplace.document("offers", offer["offer_id"], *facts) == as_before

        # Its time is over, and an hour later its timer has still not run.
        await marketplace.age("offers", offer["offer_id"], DAY + HOUR, timers=False)
        await marketplace.deposit(author, 10 * TON)
        await marketplace.refused("OFFER_EXPIRED", "offers.accept", author, **offer, price_nano=11 * TON)
        await marketplace.refused("OFFER_EXPIRED", "offers.accept", owner, **offer, price_nano=8 * TON)
        assert await marketplace.document("offers", offer["offer_id"], *facts) == as_before

        await marketplace.age_timers(offer["offer_id"], DAY + HOUR)
        await marketplace.until_final("offers.expire", offer["offer_id"], 2)
        assert await marketplace.document("offers", offer["offer_id"], "state", "held_nano") == ("expired", 0)
        assert await marketplace.balance(author) == (20 * TON, 0)


async def test_an_offer_that_is_accepted_in_time_is_accepted_however_late_it_is_executed(
    marketplace: Marketplace,
) -> None:
    """H16, for offers: the timer comes after what came in time."""
    for _ in range(ROUNDS):
        owner, author = await marketplace.people(2)
        item = await marketplace.item(owner, 4 * TON)
        offer = await marketplace.offer(author, item, 3 * TON)
        accept: Command = command("offers.accept", owner, **offer, price_nano=3 * TON)
        async with marketplace.hold_back() as connection:
            receipt = await marketplace.submit(accept)
            await marketplace.age("offers", offer["offer_id"], DAY + 30, connection=connection)
            await marketplace.set_acceptance(
                receipt,
                f"SELECT expires_at - interval '1 millisecond' FROM offers WHERE id = '{offer['offer_id']}'",
                connection,
            )
        assert (await marketplace.final(receipt))["status"] == "succeeded"
        await marketplace.until_final("offers.expire", offer["offer_id"])
        assert await marketplace.timers("offers.expire", offer["offer_id"]) == ["rejected"]
        assert await marketplace.nft(item) == (author, "held")
