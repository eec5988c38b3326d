"""The codes of a kind, read off its rule. That none is missing is asserted by every rejection in a world (world.py)."""

from collections.abc import Iterator
from typing import Any

import pytest

from commands.auctions import PlaceBid
from commands.book import Book
from commands.command import KINDS, USER, Command, Envelope
from commands.nft.sales import Buy, SetPrice
from commands.offers import Withdraw
from commands.outcome import Code, Rejection
from commands.rejections import rejection_codes
from commands.users import Register


def test_they_are_those_of_the_actor_of_the_rule_and_of_the_rules_it_calls_in_their_order() -> None:
    assert [code.name for code in rejection_codes(Buy)] == [
        "USER_NOT_FOUND",
        "USER_BLOCKED",
        "NFT_NOT_FOUND",
        "NFT_NOT_ON_SALE",
        "NFT_ON_AUCTION",
        "NFT_IN_BUNDLE",
        "NFT_NOT_AVAILABLE",
        "SELF_TRADE_NOT_ALLOWED",
        "PRICE_CHANGED",
        "INSUFFICIENT_BALANCE",
    ]


def test_they_are_of_this_kind_alone() -> None:
    assert Code.PRICE_CHANGED not in rejection_codes(SetPrice)
    assert Code.BID_TOO_LOW in rejection_codes(PlaceBid)
    assert Code.USER_BLOCKED not in rejection_codes(Withdraw), "a blocked user gets back what is open"
    assert rejection_codes(Register) == ()


def test_no_code_is_of_no_kind() -> None:
    assert {code for command in KINDS.values() for code in rejection_codes(command)} == set(Code)


@pytest.fixture
def hiding() -> Iterator[type[Command]]:
    """Its code is named in a function within."""

    class Hiding(Command, kind="test.hiding", sent_by=USER):
        def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
            def refuse() -> dict[str, Any]:
                raise Rejection(Code.LIMIT_REACHED)

            return refuse()

    yield Hiding
    del KINDS["test.hiding"]


def test_a_code_named_in_a_function_within_is_found(hiding: type[Command]) -> None:
    assert Code.LIMIT_REACHED in rejection_codes(hiding)
