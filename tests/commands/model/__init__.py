"""What the contract says comes of every command: a marketplace of plain dictionaries, which has no part of the rules.

A rule reads as the contract does: refusals in their order, then effects. `market` is the ground, the other modules are
the mechanisms.
"""

from tests.commands.model import items, money, outside, presales, telegram, trades

__all__ = ["items", "money", "outside", "presales", "telegram", "trades"]
