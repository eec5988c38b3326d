"""Presales: what is fixed by the sale, and what becomes of a gift that does not come."""

from typing import Any

from tests.market import TON, gift
from tests.system.hard import ROUNDS
from tests.system.marketplace import DAY, Marketplace, command

GRACE_DAYS = 2


async def sold(marketplace: Marketplace) -> tuple[int, int, dict[str, Any]]:
    """The seller, the buyer, and what names a presale sold at 10 TON whose gift can be moved in ten days."""
    seller, buyer = await marketplace.people(2, 20 * TON)
    presale = await marketplace.presale(seller, marketplace.new_id(), 10 * TON)
    await marketplace.do("presale.buy", buyer, **presale, price_nano=10 * TON)
    assert await marketplace.balance(seller) == (18 * TON, 2 * TON)
    assert await marketplace.balance(buyer) == (10 * TON, 10 * TON)
    return seller, buyer, presale


def delivery(marketplace: Marketplace, presale: dict[str, Any], sender: int) -> dict[str, Any]:
    gift_id = presale["gift_id"]
    report = {"nft_id": gift_id, "gift": gift(gift_id), "sender_id": sender}
    return {**presale, **report, "message_ref": f"message-{marketplace.new_id()}"}


async def test_the_price_of_a_presale_is_fixed_by_its_sale(marketplace: Marketplace) -> None:
    """H8."""
    for _ in range(ROUNDS):
        seller, buyer, presale = await sold(marketplace)
        await marketplace.refused(
            "PRESALE_ALREADY_BOUGHT", "presale.set_price", seller, **presale, price_nano=1_000 * TON
        )
        await marketplace.do("presale.deliver", **delivery(marketplace, presale, seller))
        assert await marketplace.balance(seller) == (30 * TON, 0)
        assert await marketplace.balance(buyer) == (10 * TON, 0)
        assert await marketplace.nft(presale["gift_id"]) == (buyer, "held")


async def test_a_presale_is_sold_once(marketplace: Marketplace) -> None:
    """H8, when the seller re-prices while two buy."""
    for _ in range(ROUNDS):
        seller, *buyers = await marketplace.people(3, 20 * TON)
        presale = await marketplace.presale(seller, marketplace.new_id(), 10 * TON)
        wishes = [command("presale.buy", buyer, **presale, price_nano=10 * TON) for buyer in buyers]
        reprice = command("presale.set_price", seller, **presale, price_nano=11 * TON)
        *bought, priced = await marketplace.race([*wishes, reprice])
        places = {receipt["id"]: await marketplace.seq(receipt) for receipt in (*bought, priced)}
        first = min(bought, key=lambda receipt: places[receipt["id"]])
        last = max(bought, key=lambda receipt: places[receipt["id"]])
        if places[priced["id"]] < places[first["id"]]:
            assert priced["status"] == "succeeded"
            for receipt in bought:
                await marketplace.assert_refused(receipt, "PRICE_CHANGED")
            held = 2_200_000_000
        else:
            assert first["status"] == "succeeded"
            await marketplace.assert_refused(last, "PRESALE_ALREADY_BOUGHT")
            await marketplace.assert_refused(priced, "PRESALE_ALREADY_BOUGHT")
            held = 2 * TON
        assert await marketplace.balance(seller) == (20 * TON - held, held)


async def test_a_presale_that_is_not_delivered_fails_at_its_deadline_and_not_before(marketplace: Marketplace) -> None:
    """H9."""
    for _ in range(ROUNDS):
        seller, buyer, presale = await sold(marketplace)
        await marketplace.age("presales", presale["presale_id"], (10 + GRACE_DAYS) * DAY - 60)
        await marketplace.refused("PRESALE_NOT_EXPIRED", "presale.expire", **presale)
        assert await marketplace.balance(seller) == (18 * TON, 2 * TON)
        assert await marketplace.balance(buyer) == (10 * TON, 10 * TON)
        assert await marketplace.timers("presale.expire", presale["presale_id"]) == ["scheduled"]

        await marketplace.age("presales", presale["presale_id"], 65)
        await marketplace.until_final("presale.expire", presale["presale_id"])
        facts = ("state", "deposit_held_nano", "buyer_held_nano")
        assert await marketplace.document("presales", presale["presale_id"], *facts) == ("failed", 0, 0)
        assert await marketplace.balance(buyer) == (21 * TON, 0)
        assert await marketplace.balance(seller) == (18 * TON, 0)
        assert await marketplace.fees(seller, buyer) == TON


async def test_a_gift_that_a_stranger_sends_is_the_strangers_and_the_presale_goes_on(marketplace: Marketplace) -> None:
    """H10."""
    for number in range(ROUNDS):
        _, buyer, presale = await sold(marketplace)
        stranger = await marketplace.person(0)
        came = delivery(marketplace, presale, stranger)
        await marketplace.refused("PRESALE_PERMISSION_DENIED", "presale.deliver", **came)
        intake = {name: value for name, value in came.items() if name not in presale}
        await marketplace.do("nft.receive", **intake)
        assert await marketplace.nft(presale["gift_id"]) == (stranger, "held")
        facts = ("state", "deposit_held_nano", "buyer_held_nano")
        assert await marketplace.document("presales", presale["presale_id"], *facts) == ("sold", 2 * TON, 10 * TON)
        if number == 0:
            await marketplace.site.assert_sound()

        await marketplace.age("presales", presale["presale_id"], (10 + GRACE_DAYS) * DAY + 5)
        await marketplace.until_final("presale.expire", presale["presale_id"])
        assert await marketplace.document("presales", presale["presale_id"], "state") == ("failed",)
        assert await marketplace.balance(buyer) == (21 * TON, 0)
        assert await marketplace.nft(presale["gift_id"]) == (stranger, "held")


async def test_the_sellers_gift_is_delivered_and_not_received(marketplace: Marketplace) -> None:
    """H10, when the seller is the one who sends it; and the delivery races the expiry."""
    for number in range(ROUNDS):
        seller, buyer, presale = await sold(marketplace)
        deliver = delivery(marketplace, presale, seller)
        intake = {name: value for name, value in deliver.items() if name not in presale}
        rejection = await marketplace.refused("GIFT_HAS_PRESALE", "nft.receive", **intake)
        assert rejection["presale_id"] == presale["presale_id"]

        async with marketplace.hold_back():
            if number % 2:
                delivered = await marketplace.submit(command("presale.deliver", **deliver))
            await marketplace.age("presales", presale["presale_id"], (10 + GRACE_DAYS) * DAY + 5)
            await marketplace.until_accepted("presale.expire", presale["presale_id"])
            if number % 2 == 0:
                delivered = await marketplace.submit(command("presale.deliver", **deliver))
        delivered = await marketplace.final(delivered)
        await marketplace.until_final("presale.expire", presale["presale_id"])
        if number % 2:
            assert delivered["status"] == "succeeded", "a late delivery before the expiry is valid"
            assert await marketplace.timer_codes("presale.expire", presale["presale_id"]) == ["PRESALE_NOT_AVAILABLE"]
            assert await marketplace.nft(presale["gift_id"]) == (buyer, "held")
            assert await marketplace.balance(seller) == (30 * TON, 0)
        else:
            await marketplace.assert_refused(delivered, "PRESALE_NOT_AVAILABLE")
            assert await marketplace.balance(buyer) == (21 * TON, 0)
            await marketplace.do("nft.receive", **intake)
            assert await marketplace.nft(presale["gift_id"]) == (seller, "held")
