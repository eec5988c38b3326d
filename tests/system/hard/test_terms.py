"""Terms that change, and terms of other installations: a site of its own, whose workers are started anew."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from tests.installation import Installer
from tests.market import TON, gift
from tests.system.conftest import IMPATIENT
from tests.system.hard import ROUNDS
from tests.system.marketplace import ADDRESS, ANY, DAY, Marketplace, command, open_marketplace
from tests.system.site import end

COLLECTION = "Hard Terms"
DEARER = {
    "market_fee_bp": 500,
    "auction_fee_bp": 1_000,
    "trade_fee_bp": 900,
    "channel_fee_bp": 700,
    "presale_fee_bp": 600,
    "presale_deposit_bp": 4_000,
    "presale_penalty_bp": 3_000,
    "withdraw_fee_nano": TON // 20,
}


@pytest.fixture
async def changing(installer: Installer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Marketplace]:
    """Withdrawals may follow each other at once."""
    settings = await installer.install(partitions=8, lease_seconds=1.0, withdraw_interval_seconds=0, **IMPATIENT)
    async with open_marketplace(settings, tmp_path_factory.mktemp("terms") / "logs", 1) as marketplace:
        yield marketplace


async def make_dearer(marketplace: Marketplace) -> None:
    """Start the worker anew with other fees."""
    site = marketplace.site
    site.settings = site.settings.model_copy(update=DEARER)
    worker, _ = site.processes
    assert end(worker, signal.SIGTERM) == 0
    site.start_worker()


async def test_where_withdrawals_need_no_interval_the_balance_bounds_them(changing: Marketplace) -> None:
    """H1."""
    for user in await changing.people(ROUNDS):
        wishes = [command("market.withdraw", user, amount_nano=9 * TON, address=ADDRESS) for _ in range(3)]
        receipts = await changing.race(wishes)
        [paid] = [receipt for receipt in receipts if receipt["status"] == "succeeded"]
        for receipt in receipts:
            if receipt is not paid:
                await changing.assert_refused(receipt, "INSUFFICIENT_BALANCE")
        await changing.until_answered(paid["id"])
        assert await changing.balance(user) == (TON, 0)


class Deals:
    """One of each, opened under the old terms and completed under the new ones."""

    def __init__(self, marketplace: Marketplace, account: str, channel_seller: int) -> None:
        self.marketplace = marketplace
        self.account = account
        self.channel_seller = channel_seller

    async def open(self) -> None:
        marketplace = self.marketplace
        self.seller, self.buyer = await marketplace.people(2, 100 * TON)
        self.listed, self.wanted, self.auctioned, self.given = await marketplace.items([self.seller] * 4)
        for item in (self.listed, self.wanted):
            await marketplace.do("nft.set_price", self.seller, nft_id=item, price_nano=10 * TON)
        self.offer = await marketplace.offer(self.buyer, self.wanted, 10 * TON)
        self.auction = await marketplace.auction(self.seller, self.auctioned, 10 * TON)
        await marketplace.do("auctions.place_bid", self.buyer, **self.auction, amount_nano=10 * TON)
        trade = await marketplace.trade(self.seller, [self.given], requirements=[{**ANY[0], "collection": COLLECTION}])
        swapped = await marketplace.item(self.buyer, collection=COLLECTION)
        self.proposal = await marketplace.proposal(self.buyer, trade, [swapped])
        self.presale = await marketplace.presale(self.seller, marketplace.new_id(), 10 * TON)
        self.failing = await marketplace.presale(self.seller, marketplace.new_id(), 10 * TON)
        await marketplace.do("presale.buy", self.buyer, **self.failing, price_nano=10 * TON)
        self.channel = await marketplace.channel(self.channel_seller, self.account, 10 * TON)

    async def complete(self) -> None:
        """Each at the rate that it was opened under."""
        marketplace, buyer, seller = self.marketplace, self.buyer, self.seller
        sold = await marketplace.do("nft.buy", buyer, nft_id=self.listed, price_nano=10 * TON)
        assert sold["result"]["fee_nano"] == TON // 10
        sold = await marketplace.do("offers.accept", seller, **self.offer, price_nano=10 * TON)
        assert sold["result"]["fee_nano"] == TON // 10
        await marketplace.age("auctions", self.auction["auction_id"], DAY)
        await marketplace.until_final("auctions.settle", self.auction["auction_id"])
        deal = f"SELECT fee_nano FROM deals JOIN deal_items ON deal_id = id WHERE nft_id = {self.auctioned}"
        assert await marketplace.site.value(deal) == TON // 2
        sold = await marketplace.do("trades.accept", seller, **self.proposal)
        assert sold["result"]["fee_nano"] == 5 * TON * 2 // 100
        await self._complete_presales()
        bought = await marketplace.do("channels.buy", buyer, channel_id=self.channel, price_nano=10 * TON)
        await marketplace.until_answered(bought["id"])
        assert await marketplace.document("deals", bought["id"], "fee_nano") == (TON // 10,)

    async def _complete_presales(self) -> None:
        marketplace, buyer, seller = self.marketplace, self.buyer, self.seller
        await marketplace.do("presale.buy", buyer, **self.presale, price_nano=10 * TON)
        gift_id = self.presale["gift_id"]
        report = {"nft_id": gift_id, "gift": gift(gift_id), "sender_id": seller, "message_ref": f"message-{gift_id}"}
        delivered = await marketplace.do("presale.deliver", **self.presale, **report)
        assert await marketplace.document("deals", delivered["id"], "fee_nano") == (0,)
        available, held = await marketplace.balance(buyer)
        await marketplace.age("presales", self.failing["presale_id"], 12 * DAY + 5)
        await marketplace.until_final("presale.expire", self.failing["presale_id"])
        assert await marketplace.balance(buyer) == (available + 11 * TON, held - 10 * TON)


async def test_what_is_open_keeps_its_terms_when_they_change(changing: Marketplace) -> None:
    """H35."""
    observed = await changing.site.value("SELECT clock_timestamp()")
    floor = {"market": "souk", "collection": COLLECTION, "price_nano": 5 * TON, "observed_at": observed.isoformat()}
    await changing.do("market.record_floor", **floor)
    channel_seller = await changing.person(0)
    account = await changing.old_account(channel_seller)
    rounds = [Deals(changing, account, channel_seller) for _ in range(ROUNDS)]
    await asyncio.gather(*(deals.open() for deals in rounds))
    async with changing.no_couriers():
        user = await changing.person()
        withdrawal = await changing.withdraw(user)
        await make_dearer(changing)
    await changing.until_answered(withdrawal)
    assert await changing.document("withdrawals", withdrawal, "fee_nano") == (TON // 100,)
    await asyncio.gather(*(deals.complete() for deals in rounds))

    item = await changing.item(user, TON)
    assert await changing.document("nfts", item, "fee_bp") == (DEARER["market_fee_bp"],)
