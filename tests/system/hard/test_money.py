"""Money that is wanted twice at once, and money that comes in."""

import asyncio

from commands.users import memo_of
from tests.market import TON, WALLET
from tests.system.hard import ROUNDS
from tests.system.marketplace import ADDRESS, Marketplace, command


async def test_money_for_one_purchase_buys_one(marketplace: Marketplace) -> None:
    """H4."""
    buyers = await marketplace.people(ROUNDS)
    sellers = await marketplace.people(2, 0)
    for buyer in buyers:
        items = await marketplace.items(sellers, 9 * TON)
        receipts = await marketplace.race(
            [command("nft.buy", buyer, nft_id=item, price_nano=9 * TON) for item in items]
        )
        [won] = [place for place, receipt in enumerate(receipts) if receipt["status"] == "succeeded"]
        lost = 1 - won
        await marketplace.assert_refused(receipts[lost], "INSUFFICIENT_BALANCE")
        assert receipts[lost]["rejection"]["required_nano"] == 9 * TON
        assert receipts[lost]["rejection"]["available_nano"] == TON
        assert await marketplace.nft(items[won]) == (buyer, "held")
        assert await marketplace.nft(items[lost]) == (sellers[lost], "listed")
        assert await marketplace.balance(buyer) == (TON, 0)


async def test_of_three_withdrawals_at_once_one_is_paid(marketplace: Marketplace) -> None:
    """H1. Where there is no interval between withdrawals, see test_terms."""
    for user in await marketplace.people(ROUNDS):
        wishes = [command("market.withdraw", user, amount_nano=9 * TON, address=ADDRESS) for _ in range(3)]
        receipts = await marketplace.race(wishes)
        [paid] = [receipt for receipt in receipts if receipt["status"] == "succeeded"]
        for receipt in receipts:
            if receipt is not paid:
                await marketplace.assert_refused(receipt, "WITHDRAWAL_LIMIT")
                assert receipt["rejection"]["retry_at"]
        await marketplace.until_answered(paid["id"])
        assert await marketplace.balance(user) == (TON, 0)
        payouts = "SELECT reference::text, body ->> 'amount_nano', calls FROM sandbox_effects WHERE op = 'ton.pay'"
        ids = ", ".join(f"'{receipt['id']}'" for receipt in receipts)
        assert await marketplace.site.rows(f"{payouts} AND reference IN ({ids})") == [(paid["id"], "8990000000", 1)]


async def test_money_that_comes_and_goes_at_once_is_all_counted(marketplace: Marketplace) -> None:
    """H5."""
    fee = 9 * TON // 100
    buyers, others = await marketplace.people(ROUNDS), await marketplace.people(ROUNDS)
    sellers = await marketplace.people(ROUNDS, 0)
    for buyer, other, seller in zip(buyers, others, sellers, strict=True):
        items = await marketplace.items([seller, seller], 9 * TON)
        number = marketplace.new_id()
        came = {"wallet": WALLET, "logical_time": number, "hash": f"{number:064x}", "amount_nano": 5 * TON}
        receipts = await marketplace.race(
            [
                command("market.deposit", memo=memo_of(buyer), **came),
                command("nft.buy", buyer, nft_id=items[0], price_nano=9 * TON),
                command("nft.buy", other, nft_id=items[1], price_nano=9 * TON),
            ]
        )
        assert {receipt["status"] for receipt in receipts} == {"succeeded"}
        assert await marketplace.balance(buyer) == (6 * TON, 0)
        assert await marketplace.balance(other) == (TON, 0)
        assert await marketplace.balance(seller) == (2 * (9 * TON - fee), 0)


async def test_only_what_is_available_can_be_spent(marketplace: Marketplace) -> None:
    """H22."""
    authors = await marketplace.people(ROUNDS)
    seller = await marketplace.person(0)
    for author in authors:
        first, second = await marketplace.items([seller, seller], 8 * TON)
        await marketplace.offer(author, first, 5 * TON)
        assert await marketplace.balance(author) == (5 * TON, 5 * TON)
        await marketplace.offer(author, second, 4 * TON)
        assert await marketplace.balance(author) == (TON, 9 * TON)
        rejection = await marketplace.refused(
            "INSUFFICIENT_BALANCE", "market.withdraw", author, amount_nano=2 * TON, address=ADDRESS
        )
        assert (rejection["required_nano"], rejection["available_nano"]) == (2 * TON, TON)


async def test_two_deposits_alike_are_two_and_one_reported_twice_is_one(marketplace: Marketplace) -> None:
    """H25."""
    for user in await marketplace.people(ROUNDS, 0):
        first, second = marketplace.new_id(), marketplace.new_id()
        like = {"wallet": WALLET, "amount_nano": TON, "memo": memo_of(user)}
        alike = [
            command("market.deposit", **like, logical_time=number, hash=f"{first:064x}") for number in (first, second)
        ]
        receipts = await marketplace.race(alike)
        assert {receipt["status"] for receipt in receipts} == {"succeeded"}
        assert await marketplace.balance(user) == (2 * TON, 0)

        third = marketplace.new_id()
        reported = [
            command("market.deposit", **like, logical_time=third, hash=f"{third:064x}") for _ in ("one feed", "another")
        ]
        receipts = await marketplace.race([*reported, reported[0]._replace()])
        assert receipts[0] == receipts[2]
        [refused] = [receipt for receipt in receipts[:2] if receipt["status"] != "succeeded"]
        await marketplace.assert_refused(refused, "DEPOSIT_ALREADY_RECORDED")
        assert await marketplace.balance(user) == (3 * TON, 0)
        rows = await marketplace.site.rows(f"SELECT count(*) FROM deposits WHERE user_id = {user}")
        assert rows == [(3,)]


async def test_a_deposit_that_is_nobodys_is_recorded_and_assigned_once(marketplace: Marketplace) -> None:
    """H26."""
    users = await marketplace.people(2, 0)
    before = [await marketplace.balance(user) for user in users]
    for _ in range(ROUNDS):
        unknown = memo_of(marketplace.new_id())
        for memo, amount, reason in (
            ("", 2 * TON, "memo_unreadable"),
            (unknown, 3 * TON, "user_unknown"),
            (memo_of(users[0]), 1, "below_minimum"),
        ):
            number = marketplace.new_id()
            facts = {"wallet": WALLET, "logical_time": number, "hash": f"{number:064x}"}
            deposit = await marketplace.do("market.deposit", **facts, amount_nano=amount, memo=memo)
            kept = await marketplace.document("deposits", deposit["id"], "state", "amount_nano", "user_id", "reason")
            assert kept == ("unclaimed", amount, None, reason)
            assert [await marketplace.balance(user) for user in users] == before

            receipts = await marketplace.race(
                [command("market.assign_deposit", deposit_id=deposit["id"], user_id=user) for user in users]
            )
            [won] = [place for place, receipt in enumerate(receipts) if receipt["status"] == "succeeded"]
            await marketplace.assert_refused(receipts[1 - won], "DEPOSIT_NOT_UNCLAIMED")
            before[won] = (before[won][0] + amount, 0)
            assert [await marketplace.balance(user) for user in users] == before


async def test_amounts_are_exact_to_the_last_nano(marketplace: Marketplace) -> None:
    """H29. What a client shows as TON it sends as nanoTON, and nothing else is taken."""
    seller, buyer = await marketplace.people(2, 0)
    for typed in (2.01, "2.01", 2_010_000_000.5, "2010000000"):
        sent = command("nft.set_price", seller, nft_id=1, price_nano=typed).as_json()
        answer = await marketplace.site.client.post("/v1/commands", json=sent)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    for _ in range(ROUNDS):
        for price, fee in ((2_010_000_000, 20_100_000), (10_000_001, 100_000), (99_999_999_999_999, 999_999_999_999)):
            await asyncio.gather(*(marketplace.drain(user) for user in (seller, buyer)))
            await marketplace.do("market.adjust", user_id=buyer, amount_nano=price, reason="the price")
            fees = await marketplace.fees(seller, buyer)
            item = await marketplace.item(seller, price)
            bought = await marketplace.do("nft.buy", buyer, nft_id=item, price_nano=price)
            assert (bought["result"]["price_nano"], bought["result"]["fee_nano"]) == (price, fee)
            assert await marketplace.balance(seller) == (price - fee, 0)
            assert await marketplace.balance(buyer) == (0, 0)
            assert await marketplace.fees(seller, buyer) == fees + fee
