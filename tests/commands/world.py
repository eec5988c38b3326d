"""A world without servers: rows in a dictionary, loaded, decided and stored as the unit of work does it."""

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from commands.book import Account, Book, Event, FollowUp, Posting
from commands.command import Command, Envelope
from commands.decide import decide_all, touches
from commands.document import STORED, Need, Row, Scope, is_open
from commands.nft.items import Gift, GiftLock
from commands.outcome import Outcome
from commands.terms import TON, Terms
from commands.users import User, memo_of

WALLET = "EQ-test-wallet"
START = datetime(2030, 1, 1, tzinfo=UTC)

Sent = tuple[Command, int | None]
"""A command and its actor."""


class World:
    """Everything the marketplace knows."""

    def __init__(self, terms: Terms | None = None) -> None:
        self.terms = terms or Terms()
        self.rows: dict[tuple[type[Row], Any], Row] = {}
        self.records: list[Row] = []
        self.now = START
        self.batch_seconds = 1
        """How long a batch takes."""
        self.timers: list[tuple[datetime, Command]] = []
        self.last_number = 0
        """Of the commands that ran: command n has the id UUID(int=n)."""

    def advance(self, seconds: float) -> list[Outcome]:
        """Time passes, and the timers that are due run: their outcomes, in the order of their times."""
        self.now += timedelta(seconds=seconds)
        due = sorted((timer for timer in self.timers if timer[0] <= self.now), key=lambda timer: timer[0])
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        return [self.one(command) for _, command in due]

    def run(self, *sent: Sent, not_after: datetime | None = None) -> list[Outcome]:
        """One batch. Commands that had to wait for the next batch get it."""
        waiting = []
        for command, actor in sent:
            self.last_number = number = self.last_number + 1
            id_ = UUID(int=number)
            waiting.append(Envelope(id_, number, command.asset(id_, actor), 0, actor, command, self.now, not_after))
        outcomes: dict[UUID, Outcome] = {}
        order = [envelope.id for envelope in waiting]
        while waiting:
            self.now += timedelta(seconds=self.batch_seconds)
            book = Book(self.terms, self.now)
            self._load(book, waiting)
            decided, _ = decide_all(book, waiting)
            assert decided, "a batch decides its first command at least"
            outcomes |= decided
            self._store(book)
            waiting = [envelope for envelope in waiting if envelope.id not in decided]
        return [outcomes[id_] for id_ in order]

    def one(self, command: Command, actor: int | None = None) -> Outcome:
        return self.run((command, actor))[0]

    def _load(self, book: Book, envelopes: list[Envelope]) -> None:
        while True:
            needs = {need for envelope in envelopes for need in touches(book, envelope) if book.lacks(need)}
            if not needs:
                return
            for need in needs:
                self._load_one(book, need)

    def _load_one(self, book: Book, need: Need) -> None:
        if need.column is None:
            row = self.rows.get((need.document, need.value))
            if need.document is GiftLock:
                row = GiftLock(int(str(need.value))) if (Gift, need.value) in self.rows else None
            book.load(need.document, [need.value], [] if row is None else [row])
        else:
            position = STORED[need.document].fields.index(need.column)
            rows = [
                row for (kind, _), row in self.rows.items() if kind is need.document and row[position] == need.value
            ]
            if STORED[need.document].indexes[need.column] is Scope.OPEN:
                rows = [row for row in rows if is_open(row)]
            book.load_found(need.document, need.column, [need.value], rows)

    def _store(self, book: Book) -> None:
        for kind, before, row in book.changes():
            if row is not None:
                self.rows[kind, STORED[kind].key_of(row)] = row
            elif before is not None:
                del self.rows[kind, STORED[kind].key_of(before)]
        follow_ups = [row for row in book.records if isinstance(row, FollowUp)]
        self.timers += [(follow_up.run_at or self.now, follow_up.command) for follow_up in follow_ups]
        self.records += [row for row in book.records if not isinstance(row, FollowUp)]

    # -- what tests ask

    def get(self, kind: type[Any], key: Any) -> Any:
        return self.rows.get((kind, key))

    def balance(self, user_id: int) -> int:
        account = self.get(Account, user_id)
        return account.available_nano if account else 0

    def of(self, kind: type[Any]) -> list[Any]:
        return [row for row in self.records if type(row) is kind]

    def events(self, name: str) -> list[Event]:
        return [event for event in self.of(Event) if event.name == name]

    def snapshot(self) -> tuple[dict[Any, Row], list[Row]]:
        return dict(self.rows), list(self.records)

    def check(self) -> None:
        """Money: every balance is the sum of its postings, none is negative, and a posting's balances are those after
        it."""
        sums: Counter[tuple[int, str]] = Counter()
        for posting in self.of(Posting):
            assert posting.amount_nano > 0
            for account, side, change, after in (
                (posting.debit_account, posting.debit_side, -posting.amount_nano, posting.debit_balance_nano),
                (posting.credit_account, posting.credit_side, posting.amount_nano, posting.credit_balance_nano),
            ):
                sums[account, side] += change
                assert after == (sums[account, side] if account > 0 else None)
        for (kind, _), row in self.rows.items():
            if kind is Account:
                account = Account._make(row)
                assert sums[account.id, "available"] == account.available_nano >= 0
                assert sums[account.id, "held"] == account.held_nano >= 0
            if kind is User:
                assert (Account, row[0]) in self.rows
        assert sum(sums.values()) == 0

    # -- what tests start from

    def user(self, user_id: int, ton: float = 10) -> int:
        self.one(register(user_id))
        if ton:
            assert self.one(deposit(user_id, int(ton * TON))).result is not None
        return user_id

    def item(self, nft_id: int, owner_id: int) -> int:
        assert self.one(receive(nft_id, owner_id)).result is not None
        return nft_id


def command(kind: str, **payload: Any) -> Command:
    from commands.command import KINDS  # noqa: PLC0415

    return KINDS[kind].model_validate(payload)


def register(user_id: int) -> Command:
    return command("users.register", user_id=user_id)


_times = itertools.count(1)


def deposit(user_id: int, amount_nano: int, **changes: Any) -> Command:
    logical_time = next(_times)
    fields = {
        "wallet": WALLET,
        "logical_time": logical_time,
        "hash": f"{logical_time:064x}",
        "amount_nano": amount_nano,
        "memo": memo_of(user_id),
    }
    return command("market.deposit", **(fields | changes))


def gift(gift_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": gift_id,
        "collection": "Plush Pepe",
        "num": 7,
        "model": "Gold",
        "pattern": "Stars",
        "backdrop": "Black",
        "model_permille": 5,
        "pattern_permille": 10,
        "backdrop_permille": 20,
        "center_color": 1,
        "edge_color": 2,
        "pattern_color": 3,
        "text_color": 4,
        "slug": f"gift-{gift_id}",
    } | changes


def receive(nft_id: int, sender_id: int, **changes: Any) -> Command:
    fields = {"nft_id": nft_id, "gift": gift(nft_id), "sender_id": sender_id, "message_ref": f"message {nft_id}"}
    return command("nft.receive", **(fields | changes))


def set_price(nft_id: int, price_nano: int | None) -> Command:
    return command("nft.set_price", nft_id=nft_id, price_nano=price_nano)


def buy(nft_id: int, price_nano: int) -> Command:
    return command("nft.buy", nft_id=nft_id, price_nano=price_nano)


def transfer(nft_id: int, to_user_id: int) -> Command:
    return command("nft.transfer", nft_id=nft_id, to_user_id=to_user_id)


def code_of(outcome: Outcome) -> str | None:
    return outcome.rejection["code"] if outcome.rejection else None
