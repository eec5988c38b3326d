"""Payloads that are valid, for tests to send or to spoil, and a small marketplace to trade on."""

from typing import Any

from commands.users import memo_of

TON = 1_000_000_000
WALLET = "test-wallet"


def gift(gift_id: int, **changes: Any) -> dict[str, Any]:
    facts = {
        "id": str(gift_id),
        "collection": "Plush Pepe",
        "num": gift_id % 10_000 + 1,
        "model": "Cozy",
        "pattern": "Stars",
        "backdrop": "Onyx",
        "model_permille": 12,
        "pattern_permille": 5,
        "backdrop_permille": 20,
        "center_color": 0x112233,
        "edge_color": 0x445566,
        "pattern_color": 0x778899,
        "text_color": 0xFFFFFF,
        "slug": f"PlushPepe-{gift_id}",
    }
    return facts | changes


def register(user_id: int) -> dict[str, Any]:
    return {"kind": "users.register", "payload": {"user_id": user_id}}


def deposit(memo: str, amount_nano: int, number: int) -> dict[str, Any]:
    """A deposit; the number tells it from others."""
    transfer = {"wallet": WALLET, "logical_time": number, "hash": f"{number:064x}"}
    return {"kind": "market.deposit", "payload": transfer | {"amount_nano": amount_nano, "memo": memo}}


def fund(user_id: int, amount_nano: int = 1_000 * TON) -> dict[str, Any]:
    return deposit(memo_of(user_id), amount_nano, user_id)


def receive(nft_id: int, owner_id: int, **changes: Any) -> dict[str, Any]:
    payload = {"nft_id": nft_id, "sender_id": owner_id, "message_ref": f"message-{nft_id}"}
    return {"kind": "nft.receive", "payload": payload | {"gift": gift(nft_id, **changes)}}


def set_price(actor: int, nft_id: int, price_nano: int | None = TON) -> dict[str, Any]:
    return {"kind": "nft.set_price", "actor": actor, "payload": {"nft_id": nft_id, "price_nano": price_nano}}


def buy(actor: int, nft_id: int, price_nano: int = TON) -> dict[str, Any]:
    return {"kind": "nft.buy", "actor": actor, "payload": {"nft_id": nft_id, "price_nano": price_nano}}


def transfer(actor: int, nft_id: int, to_user_id: int) -> dict[str, Any]:
    return {"kind": "nft.transfer", "actor": actor, "payload": {"nft_id": nft_id, "to_user_id": to_user_id}}
