"""Which codes a kind may be rejected with, read off its rule: a list kept by hand would be wrong one day."""

from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType

from commands.book import Book
from commands.command import USER, Command
from commands.outcome import Code


@cache
def rejection_codes(command: type[Command]) -> tuple[Code, ...]:
    """In the order of `Code`: what the actor's guards name, and what `execute` names or any rule that it calls."""
    names = set(_named(command, command.execute, set()))
    if command.sent_by & USER and not command.for_newcomers:
        names.add(Code.USER_NOT_FOUND.name)
        if not command.releases_only:
            names.add(Code.USER_BLOCKED.name)
    return tuple(code for code in Code if code.name in names)


def _named(command: type[Command], function: object, seen: set[object]) -> Iterator[str]:
    if not isinstance(function, FunctionType) or function in seen:
        return
    seen.add(function)
    for name in _names(function.__code__):
        if name in Code.__members__:
            yield name
        for called in (function.__globals__.get(name), getattr(command, name, None), getattr(Book, name, None)):
            if getattr(called, "__module__", "").startswith("commands."):
                yield from _named(command, called, seen)


def _names(code: CodeType) -> Iterator[str]:
    """Of globals and attributes, also in the functions within."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
