"""A marketplace with every document there is, in every state that money or items depend on; nobody works there."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from commands.users import memo_of
from storage.settings import Settings
from tests.api.api import Api, running
from tests.installation import connected
from tests.market import TON, deposit, fund, gift, receive, register
from tests.system.marketplace import ADDRESS, ANY, DAY

ALICE, BOB, CAROL, DAVE = 1, 2, 3, 4
SOLD, GIVEN, LISTED, HELD, TRADED, SWAPPED, AUCTIONED, WON, RETURNING, RETURNED, OFFERED, BOUGHT = range(10, 22)
PRESOLD, PRELISTED, PREREGISTERED, FAILED, DELIVERED = range(30, 35)
CHANNEL, SELLING, CHECKING = range(40, 43)
OTHERS_ITEM = 50

Names = dict[str, Any]
"""What damage and findings are written with: `{auction}` is the id of the active auction, and so on."""


class Bazaar:
    """Commands are sent and executed one after another; whoever answers for the world outside is an operator."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def do(self, kind: str, actor: int | None = None, /, **payload: Any) -> str:
        """The id of a command that succeeds."""
        sent = {"kind": kind, "actor": actor, "payload": payload, "idempotency_key": uuid4().hex}
        [receipt] = await self._api.settle([sent])
        assert receipt["status"] == "succeeded", receipt
        return str(receipt["id"])

    async def refuse(self, kind: str, actor: int, /, **payload: Any) -> str:
        """The id of a command that is refused."""
        [receipt] = await self._api.settle([{"kind": kind, "actor": actor, "payload": payload}])
        assert receipt["status"] == "rejected", receipt
        return str(receipt["id"])

    async def past(self, table: str, id_: str) -> None:
        """Everything about a document happened a month ago, and its timer is due."""
        month = "- interval '30 days'"
        columns = {"auctions": ("ends_at", "planned_ends_at"), "presales": ("transferable_at", "deadline_at")}[table]
        moves = ", ".join(f"{column} = {column} {month}" for column in columns)
        async with connected(self._api.settings) as connection:
            await connection.execute(f"UPDATE {table} SET {moves} WHERE id = '{id_}'")
            await connection.execute(
                f"UPDATE commands SET status = 'accepted', accepted_at = now(), run_at = run_at {month}"
                f" WHERE status = 'scheduled' AND payload::text LIKE '%{id_}%'"
            )
            await connection.execute(
                f"UPDATE commands SET status = 'cancelled', finished_at = now()"
                f" WHERE status = 'accepted' AND payload::text LIKE '%{id_}%'"
            )


async def build(settings: Settings) -> Names:
    async with running(settings) as api:
        bazaar = Bazaar(api)
        people = (ALICE, BOB, CAROL, DAVE)
        items = (*range(SOLD, BOUGHT + 1), OTHERS_ITEM)
        receipts = await api.settle(
            [
                *(register(user) for user in people),
                *(fund(user) for user in people[:3]),
                deposit("nobody's", TON, 77),
                deposit(memo_of(404), TON, 78),
                *(receive(item, CAROL if item == OTHERS_ITEM else ALICE) for item in items),
            ]
        )
        assert {receipt["status"] for receipt in receipts} == {"succeeded"}
        names: Names = {"alice": ALICE, "bob": BOB, "carol": CAROL, "dave": DAVE}
        names["assigned"] = receipts[len(people) + 4]["id"]
        names["registered"] = receipts[0]["id"]
        await bazaar.do("market.assign_deposit", deposit_id=names["assigned"], user_id=DAVE)
        for part in (sell, auction, presell, swap, withdraw_and_return, connect_and_sell_channels):
            names |= await part(bazaar)
        names["refused"] = await bazaar.refuse("nft.buy", BOB, nft_id=HELD, price_nano=TON)
    return names


async def sell(bazaar: Bazaar) -> Names:
    for item in (SOLD, LISTED, OFFERED, BOUGHT):
        await bazaar.do("nft.set_price", ALICE, nft_id=item, price_nano=4 * TON)
    sold = await bazaar.do("nft.buy", BOB, nft_id=SOLD, price_nano=4 * TON)
    given = await bazaar.do("nft.transfer", ALICE, nft_id=GIVEN, to_user_id=CAROL)
    offer = await bazaar.do("offers.create", BOB, nft_id=OFFERED, price_nano=3 * TON)
    accepted = await bazaar.do("offers.create", BOB, nft_id=BOUGHT, price_nano=3 * TON)
    await bazaar.do("offers.accept", ALICE, nft_id=BOUGHT, offer_id=accepted, price_nano=3 * TON)
    names = {"deal": sold, "transfer": given, "offer": offer, "accepted": accepted}
    return names | {"sold": SOLD, "given": GIVEN, "listed": LISTED, "held": HELD, "offered": OFFERED}


async def auction(bazaar: Bazaar) -> Names:
    auctions, bids = [], []
    for item in (AUCTIONED, WON):
        auctions.append(await bazaar.do("auctions.create", ALICE, nft_id=item, start_nano=TON))
        named = {"nft_id": item, "auction_id": auctions[-1]}
        for user, amount_nano in ((CAROL, TON), (BOB, 2 * TON), (BOB, 3 * TON)):
            bids.append(await bazaar.do("auctions.place_bid", user, **named, amount_nano=amount_nano))
    await bazaar.past("auctions", auctions[1])
    await bazaar.do("auctions.settle", BOB, nft_id=WON, auction_id=auctions[1])
    names = {"auction": auctions[0], "won_auction": auctions[1], "auctioned": AUCTIONED, "won": WON}
    lost, raised, winning = bids[3:]
    return names | {"lost": lost, "raised": raised, "winning": winning}


async def presell(bazaar: Bazaar) -> Names:
    presales = {}
    for gift_id in (PRESOLD, PRELISTED, PREREGISTERED, FAILED, DELIVERED):
        transferable_at = datetime.now(UTC) + timedelta(days=10)
        facts = {"gift": gift(gift_id), "seller_id": ALICE, "transferable_at": transferable_at.isoformat()}
        presales[gift_id] = await bazaar.do("presale.register", gift_id=gift_id, **facts)
        named = {"gift_id": gift_id, "presale_id": presales[gift_id]}
        if gift_id != PREREGISTERED:
            await bazaar.do("presale.set_price", ALICE, **named, price_nano=10 * TON)
        if gift_id in (PRESOLD, FAILED, DELIVERED):
            await bazaar.do("presale.buy", BOB, **named, price_nano=10 * TON)
    await bazaar.past("presales", presales[FAILED])
    await bazaar.do("presale.expire", gift_id=FAILED, presale_id=presales[FAILED])
    report = {"nft_id": DELIVERED, "gift": gift(DELIVERED), "sender_id": ALICE, "message_ref": "a delivery"}
    await bazaar.do("presale.deliver", gift_id=DELIVERED, presale_id=presales[DELIVERED], **report)
    return {
        "presold": presales[PRESOLD],
        "prelisted": presales[PRELISTED],
        "preregistered": presales[PREREGISTERED],
        "failed": presales[FAILED],
        "presold_gift": PRESOLD,
        "delivered": presales[DELIVERED],
        "delivered_item": DELIVERED,
    }


async def swap(bazaar: Bazaar) -> Names:
    swapped = await bazaar.do("trades.create", ALICE, nft_ids=[SWAPPED], requirements=ANY)
    proposed = await bazaar.do("trades.propose", CAROL, trade_id=swapped, nft_ids=[OTHERS_ITEM])
    await bazaar.do("trades.accept", ALICE, trade_id=swapped, proposal_id=proposed)
    trade = await bazaar.do("trades.create", ALICE, nft_ids=[TRADED], requirements=ANY)
    proposal = await bazaar.do("trades.propose", CAROL, trade_id=trade, nft_ids=[GIVEN])
    names = {"trade": trade, "proposal": proposal, "traded": TRADED, "swapped": SWAPPED, "swapped_trade": swapped}
    return names | {"proposed": proposed}


async def withdraw_and_return(bazaar: Bazaar) -> Names:
    out = {"amount_nano": 5 * TON, "address": ADDRESS}
    withdrawals = [await bazaar.do("market.withdraw", user, **out) for user in (BOB, CAROL)]
    named = {"user_id": CAROL, "withdrawal_id": withdrawals[1]}
    paid = {"tx_hash": "f" * 64, "logical_time": 1, "network_fee_nano": 7}
    confirmed = await bazaar.do("market.withdraw_confirm", **named, **paid)
    returns = [await bazaar.do("nft.return", ALICE, nft_id=item) for item in (RETURNING, RETURNED)]
    await bazaar.do("nft.return_confirm", nft_id=RETURNED, return_id=returns[1])
    names = {"withdrawal": withdrawals[0], "paid": withdrawals[1], "payout": confirmed}
    return names | {"return": returns[0], "returned": returns[1], "returning": RETURNING, "external": RETURNED}


async def connect_and_sell_channels(bazaar: Bazaar) -> Names:
    account = await bazaar.do("accounts.connect", ALICE, phone="+70000000001")
    named = {"user_id": ALICE, "account_id": account}
    await bazaar.do("accounts.connect_confirm", **named)
    approve = await bazaar.do("accounts.approve", ALICE, account_id=account, code="12345", name="mine")
    signed_in = {"telegram_id": 1, "stars": 0, "premium": False}
    await bazaar.do("accounts.approve_confirm", **named, approve_id=approve, **signed_in)
    async with connected(bazaar._api.settings) as connection:
        await connection.execute(f"UPDATE telegram_accounts SET connected_at = now() - interval '{2 * DAY} seconds'")
    connecting = await bazaar.do("accounts.connect", CAROL, phone="+70000000002")
    checks = {}
    for channel in (CHANNEL, SELLING, CHECKING):
        checks[channel] = await bazaar.do("channels.add", ALICE, channel_id=channel, account_id=account)
        if channel != CHECKING:
            shown = {"title": "Gifts", "is_creator": True, "gifts": [{"gift": gift(900), "quantity": 1}]}
            await bazaar.do(
                "channels.add_confirm", channel_id=channel, check_id=checks[channel], gifts_hash="h", **shown
            )
            await bazaar.do("channels.set_price", ALICE, channel_id=channel, price_nano=2 * TON)
    purchase = await bazaar.do("channels.buy", BOB, channel_id=SELLING, price_nano=2 * TON)
    names = {"account": account, "connecting": connecting, "purchase": purchase, "check": checks[CHECKING]}
    return names | {"channel": CHANNEL, "selling": SELLING, "checking": CHECKING}
