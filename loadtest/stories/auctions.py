"""Auctions: opened, fought over, extended by late bids, settled or cancelled.

How much of an auction one sees depends on the shortest that the terms allow. When it lasts seconds, a busy machine may
take a bid after the end: then either outcome is as foreseen.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from loadtest.pace import Command
from loadtest.stories.stage import OffScript, Receipt, Rest, Scene, Story, Telling
from loadtest.workload import Item

BRIEF_SECONDS = 30
"""An auction this short may end before a bid arrives."""
STEP_BP = 500
RIVALS_MAX = 4
LATE_SECONDS = 0.5
SETTLE_MARGIN_SECONDS = 0.3


class Auction:
    """One auction as its story knows it."""

    def __init__(self, scene: Scene, item: Item, start_nano: int) -> None:
        self.scene = scene
        self.item = item
        self.start_nano = start_nano
        self.leading_nano = 0
        self.leader_id = 0
        self.auction_id = ""
        self.over = False
        self.ends = 0.0
        """By our clock."""
        brief = scene.terms.auction_duration_min_seconds < BRIEF_SECONDS
        self.too_late = "|AUCTION_EXPIRED|AUCTION_NOT_ACTIVE" if brief else ""

    @property
    def names(self) -> dict[str, Any]:
        return {"nft_id": self.item.nft_id, "auction_id": self.auction_id}

    def open(self) -> Telling[None]:
        scene, item = self.scene, self.item
        terms: dict[str, Any] = {
            "nft_id": item.nft_id,
            "start_nano": self.start_nano,
            "step_bp": STEP_BP,
            "duration_seconds": scene.terms.auction_duration_min_seconds,
        }
        yield from scene.stray("NFT_PERMISSION_DENIED", "auctions.create", scene.rival(item.owner_id), **terms)
        [opened] = yield [scene.command("auctions.create", item.owner_id, **terms)]
        self.auction_id = opened["result"]["auction_id"]
        self._ends_with(opened)

    def bid(self, bidders: Sequence[int]) -> Telling[None]:
        """All of them bid in the same moment, each above the one before."""
        scene, commands, amounts, leading_nano = self.scene, [], [], self.leading_nano
        for bidder_id in bidders:
            least_nano = leading_nano + max(1, leading_nano * STEP_BP // 10_000) if leading_nano else self.start_nano
            leading_nano = least_nano + least_nano * scene.chance.randint(0, 10) // 100
            scene.spend(bidder_id, leading_nano)
            amounts.append((bidder_id, leading_nano))
            commands.append(self._command("auctions.place_bid", bidder_id, amount_nano=leading_nano))
        receipts = yield commands
        for (bidder_id, amount_nano), receipt in zip(amounts, receipts, strict=True):
            if receipt["status"] == "succeeded":
                scene.earn(self.leader_id, self.leading_nano)
                self.leader_id, self.leading_nano = bidder_id, amount_nano
                self._ends_with(receipt)
            else:
                scene.earn(bidder_id, amount_nano)
                self.over = True

    def strays(self) -> Telling[None]:
        """What people try while an auction runs."""
        scene, seller_id = self.scene, self.item.owner_id
        stranger = scene.rival(seller_id)
        taken = "NFT_ON_AUCTION|NFT_NOT_ON_SALE" if self.too_late else "NFT_ON_AUCTION"
        purchase: dict[str, Any] = {"nft_id": self.item.nft_id, "price_nano": self.start_nano}
        yield from scene.stray(taken, "nft.buy", stranger, **purchase)
        yield from scene.stray(taken, "offers.create", stranger, **purchase)
        for code, kind, actor, more in (
            ("SELF_TRADE_NOT_ALLOWED", "auctions.place_bid", seller_id, {"amount_nano": self.leading_nano * 2}),
            ("BID_TOO_LOW", "auctions.place_bid", stranger, {"amount_nano": self.leading_nano}),
            ("AUCTION_HAS_BIDS", "auctions.cancel", seller_id, {}),
            ("AUCTION_PERMISSION_DENIED", "auctions.cancel", stranger, {}),
        ):
            if self.leading_nano:
                yield from scene.stray(code + self.too_late, kind, actor, **self.names, **more)
        if not self.too_late:
            yield from scene.stray("AUCTION_NOT_EXPIRED", "auctions.settle", stranger, **self.names)

    def end(self) -> Telling[None]:
        """Whoever is quicker settles, the timer or the seller; both come to the same."""
        scene, seller_id = self.scene, self.item.owner_id
        while True:
            yield Rest(self.ends + scene.terms.timer_grace_seconds + SETTLE_MARGIN_SECONDS - scene.clock())
            foreseen = "succeeded|AUCTION_NOT_ACTIVE|AUCTION_NOT_EXPIRED"
            [receipt] = yield [scene.command("auctions.settle", seller_id, foreseen=foreseen, **self.names)]
            if (receipt.get("rejection") or {}).get("code") != "AUCTION_NOT_EXPIRED":
                break
            self.ends = scene.clock()
        result = receipt.get("result")
        if result and result.get("buyer_id", 0) != self.leader_id:
            raise OffScript(f"auction {self.auction_id} went to {result}, and {self.leader_id} led")
        if self.leader_id:
            scene.earn(seller_id, scene.after_fee(self.leading_nano, scene.terms.auction_fee_bp))
            scene.hand_over(self.item, self.leader_id)

    def _command(self, kind: str, actor: int, **payload: Any) -> Command:
        return self.scene.command(kind, actor, foreseen="succeeded" + self.too_late, **self.names, **payload)

    def _ends_with(self, receipt: Receipt) -> None:
        """The server's clock tells how long the auction still ran when it answered."""
        left = datetime.fromisoformat(receipt["result"]["ends_at"]) - datetime.fromisoformat(receipt["finished_at"])
        self.ends = self.scene.clock() + left.total_seconds()


def contested(scene: Scene) -> Story:
    """Rivals outbid each other, one raises the own bid, and the last bids come in the last moments."""
    auction = yield from _opened(scene)
    bidders = scene.rivals(scene.chance.randint(2, RIVALS_MAX), auction.item.owner_id, nano=auction.start_nano * 4)
    for _ in range(scene.chance.randint(1, 3)):
        if not auction.over:
            yield from auction.bid([scene.chance.choice(bidders) for _ in range(scene.chance.randint(1, 4))])
            yield from auction.strays()
    if not auction.over and scene.happens(40):
        yield Rest(auction.ends - LATE_SECONDS - scene.clock())
        yield from auction.bid([scene.chance.choice(bidders)])
    yield from auction.end()


def unwanted(scene: Scene) -> Story:
    """Nobody bids, and the item stays where it is."""
    auction = yield from _opened(scene)
    yield from auction.strays()
    yield from auction.end()


def cancelled(scene: Scene) -> Story:
    """The seller thinks better of it; a bid comes too late."""
    auction = yield from _opened(scene)
    seller_id, late = auction.item.owner_id, scene.rival(auction.item.owner_id, nano=auction.start_nano)
    [receipt, _] = yield [
        scene.command("auctions.cancel", seller_id, foreseen="succeeded" + auction.too_late, **auction.names),
        scene.command(
            "auctions.place_bid",
            late,
            foreseen="AUCTION_NOT_ACTIVE" + auction.too_late,
            **auction.names,
            amount_nano=auction.start_nano,
        ),
    ]
    if receipt["status"] != "succeeded":
        yield from auction.end()


def _opened(scene: Scene) -> Telling[Auction]:
    """An auction of a free item. A listed one is refused first, now and then."""
    item = yield from scene.item()
    start_nano = scene.price() // 2
    if item.price_nano is not None:
        yield from scene.stray(
            "NFT_LISTED", "auctions.create", item.owner_id, nft_id=item.nft_id, start_nano=start_nano,
            duration_seconds=scene.terms.auction_duration_min_seconds,
        )  # fmt: skip
        yield from scene.set_price(item, None)
    auction = Auction(scene, item, start_nano)
    yield from auction.open()
    return auction
