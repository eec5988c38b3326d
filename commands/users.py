"""Users: who may trade. Key `user:<user_id>`.

A user's deposit memo is a function of the id, so a deposit finds its user without a look-up.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import StringConstraints

from commands.book import Account, Book
from commands.command import OPERATOR, PRINTABLE, SYSTEM, USER, Command, Envelope, Reason, UserId
from commands.document import Need, document
from commands.outcome import Code, Rejection

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ_AS = str.maketrans("OIL", "011")
_CHECK_MODULUS = 1021
_MEMO_CHARACTERS = (3, 13)  # an id below 2^53 has 1 to 11 digits, the check two


@document("users", locked=False)
class User(NamedTuple):
    """A user. Changed only by commands of the key `user:<id>`, read by all."""

    id: int
    language: str
    memo: str
    blocked: bool
    withdrawn_at: datetime | None
    opened_at: datetime


def _base32(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 32)
        digits = _DIGITS[digit] + digits
    return digits


def memo_of(user_id: int) -> str:
    """Crockford base 32 of the id, then two base-32 digits of `id mod 1021`."""
    return _base32(user_id) + _base32(user_id % _CHECK_MODULUS).rjust(2, "0")


def user_of(memo: str) -> int | None:
    """The user id in a memo, or None when it does not decode. Case and surrounding space do not matter; O reads as 0,
    I and L as 1."""
    text = memo.strip().upper().translate(_READ_AS)
    if (
        not _MEMO_CHARACTERS[0] <= len(text) <= _MEMO_CHARACTERS[1]
        or text[0] == "0"
        or any(digit not in _DIGITS for digit in text)
    ):
        return None
    user_id = _number(text[:-2])
    return user_id if user_id % _CHECK_MODULUS == _number(text[-2:]) and user_id < 2**53 else None


def _number(text: str) -> int:
    number = 0
    for digit in text:
        number = number * 32 + _DIGITS.index(digit)
    return number


def touch_user(user_id: int) -> Iterator[Need]:
    yield Need(User, user_id)
    yield Need(Account, user_id)


def register(book: Book, user_id: int, language: str = "en") -> bool:
    """Create the user with an empty ledger account; false when known already."""
    if book.get(User, user_id) is not None:
        return False
    book.put(User(user_id, language, memo_of(user_id), blocked=False, withdrawn_at=None, opened_at=book.now))
    book.put(Account(user_id, 0, 0))
    book.emit("user.registered", f"user:{user_id}", "ops", user_id=user_id)
    return True


class Register(Command, kind="users.register", sent_by=USER | SYSTEM, for_newcomers=True):
    """Make the user known, with an empty ledger account and a deposit memo; nothing when known already."""

    user_id: UserId
    language: Annotated[str, StringConstraints(min_length=2, max_length=8, pattern=PRINTABLE)] = "en"

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"user:{self.user_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_user(self.user_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        created = register(book, self.user_id, self.language)
        return {"user_id": self.user_id, "memo": memo_of(self.user_id), "created": created}


def require_user(book: Book, user_id: int) -> User:
    user = book.get(User, user_id)
    if user is None:
        raise Rejection(Code.USER_NOT_FOUND, user_id=user_id)
    return user


class _SetBlocked(Command):
    """What blocking and unblocking share. Open documents stay, and end as they would have."""

    user_id: UserId

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"user:{self.user_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(User, self.user_id)

    def set_blocked(self, book: Book, *, blocked: bool) -> dict[str, Any]:
        user = require_user(book, self.user_id)

        if user.blocked != blocked:
            book.put(user._replace(blocked=blocked))
            name = "user.blocked" if blocked else "user.unblocked"
            book.emit(name, f"user:{user.id}", "ops", user_id=user.id)
        return {"user_id": user.id}


class Block(_SetBlocked, kind="users.block", sent_by=OPERATOR, rejects=(Code.USER_NOT_FOUND,)):
    """From now on the user may only take back what is open."""

    reason: Reason

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        return self.set_blocked(book, blocked=True)


class Unblock(_SetBlocked, kind="users.unblock", sent_by=OPERATOR, rejects=(Code.USER_NOT_FOUND,)):
    """The user may trade again."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        return self.set_blocked(book, blocked=False)
