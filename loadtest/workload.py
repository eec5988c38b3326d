"""A seeded marketplace: who is there, what they own, and an endless stream of trades among them.

The stream is a function of the seed alone. It plays every command on a small model of owners and prices first, so
nearly all succeed, and each of the others carries the code with which it must be refused: the model foresees every
outcome, however many commands are under way, because those of one item are sent in order. What takes several commands,
each made from the answer to the last, is a story (`loadtest.stories`), told on the same marketplace.
"""

import hashlib
import random
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import Any

from pydantic_core import to_json

from loadtest.gifts import gift
from loadtest.pace import Command

TON = 1_000_000_000
FUNDS_NANO = 100_000 * TON
"""What each user starts with: the greatest deposit that is credited without an operator."""
RESERVE_NANO = FUNDS_NANO // 5
"""Users with less buy nothing more: the model may count income that is still under way."""
PRICE_MIN_NANO, PRICE_MAX_NANO = TON // 20, 2_000 * TON
FEE_BP = 100
POOR_PERCENT = 3
"""Users without a deposit; they try to buy, and cannot."""
WALLET = "UQAbcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ"

LISTED_ACTS = (
    ("buy", 66), ("reprice", 12), ("unlist", 4), ("give", 3), ("buy at a stale price", 6), ("buy one's own", 3),
    ("buy without money", 4), ("price another's", 2),
)  # fmt: skip
HELD_ACTS = (("list", 84), ("give", 8), ("buy unlisted", 6), ("price another's", 2))
_ACTS = {
    listed: ([act for act, _ in table], list(accumulate(weight for _, weight in table)))
    for listed, table in ((True, LISTED_ACTS), (False, HELD_ACTS))
}
TAKES = 16
"""Draws before an item that nobody has plans for counts as not to be found."""


class Script:
    """Builds commands, each with an idempotency key of its own: `<run>-<number>`."""

    def __init__(self, run: str) -> None:
        self.run = run
        self._numbers = count()

    def command(
        self,
        kind: str,
        payload: dict[str, Any],
        chain: str,
        *,
        actor: int | None = None,
        foreseen: str = "succeeded",
        tag: Any = None,
    ) -> Command:
        idempotency_key = f"{self.run}-{next(self._numbers)}"
        body: dict[str, Any] = {"kind": kind, "payload": payload, "idempotency_key": idempotency_key}
        if actor is not None:
            body["actor"] = actor
        return Command(to_json(body), chain, foreseen, tag)

    def register(self, user_id: int) -> Command:
        payload = {"user_id": user_id}
        return self.command("users.register", payload, f"user:{user_id}", actor=user_id, tag=user_id)

    def deposit(self, user_id: int, memo: str, amount_nano: int, number: int) -> Command:
        """`number` tells the user's deposits apart."""
        digest = hashlib.sha256(f"{self.run} deposit {user_id} {number}".encode()).hexdigest()
        payload = {
            "wallet": WALLET,
            "logical_time": 1 + int(digest[:12], 16),
            "hash": digest,
            "amount_nano": amount_nano,
            "memo": memo,
        }
        return self.command("market.deposit", payload, f"user:{user_id}")

    def receive(self, nft_id: int, owner_id: int, facts: dict[str, Any], message: int = 0) -> Command:
        """`message` tells the arrivals of the same gift apart."""
        payload = {
            "nft_id": nft_id,
            "gift": facts,
            "sender_id": owner_id,
            "message_ref": f"{self.run}/{nft_id}/{message}",
        }
        return self.command("nft.receive", payload, f"nft:{nft_id}")

    def set_price(self, nft_id: int, actor: int, price_nano: int | None, **more: Any) -> Command:
        payload = {"nft_id": nft_id, "price_nano": price_nano}
        return self.command("nft.set_price", payload, f"nft:{nft_id}", actor=actor, **more)

    def buy(self, nft_id: int, actor: int, price_nano: int, **more: Any) -> Command:
        payload = {"nft_id": nft_id, "price_nano": price_nano}
        return self.command("nft.buy", payload, f"nft:{nft_id}", actor=actor, **more)

    def transfer(self, nft_id: int, actor: int, to_user_id: int, **more: Any) -> Command:
        payload = {"nft_id": nft_id, "to_user_id": to_user_id}
        return self.command("nft.transfer", payload, f"nft:{nft_id}", actor=actor, **more)


@dataclass(slots=True)
class Item:
    """`taken`: some story is about it, and no other may be."""

    nft_id: int
    owner_id: int
    price_nano: int | None = None
    gift: dict[str, Any] = field(default_factory=dict)
    taken: bool = False


class Marketplace:
    """Ids of users and items start above `base`; `run` makes keys and references its own."""

    def __init__(self, *, seed: int, users: int, items: int, skew: float, base: int, run: str) -> None:
        if users < 4:  # noqa: PLR2004
            raise ValueError("a marketplace needs at least 4 users: two who trade, one who looks on, one without money")
        self.chance = random.Random(seed)
        self.script = Script(run)
        poor = max(1, users * POOR_PERCENT // 100)
        ids = [base + number for number in range(1, users + 1)]
        self.traders, self.poor = ids[poor:], ids[:poor]
        self.money = dict.fromkeys(self.traders, FUNDS_NANO)
        self.items = [Item(base + number, self.chance.choice(self.traders)) for number in range(1, items + 1)]
        # The hottest items first: the weight of rank r is r^-skew.
        self.by_heat = self.chance.sample(self.items, items)
        self._skew = skew
        self._heat = list(accumulate((rank**-skew for rank in range(1, items + 1)), initial=0.0))[1:]
        self._owners = {item.nft_id: item.owner_id for item in self.items}
        self.memos: dict[int, str] = {}
        self.withdrawn: set[int] = set()
        """Users who may not withdraw again so soon."""
        self.accounts: list[Any] = []
        """Connected Telegram accounts that no story is about."""
        self._users, self._numbers = count(base + users + 1), count(base + items + 1)

    # -- setting up

    def registrations(self) -> Iterator[Command]:
        for user_id in (*self.poor, *self.traders):
            yield self.script.register(user_id)

    def deposits(self, memos: Mapping[int, str]) -> Iterator[Command]:
        self.memos.update(memos)
        for user_id in self.traders:
            yield self.script.deposit(user_id, memos[user_id], FUNDS_NANO, 0)

    def intakes(self) -> Iterator[Command]:
        for number, item in enumerate(self.items, 1):
            item.gift = gift(self.chance, item.nft_id, number)
            yield self.script.receive(item.nft_id, item.owner_id, item.gift)

    def listings(self, items: Iterable[Item], price_nano: int) -> Iterator[Command]:
        for item in items:
            item.price_nano = price_nano
            yield self.script.set_price(item.nft_id, item.owner_id, price_nano)

    # -- trading

    def purchases(self, items: Iterable[Item]) -> Iterator[Command]:
        """Each of the listed items is bought by somebody else, at its price."""
        for item in items:
            yield self._buy(item)

    def commands(self) -> Iterator[Command]:
        """The mixed stream: listings, purchases, re-pricings, gifts, and a share that must be refused."""
        while True:
            yield self.trade(self._hot())

    def trade(self, item: Item) -> Command:
        """Something that one does with an item in its present state."""
        names, weights = _ACTS[item.price_nano is not None]
        return self._act(names[bisect(weights, self.chance.random() * weights[-1])], item)

    def note(self, command: Command, receipt: Mapping[str, Any]) -> None:
        """Keeps the owner that a receipt proves."""
        if command.tag is not None and receipt.get("status") == "succeeded":
            nft_id, self._owners[nft_id] = command.tag

    def owners(self) -> Mapping[int, int]:
        """By item, as the receipts tell."""
        return self._owners

    def as_json(self) -> dict[str, Any]:
        return {}

    def _act(self, act: str, item: Item) -> Command:
        nft_id, owner_id, price_nano = item.nft_id, item.owner_id, item.price_nano or self.price()
        match act:
            case "list" | "reprice":
                item.price_nano = self.price()
                return self.script.set_price(nft_id, owner_id, item.price_nano)
            case "unlist":
                item.price_nano = None
                return self.script.set_price(nft_id, owner_id, None)
            case "give":
                item.owner_id, item.price_nano = self.other_than(owner_id), None
                return self.script.transfer(nft_id, owner_id, item.owner_id, tag=(nft_id, item.owner_id))
            case "buy at a stale price":
                actor = self.other_than(owner_id)
                return self.script.buy(nft_id, actor, price_nano + TON // 100, foreseen="PRICE_CHANGED")
            case "buy one's own":
                return self.script.buy(nft_id, owner_id, price_nano, foreseen="SELF_TRADE_NOT_ALLOWED")
            case "buy without money":
                actor = self.chance.choice(self.poor)
                return self.script.buy(nft_id, actor, price_nano, foreseen="INSUFFICIENT_BALANCE")
            case "buy unlisted":
                actor = self.other_than(owner_id)
                return self.script.buy(nft_id, actor, price_nano, foreseen="NFT_NOT_ON_SALE")
            case "price another's":
                actor = self.other_than(owner_id)
                return self.script.set_price(nft_id, actor, price_nano, foreseen="NFT_PERMISSION_DENIED")
            case _:
                return self._buy(item)

    def _buy(self, item: Item) -> Command:
        price_nano = item.price_nano
        if price_nano is None:
            message = f"item {item.nft_id} is not listed"
            raise ValueError(message)
        buyer_id = self.other_than(item.owner_id, least_nano=RESERVE_NANO + price_nano)
        self.money[buyer_id] -= price_nano
        self.money[item.owner_id] += price_nano - price_nano * FEE_BP // 10_000
        item.owner_id, item.price_nano = buyer_id, None
        return self.script.buy(item.nft_id, buyer_id, price_nano, tag=(item.nft_id, buyer_id))

    # -- for stories

    def take(self) -> Item | None:
        """An item that no story is about, a hot one rather; None when there is hardly any."""
        for _ in range(TAKES):
            item = self._hot()
            if not item.taken:
                item.taken = True
                return item
        return None

    def add_item(self, owner_id: int, facts: dict[str, Any]) -> Item:
        """One more, taken, the coldest of all."""
        item = Item(facts["id"], owner_id, gift=facts, taken=True)
        self.items.append(item)
        self.by_heat.append(item)
        self._heat.append(self._heat[-1] + len(self.items) ** -self._skew)
        return item

    def new_gift(self) -> dict[str, Any]:
        """One that nobody has seen before; what is taken into custody gets its gift's id."""
        number = next(self._numbers)
        return gift(self.chance, number, number % 1_000_000 + 1)

    def new_user(self) -> int:
        return next(self._users)

    def join(self, user_id: int, memo: str, money_nano: int) -> None:
        """A registered user with this much money trades from now on."""
        self.memos[user_id] = memo
        self.money[user_id] = money_nano
        self.traders.append(user_id)

    def _hot(self) -> Item:
        return self.by_heat[bisect(self._heat, self.chance.random() * self._heat[-1])]

    def other_than(self, user_id: int, least_nano: int = 0) -> int:
        """A trader at random, not this one, with enough money for the purpose."""
        traders, start = self.traders, self.chance.randrange(len(self.traders))
        for step in range(len(traders)):
            other = traders[(start + step) % len(traders)]
            if other != user_id and self.money[other] >= least_nano:
                return other
        raise RuntimeError("no trader has money left: fewer commands or more users")

    def price(self) -> int:
        """Around 6 TON, with a long tail, in steps of 0.01."""
        nano = int(self.chance.lognormvariate(1.8, 1.1) * 100) * (TON // 100)
        return min(max(nano, PRICE_MIN_NANO), PRICE_MAX_NANO)
