"""Acts: commands before it is known which documents there are, so that random ones are worth sending.

An act is five small choices; what it comes to is read off the model of the marketplace (see binding.py).
"""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import strategies as st

from tests.commands.model.market import Limits

TON = 10**9
USERS = (1, 2, 3, 4)
STRANGER = 5
"""Not registered until somebody's gift or presale makes it known."""
ANYBODY = (*USERS, STRANGER)
ITEMS = (1, 2, 3, 4)
GIFTS = (*ITEMS, 5, 6)
"""The last two are nowhere at first."""
PRICES = (TON, 2 * TON, 3 * TON + 49)
CHANNELS = (1, 2)
PHONES = ("+10000001", "+10000002")
NOBODY = UUID(int=0)
WALLET = "EQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACV51"
ADDRESS = "EQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAd99"

LIMITS = Limits(
    offers_per_item=2, proposals_per_trade=2, trades_per_item=2, withdrawn_daily_nano=5 * TON, wallet=WALLET
)

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "people": (
        *("users.register", "users.block", "users.unblock", "users.unblock", "users.unblock", "users.unblock"),
        *("market.deposit", "market.deposit", "market.assign_deposit", "market.adjust", "market.adjust"),
    ),
    "items": ("nft.receive", "nft.set_price", "nft.set_price", "nft.clear_price", "nft.buy", "nft.buy", "nft.transfer"),
    "offers": ("offers.create", "offers.withdraw", "offers.refuse", "offers.counter", "offers.accept", "offers.expire"),
    "auctions": ("auctions.create", "auctions.cancel", "auctions.place_bid", "auctions.place_bid", "auctions.settle"),
    "presales": (
        *("presale.register", "presale.set_price", "presale.clear_price", "presale.delete", "presale.buy"),
        *("presale.buy", "presale.deliver", "presale.expire"),
    ),
    "trades": (
        *("trades.create", "trades.propose", "trades.propose", "trades.accept", "trades.accept", "trades.accept"),
        *("trades.delete", "trades.withdraw_proposal", "trades.decline", "market.record_floor", "market.record_floor"),
    ),
    "money out": ("market.withdraw", "market.withdraw", "market.withdraw_confirm", "market.withdraw_fail"),
    "returns": ("nft.return", "nft.return_confirm", "nft.return_fail"),
    "accounts": (
        *("accounts.connect", "accounts.connect_confirm", "accounts.connect_fail", "accounts.approve"),
        *("accounts.approve_confirm", "accounts.approve_confirm", "accounts.approve_fail", "accounts.disconnect"),
        *("accounts.sync", "accounts.sync_confirm", "accounts.sync_confirm", "accounts.sync_fail"),
        *("accounts.send_gift", "accounts.send_gift_confirm", "accounts.send_gift_fail"),
    ),
    "channels": (
        *("channels.add", "channels.add_confirm", "channels.add_fail", "channels.set_price", "channels.set_price"),
        *("channels.clear_price", "channels.delete", "channels.buy", "channels.buy", "channels.buy_confirm"),
        "channels.buy_fail",
    ),
}


GROUND: Mapping[str, tuple[str, tuple[str, ...], str | None]] = {
    "nft.buy": ("items", ("listed",), "nft.set_price"),
    "nft.set_price": ("items", ("held", "listed"), None),
    "nft.clear_price": ("items", ("listed",), "nft.set_price"),
    "nft.transfer": ("items", ("held", "listed"), None),
    "nft.return": ("items", ("held", "listed"), None),
    "nft.return_confirm": ("returns", ("requested",), "nft.return"),
    "nft.return_fail": ("returns", ("requested",), "nft.return"),
    "offers.create": ("items", ("listed",), "nft.set_price"),
    **{
        f"offers.{verb}": ("offers", ("open",), "offers.create") for verb in ("withdraw", "refuse", "counter", "accept")
    },
    "offers.expire": ("offers", ("open",), "offers.create"),
    "auctions.create": ("items", ("held",), "nft.clear_price"),
    **{f"auctions.{verb}": ("auctions", ("active",), "auctions.create") for verb in ("cancel", "place_bid", "settle")},
    "presale.set_price": ("presales", ("registered", "listed"), "presale.register"),
    "presale.clear_price": ("presales", ("listed",), "presale.set_price"),
    "presale.delete": ("presales", ("registered", "listed"), "presale.register"),
    "presale.buy": ("presales", ("listed",), "presale.set_price"),
    "presale.deliver": ("presales", ("sold",), "presale.buy"),
    "presale.expire": ("presales", ("sold",), "presale.buy"),
    "trades.delete": ("trades", ("open",), "trades.create"),
    "trades.propose": ("trades", ("open",), "trades.create"),
    **{f"trades.{verb}": ("proposals", ("open",), "trades.propose") for verb in ("accept", "decline")},
    "trades.withdraw_proposal": ("proposals", ("open",), "trades.propose"),
    "market.assign_deposit": ("deposits", ("unclaimed",), "market.deposit"),
    "market.withdraw_confirm": ("withdrawals", ("requested",), "market.withdraw"),
    "market.withdraw_fail": ("withdrawals", ("requested",), "market.withdraw"),
    "accounts.connect_confirm": ("accounts", ("requested",), "accounts.connect"),
    "accounts.connect_fail": ("accounts", ("requested",), "accounts.connect"),
    "accounts.approve": ("accounts", ("code_sent",), "accounts.connect_confirm"),
    "accounts.approve_confirm": ("accounts", ("signing_in",), "accounts.approve"),
    "accounts.approve_fail": ("accounts", ("signing_in",), "accounts.approve"),
    **{
        f"accounts.{verb}": ("accounts", ("connected",), "accounts.approve_confirm")
        for verb in ("sync", "sync_confirm", "sync_fail", "send_gift", "send_gift_confirm", "send_gift_fail")
    },
    "accounts.disconnect": ("accounts", ("connected",), "accounts.approve_confirm"),
    "channels.add": ("accounts", ("connected",), "accounts.approve_confirm"),
    "channels.add_confirm": ("channels", ("checking",), "channels.add"),
    "channels.add_fail": ("channels", ("checking",), "channels.add"),
    "channels.set_price": ("channels", ("unlisted", "listed"), "channels.add_confirm"),
    "channels.clear_price": ("channels", ("listed",), "channels.set_price"),
    "channels.delete": ("channels", ("checking", "unlisted", "listed"), "channels.add_confirm"),
    "channels.buy": ("channels", ("listed",), "channels.set_price"),
    "channels.buy_confirm": ("purchases", ("requested",), "channels.buy"),
    "channels.buy_fail": ("purchases", ("requested",), "channels.buy"),
}
"""What a command is about, and what has to be done first when there is none."""


class Act(NamedTuple):
    """`party` 0 is whoever the command is for, else a user; `price` 0 is the one that was seen, else one of PRICES;
    `pick` tells the document: those in a state for it come first, the latest first; 3 names it with another parent, 4
    names none. With 0 or 1, an act whose ground is missing lays it instead.
    """

    kind: str
    party: int
    item: int
    price: int
    pick: int


_PARTIES = (*[0] * 12, *USERS, STRANGER)
_PRICES = (*[0] * 6, 1, 2, 3)
_PICKS = (*[0] * 9, *[1] * 6, 2, 3, 4)
WRONG_PARENT, NONE = 3, 4


def acts(family: str) -> st.SearchStrategy[Act]:
    kinds, choices = st.sampled_from(FAMILIES[family]), (_PARTIES, ITEMS, _PRICES, _PICKS)
    return st.builds(Act, kinds, *(st.sampled_from(choice) for choice in choices))


def random_acts(chance: random.Random, number: int) -> list[Act]:
    """Of three families each time, so that what they open meets."""
    families = chance.sample(sorted(FAMILIES), 3)
    kinds = [chance.choice(FAMILIES[chance.choice(families)]) for _ in range(number)]
    choices = (_PARTIES, ITEMS, _PRICES, _PICKS)
    return [Act(kind, *(chance.choice(choice) for choice in choices)) for kind in kinds]


class Command(NamedTuple):
    """A command on the wire, and its actor."""

    kind: str
    fields: dict[str, Any]
    actor: int | None


def collection_of(gift_id: int) -> str:
    """Of the first three, and of the others."""
    return "Pepe" if gift_id <= 3 else "Cap"


def gift(gift_id: int) -> dict[str, Any]:
    return {
        "id": gift_id,
        "collection": collection_of(gift_id),
        "num": gift_id,
        "model": "Gold" if gift_id % 2 else "Iron",
        "pattern": "Stars",
        "backdrop": "red" if gift_id in (1, 4) else "blue",
        "model_permille": 5,
        "pattern_permille": 10,
        "backdrop_permille": 20,
        "center_color": 1,
        "edge_color": 2,
        "pattern_color": 3,
        "text_color": 4,
        "slug": f"gift-{gift_id}",
    }


def deposit(user_id: int, amount_nano: int, number: int) -> Command:
    transfer = {"wallet": WALLET, "logical_time": number, "hash": f"{number:064x}"}
    memo = f"{user_id}0{user_id}" if user_id else "nobody"
    return Command("market.deposit", transfer | {"amount_nano": amount_nano, "memo": memo}, None)


ACCOUNT, CHANNEL = UUID(int=15), 1
"""What the opening opens: a connected account and its channel."""


def opening() -> list[Command]:
    """Four users with some money; two items of the first two each, one of them listed; an account and its channel."""
    commands = [Command("users.register", {"user_id": user_id}, None) for user_id in USERS]
    commands += [deposit(user_id, 6 * TON, user_id) for user_id in USERS]
    for nft_id in ITEMS:
        fields = {
            "nft_id": nft_id,
            "gift": gift(nft_id),
            "sender_id": (nft_id + 1) // 2,
            "message_ref": f"first {nft_id}",
        }
        commands.append(Command("nft.receive", fields, None))
    for nft_id, owner_id in ((2, 1), (3, 2)):
        commands.append(Command("nft.set_price", {"nft_id": nft_id, "price_nano": 2 * TON}, owner_id))
    assert len(commands) + 1 == ACCOUNT.int
    names = {"user_id": 1, "account_id": ACCOUNT}
    found = {"telegram_id": 69, "stars": 5, "premium": True}
    inside = {"title": "A channel", "is_creator": True, "gifts": [{"gift": gift(1), "quantity": 2}], "gifts_hash": "h"}
    return [
        *commands,
        Command("accounts.connect", {"phone": "+10000000"}, 1),
        Command("accounts.connect_confirm", names, None),
        Command("accounts.approve", {"account_id": ACCOUNT, "code": "12345", "name": "main"}, 1),
        Command("accounts.approve_confirm", names | {"approve_id": UUID(int=17)} | found, None),
        Command("channels.add", {"channel_id": CHANNEL, "account_id": ACCOUNT}, 1),
        Command("channels.add_confirm", {"channel_id": CHANNEL, "check_id": UUID(int=19)} | inside, None),
    ]
