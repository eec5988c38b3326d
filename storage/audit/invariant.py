"""What an invariant is."""

from typing import NamedTuple

TERMS = ("timer_grace_seconds", "auction_extension_max_seconds")
"""Terms of the marketplace that invariants depend on."""


class Invariant(NamedTuple):
    """A statement, the query of what breaks it (one text column), and the query of its figure.

    The first may name TERMS, as `:name`.
    """

    name: str
    statement: str
    broken: str
    figure: str


ALL_COMMANDS = """(
    SELECT id, kind, actor, payload, status FROM commands
    UNION ALL SELECT id, kind, actor, payload, status FROM archived_commands
)"""
"""Those that have left the journal for the archive too."""

PRESENT = "coalesce({id} > (SELECT position FROM maintenance WHERE name = 'deleted'), true)"
"""Whether a command of this id must be there. Where finished ones are deleted instead of archived, those up to a place
may be missing, and what they did is proved no more by them."""
