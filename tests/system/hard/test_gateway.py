"""The world outside: answers lost, doubled, contradicted, and things that changed there."""

import asyncio
from typing import Any

from storage.gateway.sandbox import Fault
from tests.market import TON
from tests.system.hard import ROUNDS
from tests.system.marketplace import Marketplace, command


async def test_a_payout_whose_answers_are_lost_is_looked_up_and_paid_once(marketplace: Marketplace) -> None:
    """H2."""
    users = await marketplace.people(ROUNDS)
    async with marketplace.fault(Fault.LOSE_ANSWER, "ton.pay"):
        withdrawals = [await marketplace.withdraw(user, 9 * TON) for user in users]
        await asyncio.gather(*(marketplace.until_unknown(withdrawal) for withdrawal in withdrawals))
        for user, withdrawal in zip(users, withdrawals, strict=True):
            assert await marketplace.balance(user) == (TON, 9 * TON)
            assert await marketplace.document("withdrawals", withdrawal, "state") == ("requested",)
    await asyncio.gather(*(marketplace.until_answered(withdrawal) for withdrawal in withdrawals))
    for user, withdrawal in zip(users, withdrawals, strict=True):
        first, second, *others, last = await marketplace.calls(withdrawal)
        assert [first, second] == [("perform", "unknown"), ("lookup", "unknown")]
        assert set(others) <= {("lookup", "unknown")}
        assert last == ("lookup", "done")
        assert await marketplace.effects(withdrawal) == 1
        assert await marketplace.balance(user) == (TON, 0)
        assert await confirmations(marketplace, withdrawal) == ["succeeded"]


async def confirmations(marketplace: Marketplace, document: str) -> list[str]:
    """The statuses of the answers to a document's request, but for the timer that would give it up."""
    rows = await marketplace.site.rows(
        "SELECT status FROM commands WHERE kind ~ '_(confirm|fail)$' AND run_at IS NULL"
        f" AND payload::text LIKE '%{document}%' ORDER BY seq"
    )
    return [row[0] for row in rows]


async def test_a_request_that_never_arrives_is_sent_again_under_its_reference(marketplace: Marketplace) -> None:
    """H2, when it is the request that is lost, twice: a lookup has not seen it, so it may be sent again."""
    users = await marketplace.people(ROUNDS)
    async with marketplace.fault(Fault.LOSE_REQUEST, "ton.pay", times=2 * ROUNDS):
        withdrawals = [await marketplace.withdraw(user, 9 * TON) for user in users]
        await asyncio.gather(*(marketplace.until_answered(withdrawal) for withdrawal in withdrawals))
    for user, withdrawal in zip(users, withdrawals, strict=True):
        assert await marketplace.effects(withdrawal) == 1
        assert await marketplace.balance(user) == (TON, 0)


async def test_a_request_that_was_never_attempted_is_given_up(marketplace: Marketplace) -> None:
    """H34's other side: the timer cancels what nobody attempted, and what was attempted waits for its answer."""
    hour = 3_600
    users = await marketplace.people(2 * ROUNDS)

    async def give_up(withdrawal: str) -> list[str]:
        await marketplace.age_timers(withdrawal, hour + 5)
        await marketplace.until_final("market.withdraw_fail", withdrawal)
        return await marketplace.timer_codes("market.withdraw_fail", withdrawal)

    async with marketplace.fault(Fault.LOSE_ANSWER, "ton.pay"):
        async with marketplace.no_couriers():
            withdrawals = await asyncio.gather(*(marketplace.withdraw(user, 9 * TON) for user in users))
            ignored, attempted = withdrawals[:ROUNDS], withdrawals[ROUNDS:]
            assert await asyncio.gather(*(give_up(withdrawal) for withdrawal in ignored)) == [[]] * ROUNDS
        await asyncio.gather(*(marketplace.until_unknown(withdrawal) for withdrawal in attempted))
        refused = [["REQUEST_IN_FLIGHT"]] * ROUNDS
        assert await asyncio.gather(*(give_up(withdrawal) for withdrawal in attempted)) == refused
    await asyncio.gather(*(marketplace.until_answered(withdrawal) for withdrawal in attempted))
    for user, withdrawal in zip(users, withdrawals, strict=True):
        given_up = withdrawal in ignored
        state = "cancelled" if given_up else "done"
        request = f"SELECT state FROM gateway_requests WHERE reference = '{withdrawal}'"
        assert await marketplace.site.value(request) == state
        facts = ("failed", "expired") if given_up else ("confirmed", None)
        assert await marketplace.document("withdrawals", withdrawal, "state", "reason") == facts
        assert await marketplace.balance(user) == ((10 * TON, 0) if given_up else (TON, 0))
        assert await marketplace.effects(withdrawal) == int(not given_up)


async def test_a_disconnected_account_takes_its_snapshot_and_channels_along(marketplace: Marketplace) -> None:
    """H27."""

    async def once(user: int) -> None:
        account, item = await marketplace.old_account(user), await marketplace.item(user)
        channel = await marketplace.channel(user, account, TON)
        await marketplace.until_answered((await marketplace.do("accounts.sync", user, account_id=account))["id"])
        gifts = await marketplace.read_list(user, "/accounts/gifts")
        assert gifts
        for found in gifts:
            named = {"nft_id": found["gift"]["id"], "price_nano": TON}
            await marketplace.refused("NFT_NOT_FOUND", "nft.set_price", user, **named)
        receipt = await marketplace.do("accounts.disconnect", user, account_id=account)
        assert receipt["result"]["channels_deleted"] == 1
        assert await marketplace.read_list(user, "/accounts/gifts") == []
        assert await marketplace.document("channels", channel, "state", "price_nano") == ("deleted", None)
        assert await marketplace.nft(item) == (user, "held")

    await asyncio.gather(*(once(user) for user in await marketplace.people(ROUNDS)))


async def sale(marketplace: Marketplace, account: str, seller: int) -> tuple[int, str, str]:
    """The buyer, the channel and the purchase of a channel at 5 TON."""
    buyer = await marketplace.person()
    channel = await marketplace.channel(seller, account, 5 * TON)
    bought = await marketplace.do("channels.buy", buyer, channel_id=channel, price_nano=5 * TON)
    return buyer, channel, bought["id"]


async def test_a_channel_whose_gifts_changed_is_not_sold(marketplace: Marketplace) -> None:
    """H32."""
    seller = await marketplace.person(0)
    account = await marketplace.old_account(seller)

    async def once() -> None:
        buyer, channel, purchase = await sale(marketplace, account, seller)
        await marketplace.until_answered(purchase)
        assert await marketplace.balance(buyer) == (10 * TON, 0)
        facts = await marketplace.document("channel_purchases", purchase, "state", "held_nano", "reason")
        assert facts == ("failed", 0, "gifts_modified")
        facts = await marketplace.document("channels", channel, "state", "price_nano", "reason")
        assert facts == ("refused", None, "gifts_modified")
        told = await marketplace.site.rows(
            f"SELECT name FROM events WHERE topics @> ARRAY['user:{seller}']"
            f" AND fields ->> 'channel_id' = '{channel}' ORDER BY id DESC LIMIT 2"
        )
        assert {row[0] for row in told} == {"channel.sale_failed", "channel.refused"}
        again = {"channel_id": channel, "price_nano": TON}
        await marketplace.refused("CHANNEL_NOT_READY", "channels.set_price", seller, **again)

    async with marketplace.fault(Fault.REFUSE, "channel.transfer", reason="gifts_modified"):
        await asyncio.gather(*(once() for _ in range(ROUNDS)))
    assert await marketplace.balance(seller) == (0, 0)


async def test_a_channel_on_its_way_is_reserved_and_paid_once(marketplace: Marketplace) -> None:
    """H33."""
    seller, other = await marketplace.people(2, 10 * TON)
    account = await marketplace.old_account(seller)
    sales: list[tuple[int, str, str]] = []
    async with marketplace.fault(Fault.LOSE_ANSWER, "channel.transfer"):
        for _ in range(ROUNDS):
            sales.append(await sale(marketplace, account, seller))
            channel = {"channel_id": sales[-1][1]}
            attempts = [
                command("channels.delete", seller, **channel),
                command("channels.set_price", seller, **channel, price_nano=6 * TON),
                command("channels.set_price", seller, **channel, price_nano=None),
                command("channels.add", seller, **channel, account_id=account),
                command("channels.buy", other, **channel, price_nano=5 * TON),
            ]
            for receipt in await marketplace.race(attempts):
                await marketplace.assert_refused(receipt, "CHANNEL_RESERVED")
        await marketplace.refused("ACCOUNT_IN_USE", "accounts.disconnect", seller, account_id=account)
        await asyncio.gather(*(marketplace.until_unknown(purchase) for _, _, purchase in sales))
        assert await marketplace.balance(seller) == (10 * TON, 0)
    await asyncio.gather(*(marketplace.until_answered(purchase) for _, _, purchase in sales))
    for buyer, channel_id, purchase in sales:
        assert await marketplace.balance(buyer) == (5 * TON, 0)
        assert await marketplace.document("channels", channel_id, "state") == ("sold",)
        assert await marketplace.effects(purchase) == 1
        assert await confirmations(marketplace, purchase) == ["succeeded"]
    assert await marketplace.balance(seller) == (10 * TON + ROUNDS * 4_950_000_000, 0)


async def test_an_answer_that_comes_twice_or_contradicts_another_changes_nothing(marketplace: Marketplace) -> None:
    """H34."""
    users = await marketplace.people(ROUNDS)
    for number, user in enumerate(users):
        refuse = number % 2 == 1
        fault, reason = (Fault.REFUSE, "address_rejected") if refuse else (Fault.DUPLICATE, None)
        async with marketplace.fault(fault, "ton.pay", reason=reason):
            withdrawal = await marketplace.withdraw(user, 9 * TON)
            await marketplace.until_answered(withdrawal)
        balance = await marketplace.balance(user)
        assert balance == ((10 * TON, 0) if refuse else (TON, 0))
        named = {"user_id": user, "withdrawal_id": withdrawal}
        paid: dict[str, Any] = named | {"tx_hash": "f" * 64, "logical_time": 1, "network_fee_nano": 1}
        confirmed = await marketplace.run(command("market.withdraw_confirm", **paid))
        failed = await marketplace.run(command("market.withdraw_fail", **named, reason="refused"))
        for receipt in (confirmed, failed):
            await marketplace.assert_refused(receipt, "REQUEST_NOT_OPEN")
        told = await marketplace.site.rows(
            "SELECT command_id::text, topics FROM events WHERE name = 'gateway.contradicted'"
            f" AND fields ->> 'reference' = '{withdrawal}'"
        )
        contradicting = confirmed if refuse else failed
        assert told == [(contradicting["id"], ["ops"])]
        assert await marketplace.balance(user) == balance
        if not refuse:
            assert sorted(await confirmations(marketplace, withdrawal)) == ["rejected"] * 3 + ["succeeded"]


async def test_a_return_that_the_owner_refuses_leaves_the_item_his(marketplace: Marketplace) -> None:
    """As H34, for gifts: a definite no gives the fee back."""
    async with marketplace.fault(Fault.REFUSE, "gift.transfer", reason="receiver_refused"):
        for user in await marketplace.people(ROUNDS):
            item = await marketplace.item(user)
            returned = await marketplace.do("nft.return", user, nft_id=item)
            await marketplace.until_answered(returned["id"])
            assert await marketplace.balance(user) == (10 * TON, 0)
            assert await marketplace.nft(item) == (user, "held")
            named = {"nft_id": item, "return_id": returned["id"]}
            late = await marketplace.run(command("nft.return_confirm", **named))
            await marketplace.assert_refused(late, "REQUEST_NOT_OPEN")
            assert await marketplace.nft(item) == (user, "held")
