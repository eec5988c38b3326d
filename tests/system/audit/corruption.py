"""What can be wrong, and by which name the audit must tell it. `{…}` are the bazaar's names of things."""

from typing import NamedTuple

ELSEWHERE = "00000000-0000-7000-8000-000000000000"


class Corruption(NamedTuple):
    """What is done to a copy, and the finding that the invariant must have then."""

    invariant: str
    name: str
    damage: str
    found: str
