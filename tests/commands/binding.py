"""What an act comes to in the marketplace as it is at that moment."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from tests.commands.acts import (
    ADDRESS,
    ANYBODY,
    CHANNELS,
    GIFTS,
    GROUND,
    ITEMS,
    NOBODY,
    NONE,
    PHONES,
    PRICES,
    STRANGER,
    TON,
    USERS,
    WALLET,
    WRONG_PARENT,
    Act,
    Command,
    collection_of,
    deposit,
    gift,
)
from tests.commands.model.market import Document, Item, Market, Trade

D = TypeVar("D", bound=Document)


def bind(act: Act, market: Market, now: datetime) -> Command:
    """The command that the act comes to."""
    return _Binding(act, market, now).command()


class _Binding:
    """An act at a moment of the marketplace."""

    def __init__(self, act: Act, market: Market, now: datetime) -> None:
        self.act, self.market, self.now = act, market, now

    def command(self) -> Command:
        self.lay_ground()
        kind = self.act.kind
        family, _, verb = kind.partition(".")
        match family:
            case "users":
                return Command(kind, {"user_id": self.user(1)} | ({"reason": "test"} if verb == "block" else {}), None)
            case "nft":
                return self.of_item(verb)
            case "offers":
                return self.of_offer(verb)
            case "auctions":
                return self.of_auction(verb)
            case "presale":
                return self.of_presale(verb)
            case "trades":
                return self.of_trade(verb)
            case "accounts":
                return self.of_account(verb)
            case "channels":
                return self.of_channel(verb)
            case _:
                return self.of_money(verb) if kind != "market.record_floor" else self.floor()

    # -- choices

    def user(self, whom: int | None) -> int:
        return self.act.party or whom or 1

    def rival(self, of: int | None) -> int:
        """Somebody else than the owner."""
        return self.act.party or (of or self.act.item) % 4 + 1

    def price(self, seen: int | None) -> int:
        return PRICES[self.act.price - 1] if self.act.price else seen or PRICES[1]

    def more(self) -> int:
        """Another small choice, out of all the others."""
        return self.act.party + self.act.item + self.act.price + self.act.pick

    def lay_ground(self) -> None:
        while self.act.pick <= 1 and self.act.kind in GROUND:
            table, states, first = GROUND[self.act.kind]
            if first is None or any(document.state in states for document in getattr(self.market, table).values()):
                return
            self.act = self.act._replace(kind=first)

    def which(self, documents: Mapping[Any, D]) -> tuple[Any, D | None]:
        """The key and the document; a key of nothing and None when there is none."""
        _, states, _ = GROUND[self.act.kind]
        latest = list(documents.items())[::-1]
        latest.sort(key=lambda pair: pair[1].state not in states)
        place = 0 if self.act.pick == WRONG_PARENT else self.act.pick
        return latest[place] if place < min(NONE, len(latest)) else (NOBODY, None)

    def item(self) -> tuple[int, Item | None]:
        """The item named, or one in a state for the command."""
        _, states, _ = GROUND[self.act.kind]
        fit = [nft_id for nft_id, item in self.market.items.items() if item.state in states]
        nft_id = fit[self.act.item % len(fit)] if fit and self.act.pick <= 1 else self.act.item
        return nft_id, self.market.items.get(nft_id)

    def outside(self) -> int:
        """A gift that is not in custody, or the one named."""
        inside = {item.gift_id for item in self.market.items.values() if item.is_open}
        free = [gift_id for gift_id in GIFTS if gift_id not in inside]
        return free[self.act.item % len(free)] if free and self.act.pick <= 2 else self.act.item

    def parent(self, of: int | None, others: Sequence[int] = GIFTS) -> int:
        """What the document hangs on, or something else."""
        right = self.act.item if of is None else of
        return right if self.act.pick != WRONG_PARENT else others[(others.index(right) + 1) % len(others)]

    def intake(self, nft_id: int, gift_id: int, sender_id: int) -> dict[str, Any]:
        number = len(self.market.intakes) if self.act.pick != 1 else 0
        ref = f"message {number}"
        return {"nft_id": nft_id, "gift": gift(gift_id), "sender_id": sender_id, "message_ref": ref}

    # -- commands

    def of_money(self, verb: str) -> Command:
        act, kind = self.act, self.act.kind
        match verb:
            case "deposit":
                number = len(self.market.transactions) + (act.pick != 1)
                amount = self.price(None) if act.pick != NONE else 1
                return deposit(act.party, amount, number)
            case "assign_deposit":
                deposit_id, _ = self.which(self.market.deposits)
                return Command(kind, {"deposit_id": deposit_id, "user_id": self.user(act.item)}, None)
            case "adjust":
                amount = self.price(None) * (-1 if act.item > 2 else 1)
                return Command(kind, {"user_id": self.user(act.item), "amount_nano": amount, "reason": "test"}, None)
            case "withdraw":
                address = WALLET if act.pick == NONE else ADDRESS
                return Command(kind, {"amount_nano": self.price(None), "address": address}, self.user(act.item))
            case _:
                id_, document = self.which(self.market.withdrawals)
                fields = {"user_id": self.parent(document and document.user_id, ANYBODY), "withdrawal_id": id_}
                paid = {"tx_hash": "ab" * 32, "logical_time": 5, "network_fee_nano": act.price * 1_000}
                return Command(kind, fields | (paid if verb == "withdraw_confirm" else self.reason("refused")), None)

    def reason(self, *reasons: str) -> dict[str, Any]:
        """Of a definite no; or the request was given up."""
        return {"reason": (*reasons, "expired")[self.more() % (len(reasons) + 1)]}

    def of_item(self, verb: str) -> Command:
        act, kind = self.act, self.act.kind
        if verb in ("return_confirm", "return_fail"):
            id_, document = self.which(self.market.returns)
            fields = {"nft_id": self.parent(document and document.nft_id), "return_id": id_}
            return Command(kind, fields | (self.reason("receiver_refused") if verb == "return_fail" else {}), None)
        if verb == "receive":
            nft_id = self.outside()
            gift_id = nft_id if act.pick != WRONG_PARENT else nft_id % 4 + 1
            return Command(kind, self.intake(nft_id, gift_id, self.user(act.item)), None)
        nft_id, item = self.item()
        owner_id = item and item.owner_id
        match verb:
            case "set_price":
                return Command(kind, {"nft_id": nft_id, "price_nano": self.price(None)}, self.user(owner_id))
            case "clear_price":
                return Command("nft.set_price", {"nft_id": nft_id, "price_nano": None}, self.user(owner_id))
            case "buy":
                fields = {"nft_id": nft_id, "price_nano": self.price(item and item.price_nano)}
                return Command(kind, fields, self.rival(owner_id))
            case "transfer":
                receiver_id = STRANGER if act.pick == NONE else act.price % 4 + 1
                return Command(kind, {"nft_id": nft_id, "to_user_id": receiver_id}, self.user(owner_id))
            case _:
                return Command(kind, {"nft_id": nft_id}, self.user(owner_id))

    def of_offer(self, verb: str) -> Command:
        kind = self.act.kind
        if verb == "create":
            nft_id, item = self.item()
            fields = {"nft_id": nft_id, "price_nano": self.price(item and item.price_nano)}
            return Command(kind, fields, self.rival(item and item.owner_id))
        id_, offer = self.which(self.market.offers)
        fields = {"nft_id": self.parent(offer and offer.nft_id), "offer_id": id_}
        author_id, owner_id = (offer.author_id, offer.owner_id) if offer else (None, None)
        match verb:
            case "withdraw":
                return Command(kind, fields, self.user(author_id))
            case "counter":
                return Command(kind, fields | {"price_nano": self.price(TON)}, self.user(owner_id))
            case "accept" if self.act.item > 2:
                price = self.price(offer and offer.counter_nano)
                return Command(kind, fields | {"price_nano": price}, self.user(author_id))
            case "accept":
                price = self.price(offer and offer.price_nano)
                return Command(kind, fields | {"price_nano": price}, self.user(owner_id))
            case _:
                return Command(kind, fields, self.user(owner_id) if verb == "refuse" else None)

    def of_auction(self, verb: str) -> Command:
        act, kind = self.act, self.act.kind
        if verb == "create":
            nft_id, item = self.item()
            duration = {"duration_seconds": 600} if act.price else {}
            fields = {"nft_id": nft_id, "start_nano": self.price(TON)} | duration
            return Command(kind, fields, self.user(item and item.owner_id))
        id_, auction = self.which(self.market.auctions)
        fields = {"nft_id": self.parent(auction and auction.nft_id), "auction_id": id_}
        seller_id = auction and auction.seller_id
        if verb == "place_bid":
            leading = self.market.bids[auction.leader_bid_id].amount_nano if auction and auction.leader_bid_id else TON
            amount = PRICES[act.price - 1] if act.price else leading + leading // 10
            bidder_id = self.act.party or [user_id for user_id in USERS if user_id != seller_id][act.item % 3]
            return Command(kind, fields | {"amount_nano": amount}, bidder_id)
        if verb == "settle":
            return Command(kind, fields, act.party or None)
        return Command(kind, fields, self.user(seller_id))

    def of_presale(self, verb: str) -> Command:
        act, kind = self.act, self.act.kind
        if verb == "register":
            transferable_at = self.now + timedelta(seconds=100_000 * (act.price < 2) + 60 * (act.pick < 2))
            gift_id = self.outside()
            fields = {"gift_id": gift_id, "gift": gift(gift_id), "transferable_at": transferable_at}
            return Command(kind, fields | {"seller_id": self.user(act.item)}, None)
        id_, presale = self.which(self.market.presales)
        gift_id = self.parent(presale and presale.gift_id)
        fields = {"gift_id": gift_id, "presale_id": id_}
        seller_id = presale and presale.seller_id
        match verb:
            case "set_price":
                return Command(kind, fields | {"price_nano": self.price(None)}, self.user(seller_id))
            case "clear_price":
                return Command("presale.set_price", fields | {"price_nano": None}, self.user(seller_id))
            case "delete":
                return Command(kind, fields, self.user(seller_id) if act.item > 1 else None)
            case "buy":
                price = self.price(presale and presale.price_nano)
                return Command(kind, fields | {"price_nano": price}, self.rival(seller_id))
            case "deliver":
                return Command(kind, fields | self.intake(gift_id, gift_id, self.user(seller_id)), None)
            case _:
                return Command(kind, fields, None)

    def floor(self) -> Command:
        of_model = {"model": "Gold"} if self.act.pick else {}
        fields = {"market": "souk", "collection": collection_of(self.act.item), "price_nano": self.price(None)}
        observed_at = self.now + timedelta(seconds=(0, 0, 59, 62, -60, -90_000)[self.more() % 6])
        return Command(self.act.kind, fields | of_model | {"observed_at": observed_at}, None)

    def of_trade(self, verb: str) -> Command:
        act, kind = self.act, self.act.kind
        if verb == "create":
            item = self.market.items.get(act.item)
            owner_id = self.user(item and item.owner_id)
            wanted = [nft_id for nft_id, other in self.market.items.items() if other.owner_id not in (None, owner_id)]
            anything = {"collection": collection_of(wanted[self.more() % len(wanted)] if wanted else 1)}
            blue = anything | {"backdrop": "blue"}
            requirements = ([anything], [anything], [blue], [anything, blue], [blue, anything])[self.more() % 5]
            private = {"receiver_id": STRANGER if act.pick == NONE else act.price % 4 + 1} if act.pick > 1 else {}
            fields = {"nft_ids": self.some_of(owner_id), "requirements": requirements}
            return Command(kind, fields | private, owner_id)
        if verb in ("propose", "delete"):
            id_, trade = self.which(self.market.trades)
            fields = {"trade_id": id_}
            if verb == "delete":
                return Command(kind, fields, self.user(trade and trade.owner_id))
            author_id = self.user(self.author_for(id_, trade))
            return Command(kind, fields | {"nft_ids": self.some_of(author_id)}, author_id)
        id_, proposal = self.which(self.market.proposals)
        others = [trade_id for trade_id in self.market.trades if not proposal or trade_id != proposal.trade_id]
        trade_id = proposal.trade_id if proposal and act.pick != WRONG_PARENT else [NOBODY, *others][-1]
        trade = self.market.trades.get(trade_id)
        by_author = verb == "withdraw_proposal"
        party_id = self.user(proposal and proposal.author_id if by_author else trade and trade.owner_id)
        most = {"fee_max_nano": act.item * TON // 200} if verb == "accept" and act.item > 2 else {}
        return Command(kind, {"trade_id": trade_id, "proposal_id": id_} | most, party_id)

    def author_for(self, trade_id: UUID, trade: Trade | None) -> int:
        """The receiver, or somebody who has what is wanted."""
        wanted = [requirement["collection"] for requirement in self.market.wanted.get(trade_id, [])]
        owners = [
            item.owner_id
            for nft_id, item in self.market.items.items()
            if item.owner_id and collection_of(nft_id) in wanted and item.owner_id != (trade and trade.owner_id)
        ]
        receiver_id = trade and trade.receiver_id
        return receiver_id or (owners[self.act.item % len(owners)] if owners else self.act.item)

    def some_of(self, user_id: int) -> list[int]:
        """The user's free items, all of them in either order, or one; or the item named."""
        items = self.market.items.items()
        own = [nft_id for nft_id, item in items if item.owner_id == user_id and item.state in ("held", "listed")]
        own = own[:: 1 if self.act.item % 2 else -1]
        if not own or self.act.pick > 1:
            return [self.act.item]
        return own if self.act.kind == "trades.propose" or self.act.price else own[:1]

    def of_account(self, verb: str) -> Command:
        act, kind = self.act, self.act.kind
        if verb == "connect":
            return Command(kind, {"phone": PHONES[act.item % 2]}, self.user(act.item))
        id_, account = self.which(self.market.accounts)
        user_id = account and account.user_id
        if verb in ("approve", "sync", "send_gift", "disconnect"):
            fields: dict[str, Any] = {"account_id": id_}
            if verb == "approve":
                fields |= {"code": "12345", "name": ("one", "other")[act.price % 2]}
            if verb == "send_gift":
                own = sorted(gift_id for account_id, gift_id in self.market.account_gifts if account_id == id_)
                fields |= {"gift_id": own[-1] if own and act.pick <= 1 else act.item, "receiver_id": STRANGER}
            return Command(kind, fields, self.user(user_id))
        fields = {"account_id": id_, "user_id": self.parent(user_id, ANYBODY)}
        approve_id = account.approve_id if account and account.approve_id and act.price < 3 else NOBODY
        match verb:
            case "connect_fail":
                fields |= self.reason("flood")
            case "approve_confirm":
                found = {"telegram_id": 70 + act.item % 2, "stars": 5, "premium": True}
                fields |= {"approve_id": approve_id} | found
            case "approve_fail":
                fields |= {"approve_id": approve_id} | self.reason("code_wrong", "password_needed", "code_expired")
            case "sync_confirm":
                gifts = [{"gift": gift(gift_id), "message_ref": "there"} for gift_id in ITEMS[act.item % 2 :]]
                channels = [{"channel_id": channel_id, "title": "A channel"} for channel_id in CHANNELS[: act.price]]
                fields |= {
                    "sync_id": self.asked("accounts.sync", id_),
                    "stars": 6,
                    "premium": False,
                    "gifts": gifts,
                    "channels": channels,
                }
            case "sync_fail":
                fields |= {
                    "sync_id": self.asked("accounts.sync", id_),
                    "reason": ("flood", "session_lost")[act.item > 2],
                }
            case "send_gift_confirm":
                fields |= {"gift_id": act.item, "send_id": self.asked("accounts.send_gift", id_)}
            case "send_gift_fail":
                fields |= {"gift_id": act.item, "send_id": self.asked("accounts.send_gift", id_), "reason": "refused"}
        return Command(kind, fields, None)

    def asked(self, kind: str, account_id: UUID) -> UUID:
        """The last request of the kind for the account, or of any for any, or none."""
        anything = self.act.item == 1
        requests = self.market.requests.items()
        references = [reference for reference, of in requests if anything or of == (kind, account_id)]
        return [NOBODY, *references][-1]

    def of_channel(self, verb: str) -> Command:
        act, kind = self.act, self.act.kind
        if verb == "add":
            id_, account = self.which(self.market.accounts)
            fields = {"channel_id": CHANNELS[act.item % 2], "account_id": id_}
            return Command(kind, fields, self.user(account and account.user_id))
        if verb in ("buy_confirm", "buy_fail"):
            id_, purchase = self.which(self.market.purchases)
            channel_id = self.parent(purchase.channel_id if purchase else CHANNELS[0], CHANNELS)
            fields = {"channel_id": channel_id, "purchase_id": id_}
            reason = self.reason("gifts_modified", "receiver_refused", "not_creator") if verb == "buy_fail" else {}
            return Command(kind, fields | reason, None)
        id_, channel = self.which(self.market.channels)
        owner_id = channel and channel.owner_id
        fields = {"channel_id": id_ if channel else CHANNELS[0]}
        match verb:
            case "add_confirm" | "add_fail":
                fields |= {"check_id": channel.check_id if channel and act.pick < WRONG_PARENT else NOBODY}
                if verb == "add_fail":
                    return Command(kind, fields | self.reason("not_visible"), None)
                gifts = [{"gift": gift(1), "quantity": 2}] if act.price != 1 else []
                found = {"title": "A channel", "is_creator": act.price != 2, "gifts": gifts, "gifts_hash": "hash"}
                return Command(kind, fields | found, None)
            case "set_price":
                return Command(kind, fields | {"price_nano": self.price(None)}, self.user(owner_id))
            case "clear_price":
                return Command("channels.set_price", fields | {"price_nano": None}, self.user(owner_id))
            case "buy":
                price = self.price(channel and channel.price_nano)
                return Command(kind, fields | {"price_nano": price}, self.rival(owner_id))
            case _:
                return Command(kind, fields, self.user(owner_id) if act.pick != 1 else None)
