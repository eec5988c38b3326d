"""Offers: made below the listed price, haggled over, and ended in each of the ways there are."""

from typing import Any, NamedTuple

from loadtest.stories.stage import Scene, Story, Telling
from loadtest.workload import Item

UNKNOWN = "00000000-0000-7000-8000-000000000000"


class Offer(NamedTuple):
    item: Item
    offer_id: str
    author_id: int
    price_nano: int

    @property
    def names(self) -> dict[str, Any]:
        return {"nft_id": self.item.nft_id, "offer_id": self.offer_id}


def accepted(scene: Scene) -> Story:
    """One of several offers is accepted, and the others get their money back."""
    item = yield from scene.listed_item()
    offers: list[Offer] = []
    for author_id in scene.rivals(scene.chance.randint(1, 3), item.owner_id, nano=item.price_nano or 0):
        offers += [(yield from _offer(scene, item, author_id))]
    best = max(offers, key=lambda offer: offer.price_nano)
    yield from scene.stray(
        "PRICE_CHANGED", "offers.accept", item.owner_id, **best.names, price_nano=best.price_nano + 1
    )
    yield from scene.stray("OFFER_NO_COUNTER", "offers.accept", best.author_id, **best.names, price_nano=1_000_000_000)
    yield from scene.act("offers.accept", item.owner_id, **best.names, price_nano=best.price_nano)
    _settled(scene, best, best.price_nano)
    for offer in offers:
        if offer is not best:
            scene.earn(offer.author_id, offer.price_nano)
    yield from scene.stray("OFFER_NOT_OPEN", "offers.withdraw", best.author_id, **best.names)


def countered(scene: Scene) -> Story:
    """The owner names another price, twice sometimes, and the author pays it."""
    offer = yield from _single_offer(scene)
    agreed_nano = 0
    for _ in range(scene.chance.randint(1, 2)):
        agreed_nano = offer.price_nano * scene.chance.randint(95, 130) // 100
        yield from scene.act("offers.counter", offer.item.owner_id, **offer.names, price_nano=agreed_nano)
    stranger = scene.rival(offer.item.owner_id, offer.author_id)
    yield from scene.stray("OFFER_PERMISSION_DENIED", "offers.accept", stranger, **offer.names, price_nano=agreed_nano)
    scene.spend(offer.author_id, agreed_nano - offer.price_nano)
    yield from scene.act("offers.accept", offer.author_id, **offer.names, price_nano=agreed_nano)
    _settled(scene, offer, agreed_nano)


def refused(scene: Scene) -> Story:
    """The owner turns an offer down."""
    offer = yield from _single_offer(scene)
    yield from scene.stray("OFFER_PERMISSION_DENIED", "offers.refuse", offer.author_id, **offer.names)
    yield from scene.act("offers.refuse", offer.item.owner_id, **offer.names)
    scene.earn(offer.author_id, offer.price_nano)


def withdrawn(scene: Scene) -> Story:
    """The author takes an offer back; accepting it comes too late."""
    offer = yield from _single_offer(scene)
    late: dict[str, Any] = {**offer.names, "price_nano": offer.price_nano}
    yield [
        scene.command("offers.withdraw", offer.author_id, **offer.names),
        scene.command("offers.accept", offer.item.owner_id, foreseen="OFFER_NOT_OPEN", **late),
    ]
    scene.earn(offer.author_id, offer.price_nano)


def closed_by_a_sale(scene: Scene) -> Story:
    """Somebody pays the listed price while an offer is open, or its author does."""
    offer = yield from _single_offer(scene)
    item, price_nano = offer.item, offer.item.price_nano or 0
    seller_id = item.owner_id
    buyer_id = scene.chance.choice([offer.author_id, scene.rival(seller_id, nano=price_nano)])
    scene.spend(buyer_id, price_nano)
    yield from scene.act("nft.buy", buyer_id, nft_id=item.nft_id, price_nano=price_nano)
    scene.earn(offer.author_id, offer.price_nano)
    scene.earn(seller_id, scene.after_fee(price_nano, scene.terms.market_fee_bp))
    scene.hand_over(item, buyer_id)
    yield from scene.stray("OFFER_NOT_OPEN", "offers.accept", seller_id, **offer.names, price_nano=offer.price_nano)


def _single_offer(scene: Scene) -> Telling[Offer]:
    item = yield from scene.listed_item()
    author_id = scene.rival(item.owner_id, nano=item.price_nano or 0)
    return (yield from _offer(scene, item, author_id))


def _offer(scene: Scene, item: Item, author_id: int) -> Telling[Offer]:
    asked_nano = item.price_nano or 0
    price_nano = asked_nano * scene.chance.randint(60, 100) // 100
    too_low_nano = asked_nano * (scene.terms.offer_min_bp - 500) // 10_000
    for code, actor, nano in (
        ("OFFER_PRICE_TOO_LOW", author_id, too_low_nano),
        ("SELF_TRADE_NOT_ALLOWED", item.owner_id, price_nano),
        ("INSUFFICIENT_BALANCE", scene.chance.choice(scene.market.poor), price_nano),
    ):
        yield from scene.stray(code, "offers.create", actor, nft_id=item.nft_id, price_nano=nano)
    scene.spend(author_id, price_nano)
    made = yield from scene.act("offers.create", author_id, nft_id=item.nft_id, price_nano=price_nano)
    yield from scene.stray(
        "OFFER_ALREADY_EXISTS", "offers.create", author_id, nft_id=item.nft_id, price_nano=price_nano
    )
    yield from scene.stray("OFFER_NOT_FOUND", "offers.refuse", item.owner_id, nft_id=item.nft_id, offer_id=UNKNOWN)
    return Offer(item, made["offer_id"], author_id, price_nano)


def _settled(scene: Scene, offer: Offer, agreed_nano: int) -> None:
    scene.earn(offer.item.owner_id, scene.after_fee(agreed_nano, scene.terms.market_fee_bp))
    scene.hand_over(offer.item, offer.author_id)
