"""The book: the documents and accounts of one batch, in memory, and everything its commands do to them.

Documents are immutable named tuples; a change is a new version put in the place of the old one, so undoing a refused
command is putting the old versions back. What only ever grows (postings, deals, events) is a list that is cut back.
"""

from collections.abc import Hashable, Iterable, Iterator
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple, cast
from uuid import UUID

from commands.command import Command
from commands.document import STORED, D, Need, Row, Scope, document, is_open, record
from commands.outcome import Code, Rejection
from commands.terms import Terms, fee_nano


class NotLoaded(Exception):
    """An earlier command of the batch led this one to a document that nobody had announced."""


@document("accounts")
class Account(NamedTuple):
    """A user's money, or one of the platform's five accounts (ids below 0), which are posted to and never loaded."""

    id: int
    available_nano: int
    held_nano: int


FEES = -1
DEPOSITS = -2
WITHDRAWALS = -3
EXPENSE = -4
UNCLAIMED = -5


class Side(NamedTuple):
    """One side of an account; only users have a held side."""

    account: int
    name: str = "available"


def available(user_id: int) -> Side:
    return Side(user_id, "available")


def held(user_id: int) -> Side:
    return Side(user_id, "held")


@record("postings", moment="at")
class Posting(NamedTuple):
    """An amount from one account's side to another's. Balances are those of the two sides after it; null for the
    platform's accounts."""

    command_id: UUID
    debit_account: int
    debit_side: str
    credit_account: int
    credit_side: str
    amount_nano: int
    debit_balance_nano: int | None
    credit_balance_nano: int | None
    document_kind: str | None
    document_id: str | None


@record("events", moment="at")
class Event(NamedTuple):
    """A fact in the past tense, stored with the effects it tells of."""

    command_id: UUID
    name: str
    topics: tuple[str, ...]
    fields: dict[str, Any]


class FollowUp(NamedTuple):
    """A command that another one writes: accepted with its effects, or when the database's clock reaches `run_at`."""

    id: UUID
    command: Command
    run_at: datetime | None


class Book:
    """State of one batch. `now` is the database's time of the batch; `command_id` that of the command being decided."""

    def __init__(self, terms: Terms, now: datetime) -> None:
        self.terms = terms
        self.now = now
        self.command_id = UUID(int=0)
        self.records: list[Row] = []
        self._follow_ups = 0
        self._loaded: dict[tuple[type[Row], Hashable], Row | None] = {}
        self._current: dict[tuple[type[Row], Hashable], Row | None] = {}
        self._found: dict[Need, set[Hashable]] = {}
        self._undo: list[tuple[tuple[type[Row], Hashable], Row | None]] = []

    # -- loading: what the unit of work asks and tells

    def lacks(self, need: Need) -> bool:
        if need.column is None:
            return (need.document, need.value) not in self._current
        return need not in self._found

    def load(self, document: type[Row], keys: Iterable[Hashable], rows: Iterable[Row]) -> None:
        """Take rows read by key; keys without a row are known to have none."""
        for key in keys:
            self._loaded.setdefault((document, key), None)
            self._current.setdefault((document, key), None)
        for row in rows:
            self._take(document, row)

    def load_found(self, document: type[Row], column: str, values: Iterable[Hashable], rows: Iterable[Row]) -> None:
        """Take rows read by an indexed column; values without a row are known to have none."""
        for value in values:
            self._found.setdefault(Need(document, value, column), set())
        position = STORED[document].fields.index(column)
        for row in rows:
            value = row[position]
            self._found[Need(document, value, column)].add(self._take(document, row))

    def _take(self, document: type[Row], row: Row) -> Hashable:
        key = STORED[type(row)].key_of(row)
        if self._current.get((document, key)) is None:
            self._loaded[document, key] = self._current[document, key] = row
        return key

    # -- reading and changing: what the rules use

    def peek(self, document: type[D], key: Hashable) -> D | None:
        """The document if it exists and is loaded already; for `touches`."""
        return cast("D | None", self._current.get((document, key)))

    def get(self, document: type[D], key: Hashable) -> D | None:
        """The document, or None when there is none. Raises NotLoaded.

        What a command opens under its own id is new, and need not be announced.
        """
        try:
            return cast("D | None", self._current[document, key])
        except KeyError:
            if self.command_id in (key if isinstance(key, tuple) else (key,)):
                return None
            raise NotLoaded(STORED[document].table, key) from None

    def find(self, document: type[D], column: str, value: Hashable) -> list[D]:
        """The documents that the indexed column finds, in the order of their keys. Raises NotLoaded."""
        try:
            keys = self._found[Need(document, value, column)]
        except KeyError:
            raise NotLoaded(STORED[document].table, column, value) from None
        stored = STORED[document]
        found = (self._current[document, key] for key in sorted(keys, key=str))
        position = stored.fields.index(column)
        rows = [cast("D", row) for row in found if row is not None and row[position] == value]
        return [row for row in rows if is_open(row)] if stored.indexes[column] is Scope.OPEN else rows

    def peek_found(self, document: type[D], column: str, value: Hashable) -> list[D]:
        """What `find` gives as far as it is loaded already; for `touches`."""
        return [] if self.lacks(Need(document, value, column)) else self.find(document, column, value)

    def put(self, row: Row) -> None:
        """Store a new document, or a new version of one. What has this command's id is new without being looked for."""
        document = type(row)
        key = STORED[document].key_of(row)
        place = (document, key)
        if key == self.command_id:
            self._loaded.setdefault(place, None)
            self._current.setdefault(place, None)
        self._undo.append((place, self.get(document, key)))
        self._current[place] = row
        for column in STORED[document].indexes:
            value = row[STORED[document].fields.index(column)]
            keys = self._found.get(Need(document, value, column))
            if keys is not None:
                keys.add(key)

    def remove(self, row: Row) -> None:
        """Delete a document. Only for what is a copy of facts outside."""
        place = (type(row), STORED[type(row)].key_of(row))
        self._undo.append((place, self.get(*place)))
        self._current[place] = None

    def add(self, row: Row) -> None:
        """Store a record of what only ever grows."""
        self.records.append(row)

    def emit(self, name: str, *topics: str, **fields: Any) -> None:
        """Store an event; fields are JSON values."""
        self.records.append(Event(self.command_id, name, topics, fields))

    def follow_up(self, command: Command, run_at: datetime | None = None) -> None:
        """Write a system command with the effects of this one. Its id follows from this one's, so that deciding again
        writes the same."""
        self._follow_ups += 1
        id_ = derived_id(self.command_id, self._follow_ups)
        self.records.append(FollowUp(id_, command, run_at))

    def set_timer(self, command: Command, deadline: datetime) -> None:
        """Write a system command for a deadline: it is accepted a grace later, after all that came in time."""
        self.follow_up(command, deadline + timedelta(seconds=self.terms.timer_grace_seconds))

    def is_due(self, accepted_at: datetime, deadline: datetime) -> bool:
        """Whether a command accepted then may act on the passing of the deadline."""
        return accepted_at >= deadline + timedelta(seconds=self.terms.timer_grace_seconds)

    # -- money

    def account(self, user_id: int) -> Account:
        account = self.get(Account, user_id)
        if account is None:
            message = f"user {user_id} has no ledger account"
            raise LookupError(message)
        return account

    def require_available(self, user_id: int, required_nano: int) -> None:
        """The guard that every payment passes last."""
        available_nano = self.account(user_id).available_nano
        if available_nano < required_nano:
            raise Rejection(Code.INSUFFICIENT_BALANCE, required_nano=required_nano, available_nano=available_nano)

    def post(
        self, debit: Side, credit: Side, amount_nano: int, document_kind: str | None = None, document_id: Any = None
    ) -> None:
        """`debit → credit amount`. Postings of zero are not written."""
        if amount_nano == 0:
            return
        if amount_nano < 0 or debit == credit:
            message = f"not a posting: {debit} → {credit} {amount_nano}"
            raise ValueError(message)
        self.records.append(
            Posting(
                self.command_id,
                debit.account,
                debit.name,
                credit.account,
                credit.name,
                amount_nano,
                self._move(debit, -amount_nano),
                self._move(credit, amount_nano),
                document_kind,
                None if document_id is None else str(document_id),
            )
        )

    def hold(self, user_id: int, amount_nano: int, document_kind: str, document_id: Any) -> None:
        """Set money aside for an open document, which records the amount."""
        self.post(available(user_id), held(user_id), amount_nano, document_kind, document_id)

    def release(self, user_id: int, amount_nano: int, document_kind: str, document_id: Any) -> None:
        self.post(held(user_id), available(user_id), amount_nano, document_kind, document_id)

    def _move(self, side: Side, change_nano: int) -> int | None:
        """Change one side of a user's account and return its new balance. The platform's balances are not in the
        book: the unit of work adds up the postings."""
        if side.account < 0:
            return None
        account = self.account(side.account)
        if side.name == "held":
            balance = account.held_nano + change_nano
            account = Account(account.id, account.available_nano, balance)
        else:
            balance = account.available_nano + change_nano
            account = Account(account.id, balance, account.held_nano)
        if balance < 0:
            message = f"{side} would fall to {balance}"
            raise ValueError(message)
        self.put(account)
        return balance

    def settle(
        self, payer: Side, seller_id: int, price_nano: int, fee_bp: int, document_kind: str, document_id: Any
    ) -> int:
        """The price less the fee to the seller, the fee to the platform. Returns the fee."""
        fee = fee_nano(price_nano, fee_bp)
        self.post(payer, available(seller_id), price_nano - fee, document_kind, document_id)
        self.post(payer, Side(FEES), fee, document_kind, document_id)
        return fee

    # -- one command among others

    def begin(self, command_id: UUID) -> tuple[int, int]:
        """A command begins. Returns the mark for `undo` and `balance_changes`."""
        self.command_id, self._follow_ups = command_id, 0
        return len(self._undo), len(self.records)

    def undo(self, mark: tuple[int, int]) -> None:
        """Put everything back as it was at the mark."""
        changes, records = mark
        while len(self._undo) > changes:
            place, row = self._undo.pop()
            self._current[place] = row
        del self.records[records:]

    def balance_changes(self, mark: tuple[int, int]) -> Iterator[tuple[Account, Account]]:
        """(before, after) of each account changed since the mark; an account that is new has nothing before."""
        before: dict[Hashable, Account] = {}
        for (kind, key), row in self._undo[mark[0] :]:
            if kind is Account and key not in before:
                before[key] = cast("Account | None", row) or Account(cast("int", key), 0, 0)
        for key, old in before.items():
            new = cast("Account", self._current[Account, key])
            if new != old:
                yield old, new

    def changes(self) -> Iterator[tuple[type[Row], Row | None, Row | None]]:
        """(type, version loaded or None when new, version now or None when removed) of every document that differs
        from what was loaded."""
        for place in dict.fromkeys(place for place, _ in self._undo):
            before, now = self._loaded.get(place), self._current[place]
            if now != before:
                yield place[0], before, now


def derived_id(command_id: UUID, number: int) -> UUID:
    """The id of a command that follows from another one: of the same time, and always the same."""
    digest = blake2b(command_id.bytes + number.to_bytes(4, signed=True), digest_size=10).digest()
    value = (command_id.int >> 80 << 80) | int.from_bytes(digest)
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)
