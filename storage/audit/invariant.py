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
