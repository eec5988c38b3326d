"""Direct sales and gifts, and items that come to the market and leave it."""

from typing import Any

from loadtest.stories.stage import Scene, Story


def trade(scene: Scene) -> Story:
    """An item is priced, re-priced, bought or given away, or somebody tries what must be refused."""
    item = yield from scene.item()
    command = scene.market.trade(item)
    yield [scene.own(command, command.foreseen)]


def rush(scene: Scene) -> Story:
    """Several want one item at the same moment: the first has it, the others hold nothing."""
    item = yield from scene.listed_item()
    price_nano, seller_id = item.price_nano or 0, item.owner_id
    winner, *late = scene.rivals(4, seller_id, nano=price_nano)
    purchase: dict[str, Any] = {"nft_id": item.nft_id, "price_nano": price_nano}
    scene.spend(winner, price_nano)
    yield [
        scene.command("nft.buy", winner, **purchase),
        *(scene.command("nft.buy", buyer, foreseen="NFT_NOT_ON_SALE", **purchase) for buyer in late),
    ]
    scene.earn(seller_id, scene.after_fee(price_nano, scene.terms.market_fee_bp))
    scene.hand_over(item, winner)


def arrival(scene: Scene) -> Story:
    """A gift nobody has seen before is sent to the bank."""
    item = yield from scene.arrival()
    scene.items.append(item)


def returned(scene: Scene) -> Story:
    """A gift goes back to its owner in Telegram, for a fee, and may come again."""
    item = yield from scene.item()
    owner_id, nft_id = item.owner_id, item.nft_id
    yield from scene.stray("NFT_PERMISSION_DENIED", "nft.return", scene.rival(owner_id), nft_id=nft_id)
    scene.spend(owner_id, scene.terms.return_fee_nano)
    asked = yield from scene.act("nft.return", owner_id, nft_id=nft_id)
    item.price_nano = None
    page = f"/v1/users/me/returns?actor={owner_id}&limit=100"
    state = yield from scene.until_ended(page, "return_id", asked["return_id"], "requested")
    if state == "failed":
        scene.earn(owner_id, scene.terms.return_fee_nano)
        return
    if scene.happens(50):
        again = scene.market.script.receive(nft_id, owner_id, item.gift, message=scene.number)
        yield [scene.own(again)]
    else:
        scene.keep(item)
