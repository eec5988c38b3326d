"""Presales: gifts that Telegram does not let go yet, sold beforehand against a deposit."""

from datetime import datetime, timedelta
from typing import Any

from loadtest.stories.stage import Scene, Story, Telling
from loadtest.workload import TON

FAR_OFF = timedelta(days=3)
"""When most gifts become transferable: no run lasts until then."""
SOON_SECONDS = 5.0
"""When those do that are never delivered: what the delivery may take from then on, the terms say."""


class Presale:
    """One presale as its story knows it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.seller_id = scene.rival()
        self.gift = scene.market.new_gift()
        self.price_nano = 0
        self.deposit_nano = 0
        self.presale_id = ""

    @property
    def names(self) -> dict[str, Any]:
        return {"gift_id": self.gift["id"], "presale_id": self.presale_id}

    def register(self, transferable_at: datetime, foreseen: str = "succeeded") -> Telling[bool]:
        facts = {
            "gift_id": self.gift["id"],
            "gift": self.gift,
            "seller_id": self.seller_id,
            "transferable_at": transferable_at.isoformat(),
        }
        registered = yield from self.scene.act("presale.register", foreseen=foreseen, **facts)
        if registered:
            self.presale_id = registered["presale_id"]
            yield from self.scene.stray("PRESALE_ALREADY_EXISTS", "presale.register", None, **facts)
        return bool(registered)

    def set_price(self) -> Telling[None]:
        """The deposit follows the price."""
        scene, price_nano = self.scene, self.scene.price()
        stranger = scene.rival(self.seller_id)
        yield from scene.stray(
            "PRESALE_PERMISSION_DENIED", "presale.set_price", stranger, **self.names, price_nano=price_nano
        )
        deposit_nano = price_nano * scene.terms.presale_deposit_bp // 10_000
        scene.spend(self.seller_id, deposit_nano - self.deposit_nano)
        yield from scene.act("presale.set_price", self.seller_id, **self.names, price_nano=price_nano)
        self.price_nano, self.deposit_nano = price_nano, deposit_nano

    def buy(self) -> Telling[int]:
        scene, price_nano = self.scene, self.price_nano
        buyer_id = scene.rival(self.seller_id, nano=price_nano)
        for code, actor, nano in (
            ("SELF_TRADE_NOT_ALLOWED", self.seller_id, price_nano),
            ("PRICE_CHANGED", buyer_id, price_nano + TON),
            ("INSUFFICIENT_BALANCE", scene.chance.choice(scene.market.poor), price_nano),
        ):
            yield from scene.stray(code, "presale.buy", actor, **self.names, price_nano=nano)
        scene.spend(buyer_id, price_nano)
        yield from scene.act("presale.buy", buyer_id, **self.names, price_nano=price_nano)
        return buyer_id

    def deliver(self, owner_id: int) -> Telling[None]:
        """The seller's gift arrives at the bank, for the buyer if there is one."""
        scene, gift = self.scene, self.gift
        arrived = {
            "nft_id": gift["id"],
            "gift": gift,
            "sender_id": self.seller_id,
            "message_ref": f"{scene.market.script.run}/presale/{gift['id']}",
        }
        yield from scene.stray("GIFT_HAS_PRESALE", "nft.receive", None, **arrived)
        delivered = {**self.names, **arrived}
        yield from scene.act("presale.deliver", **delivered)
        scene.earn(self.seller_id, self.deposit_nano)
        scene.items.append(scene.market.add_item(owner_id, gift))
        yield from scene.stray("PRESALE_NOT_AVAILABLE|INTAKE_ALREADY_RECORDED", "presale.deliver", None, **delivered)


def delivered(scene: Scene) -> Story:
    """Sold at its price, and delivered: the buyer has the item, the seller the money and the deposit."""
    presale = yield from _on_sale(scene)
    buyer_id = yield from presale.buy()
    yield from scene.stray(
        "PRESALE_ALREADY_BOUGHT", "presale.set_price", presale.seller_id, **presale.names, price_nano=TON
    )
    yield from scene.stray("PRESALE_ALREADY_BOUGHT", "presale.delete", presale.seller_id, **presale.names)
    yield from presale.deliver(buyer_id)
    scene.earn(presale.seller_id, scene.after_fee(presale.price_nano, scene.terms.presale_fee_bp))


def never_delivered(scene: Scene) -> Story:
    """Sold, and the gift never comes: at the deadline the buyer has the price back, and a penalty from the deposit."""
    presale, price_nano, in_time = Presale(scene), scene.price(), "succeeded|PRESALE_EXPIRED"
    if not (yield from presale.register(scene.soon(SOON_SECONDS), in_time)):
        return
    offer: dict[str, Any] = {**presale.names, "price_nano": price_nano}
    scene.spend(presale.seller_id, price_nano * scene.terms.presale_deposit_bp // 10_000)
    if (yield from scene.act("presale.set_price", presale.seller_id, foreseen=in_time, **offer)):
        buyer_id = scene.rival(presale.seller_id, nano=price_nano)
        scene.spend(buyer_id, price_nano)
        yield from scene.act("presale.buy", buyer_id, foreseen=in_time, **offer)


def delivered_unsold(scene: Scene) -> Story:
    """Nobody bought it by the time it arrives: it is the seller's."""
    presale = yield from _on_sale(scene)
    yield from presale.deliver(presale.seller_id)


def deleted(scene: Scene) -> Story:
    """The seller takes it off the market, and a buyer comes too late."""
    presale = yield from _on_sale(scene)
    buyer_id = scene.rival(presale.seller_id)
    yield [
        scene.command("presale.delete", presale.seller_id, **presale.names),
        scene.command(
            "presale.buy", buyer_id, foreseen="PRESALE_NOT_AVAILABLE", **presale.names, price_nano=presale.price_nano
        ),
    ]
    scene.earn(presale.seller_id, presale.deposit_nano)


def _on_sale(scene: Scene) -> Telling[Presale]:
    presale = Presale(scene)
    yield from presale.register(scene.now + FAR_OFF)
    for _ in range(scene.chance.randint(1, 3)):
        yield from presale.set_price()
    return presale
