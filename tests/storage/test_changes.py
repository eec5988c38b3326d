"""The pure step of a write: what a book and its outcomes become, before anything is sent."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from commands.accounts.sign_in import Approve
from commands.book import WITHDRAWALS, Account, Book, Side, available
from commands.market.floors import Floor
from commands.outcome import Outcome, Status
from commands.terms import Terms
from commands.users import Register
from storage.journal.changes import (
    Delete,
    Insert,
    Operation,
    Update,
    changes_of,
    entries_of,
    platform_changes,
    write_of,
)
from storage.journal.entry import Entry, Facts, partition_of
from storage.tables import commands

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PARTITIONS = 64
FIRST, SECOND = UUID(int=1), UUID(int=2)


@pytest.fixture
def book() -> Book:
    """Two users with money, and a command that is being decided."""
    book = Book(Terms(), NOW)
    book.load(Account, [1, 2], [Account(1, 100, 0), Account(2, 100, 0)])
    book.begin(FIRST)
    return book


def operations(book: Book, entries: Sequence[Entry] = ()) -> list[Operation]:
    return [change.operation for change in changes_of(book, entries, [])]


def test_an_update_carries_the_key_and_the_columns_that_changed(book: Book) -> None:
    book.post(available(1), available(2), 30)
    [update] = [change for change in changes_of(book, [], []) if isinstance(change.operation, Update)]
    assert update.operation == Update("accounts", ("id", "available_nano"), ("id",))
    assert update.arguments == [(1, 2), (70, 130)]


def test_what_is_as_it_was_loaded_is_not_written(book: Book) -> None:
    book.hold(1, 30, "bid", FIRST)
    book.release(1, 30, "bid", FIRST)
    assert {operation.table for operation in operations(book)} == {"postings"}


def test_an_insert_waits_for_what_goes_from_its_table(book: Book) -> None:
    old, new = (Floor("souk", "Pepe", model, 1, NOW) for model in ("a", "b"))
    book.load(Floor, [old[:3], new[:3]], [old])
    book.remove(old)
    book.put(new)
    changes = changes_of(book, [], [])
    assert [type(change.operation) for change in changes] == [Delete, Insert]
    statement = write_of(changes, {FIRST: Outcome(Status.SUCCEEDED)}, NOW).statement
    insert = statement[statement.index("INSERT INTO floors") :]
    assert "WHERE (SELECT count(*) FROM w0) >= 0" in insert


def test_operations_come_in_the_order_of_their_tables(book: Book) -> None:
    book.post(available(1), available(2), 30)
    book.emit("sale", "users:1")
    book.follow_up(Register(user_id=7, language="en"))
    tables = [operation.table for operation in operations(book, entries_of(book, PARTITIONS))]
    assert tables == ["accounts", "commands", "events", "postings"]


def test_a_statement_has_as_many_arguments_as_it_names(book: Book) -> None:
    book.post(available(1), available(2), 30)
    book.emit("sale", "users:1", "feed")
    outcomes = {FIRST: Outcome(Status.SUCCEEDED, result={"a": 1}), SECOND: Outcome(Status.FAILED, error="a bug")}
    write = write_of(changes_of(book, [], []), outcomes, NOW)
    count = len(write.arguments)
    assert f"${count}::" in write.statement
    assert f"${count + 1}::" not in write.statement
    assert write.arguments[0] == NOW
    assert list(write.arguments[-5]) == [FIRST, SECOND]


def test_the_platforms_accounts_are_added_up_and_may_fall(book: Book) -> None:
    book.post(available(1), Side(WITHDRAWALS), 30)
    book.post(Side(WITHDRAWALS), available(2), 50)
    assert platform_changes(book) == {WITHDRAWALS: -20}


@pytest.mark.parametrize(
    ("later", "status", "accepted_at"),
    [(None, "accepted", NOW), (timedelta(), "accepted", NOW), (timedelta(microseconds=1), "scheduled", None)],
)
def test_a_follow_up_is_accepted_with_its_batch_unless_its_time_is_to_come(
    book: Book, later: timedelta | None, status: str, accepted_at: datetime | None
) -> None:
    book.follow_up(Register(user_id=7, language="en"), None if later is None else NOW + later)
    [insert] = changes_of(book, entries_of(book, PARTITIONS), [])
    columns: dict[str, Any] = dict(zip(insert.operation.columns, insert.arguments, strict=True))
    assert columns["status"] == (status,)
    assert columns["accepted_at"] == (accepted_at,)
    assert columns["partition"] == (partition_of("user:7", PARTITIONS),)


def test_the_fields_of_an_entry_are_columns_of_the_table() -> None:
    assert set(Entry._fields) <= set(commands.columns.keys())


def test_an_entry_with_secrets_that_nobody_sealed_is_refused() -> None:
    command = Approve(account_id=SECOND, code="12345", password="hidden", name="mine")
    with pytest.raises(ValueError, match=r"secrets of accounts\.approve must be sealed"):
        Entry.of(command, Facts(FIRST, actor=1), PARTITIONS)
