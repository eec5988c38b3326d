"""People and their money: newcomers, deposits that find their owner and deposits that do not, withdrawals, floors."""

import hashlib
from base64 import urlsafe_b64encode
from binascii import crc_hqx
from typing import Any

from loadtest.gifts import COLLECTIONS, MODELS
from loadtest.stories.stage import Scene, Story, Telling
from loadtest.workload import FUNDS_NANO, TON

NOT_BOUNCEABLE, TESTNET_ONLY, BASIC_WORKCHAIN = 0x51, 0x80, 0x00


def newcomer(scene: Scene) -> Story:
    """Somebody signs up, twice even, and deposits."""
    yield from joined(scene)


def lost_deposit(scene: Scene) -> Story:
    """A deposit names nobody: it is kept until an operator assigns it."""
    user_id, amount_nano = scene.rival(), scene.price() + TON
    memo = scene.chance.choice(["", "thanks!", "for the fox", "0"])
    report = scene.market.script.deposit(user_id, memo, amount_nano, scene.number + 1)
    [receipt] = yield [scene.own(report)]
    deposit_id = receipt["result"]["deposit_id"]
    if scene.happens(30):
        return
    claim = {"deposit_id": deposit_id, "user_id": user_id}
    yield [
        scene.command("market.assign_deposit", **claim),
        scene.command("market.assign_deposit", foreseen="DEPOSIT_NOT_UNCLAIMED", **claim),
    ]
    scene.earn(user_id, amount_nano)


def reported_twice(scene: Scene) -> Story:
    """Two feeds report one transaction: it is credited once."""
    user_id, amount_nano = scene.rival(), scene.price() + TON
    script, memo = scene.market.script, scene.market.memos[user_id]
    for foreseen in ("succeeded", "DEPOSIT_ALREADY_RECORDED"):
        yield [scene.own(script.deposit(user_id, memo, amount_nano, scene.number + 1), foreseen)]
    scene.earn(user_id, amount_nano)


def withdrawal(scene: Scene) -> Story:
    """Money goes out, and more may not go out at once."""
    user_id = next((user_id for user_id in scene.rivals(8) if user_id not in scene.market.withdrawn), None)
    if user_id is None:
        user_id = yield from joined(scene)
    scene.market.withdrawn.add(user_id)
    amount_nano = scene.price() + TON
    order: dict[str, Any] = {"amount_nano": amount_nano, "address": _address(user_id, scene.terms.ton_network)}
    scene.spend(user_id, amount_nano)
    yield from scene.act("market.withdraw", user_id, **order)
    if scene.terms.withdraw_interval_seconds >= 60:  # noqa: PLR2004
        yield from scene.stray("WITHDRAWAL_LIMIT", "market.withdraw", user_id, **order)


def blocked(scene: Scene) -> Story:
    """An operator blocks a newcomer for a while, who may take an offer back but buy nothing."""
    user_id, memo = yield from _signed_up(scene)
    item = yield from scene.listed_item()
    purchase: dict[str, Any] = {"nft_id": item.nft_id, "price_nano": item.price_nano}
    offer = yield from scene.act("offers.create", user_id, **purchase)
    yield from scene.act("users.block", user_id=user_id, reason="asked too often")
    yield from scene.act("nft.buy", user_id, foreseen="USER_BLOCKED", **purchase)
    yield from scene.act("offers.withdraw", user_id, nft_id=item.nft_id, offer_id=offer["offer_id"])
    yield from scene.act("users.unblock", user_id=user_id)
    scene.market.join(user_id, memo, FUNDS_NANO)


def floor(scene: Scene) -> Story:
    """A market's lowest price is observed."""
    collection, price_nano = scene.chance.choice(COLLECTIONS), scene.price()
    model = scene.chance.choice([None, *(name for name, _ in MODELS)])
    # Reports of one collection are sent in the order of their times.
    observed: dict[str, Any] = {
        "market": "souk",
        "collection": collection,
        "price_nano": price_nano,
        "observed_at": scene.now.isoformat(),
    }
    yield [scene.command("market.record_floor", chain=collection, **observed, **({"model": model} if model else {}))]


def joined(scene: Scene) -> Telling[int]:
    """Somebody new, with as much money as the others."""
    user_id, memo = yield from _signed_up(scene)
    scene.market.join(user_id, memo, FUNDS_NANO)
    return user_id


def _signed_up(scene: Scene) -> Telling[tuple[int, str]]:
    """A new user and the memo; nobody else knows of them yet."""
    script, user_id = scene.market.script, scene.market.new_user()
    [receipt] = yield [scene.own(script.register(user_id))]
    memo = receipt["result"]["memo"]
    yield [scene.own(script.register(user_id)), scene.own(script.deposit(user_id, memo, FUNDS_NANO, 0))]
    return user_id, memo


def _address(user_id: int, network: str) -> str:
    """A TON address of the user's, in its user-friendly form (TEP 2)."""
    tag = NOT_BOUNCEABLE | (TESTNET_ONLY if network == "testnet" else 0)
    body = bytes((tag, BASIC_WORKCHAIN)) + hashlib.sha256(str(user_id).encode()).digest()
    return urlsafe_b64encode(body + crc_hqx(body, 0).to_bytes(2)).decode()
