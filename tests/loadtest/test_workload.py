"""The seeded marketplace: the same seed, the same commands, and a model that foresees their outcomes."""

import json
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.workload import FEE_BP, FUNDS_NANO, PRICE_MAX_NANO, Marketplace


def marketplace(seed: int = 1, *, users: int = 20, items: int = 30, skew: float = 0.8) -> Marketplace:
    return Marketplace(seed=seed, users=users, items=items, skew=skew, base=1_000, run="test")


def trades(market: Marketplace, count: int) -> list[tuple[dict[str, Any], str]]:
    return [(json.loads(command.body), command.foreseen) for command in islice(market.commands(), count)]


class Rules:
    """The rules of direct sales as the documentation states them, told apart from the generator's own model."""

    def __init__(self, market: Marketplace) -> None:
        self.owners = {item.nft_id: item.owner_id for item in market.items}
        self.prices: dict[int, int] = {}
        self.money = dict.fromkeys(market.traders, FUNDS_NANO) | dict.fromkeys(market.poor, 0)

    def outcome(self, command: dict[str, Any]) -> str:
        nft_id, actor, payload = command["payload"]["nft_id"], command["actor"], command["payload"]
        owner, price = self.owners[nft_id], self.prices.get(nft_id)
        match command["kind"]:
            case "nft.set_price":
                if actor != owner:
                    return "NFT_PERMISSION_DENIED"
                self.prices.pop(nft_id, None)
                if payload["price_nano"] is not None:
                    self.prices[nft_id] = payload["price_nano"]
            case "nft.transfer":
                if actor != owner:
                    return "NFT_PERMISSION_DENIED"
                if payload["to_user_id"] == actor:
                    return "SELF_TRADE_NOT_ALLOWED"
                self.owners[nft_id] = payload["to_user_id"]
                self.prices.pop(nft_id, None)
            case "nft.buy":
                if price is None:
                    return "NFT_NOT_ON_SALE"
                if actor == owner:
                    return "SELF_TRADE_NOT_ALLOWED"
                if payload["price_nano"] != price:
                    return "PRICE_CHANGED"
                if self.money[actor] < price:
                    return "INSUFFICIENT_BALANCE"
                self.money[actor] -= price
                self.money[owner] += price - price * FEE_BP // 10_000
                self.owners[nft_id] = actor
                del self.prices[nft_id]
        return "succeeded"


def test_the_same_seed_gives_the_same_commands() -> None:
    one, other = marketplace(7), marketplace(7)
    memos = {user_id: f"memo{user_id}" for user_id in one.traders}
    for market in (one, other):
        assert len(market.traders) == len(memos)
    assert list(one.registrations()) == list(other.registrations())
    assert list(one.deposits(memos)) == list(other.deposits(memos))
    assert list(one.intakes()) == list(other.intakes())
    assert trades(one, 500) == trades(other, 500)


def test_another_seed_gives_other_commands() -> None:
    assert trades(marketplace(1), 100) != trades(marketplace(2), 100)


@given(st.integers(0, 10_000), st.integers(4, 30), st.integers(1, 40), st.floats(0, 2))
def test_the_model_foresees_what_the_rules_say(seed: int, users: int, items: int, skew: float) -> None:
    market = marketplace(seed, users=users, items=items, skew=skew)
    rules = Rules(market)
    for command, foreseen in trades(market, 300):
        assert rules.outcome(command) == foreseen


def test_most_commands_succeed_and_every_refusal_occurs() -> None:
    outcomes = Counter(foreseen for _, foreseen in trades(marketplace(), 5_000))
    assert outcomes["succeeded"] > 4_000
    assert set(outcomes) == {
        "succeeded",
        "PRICE_CHANGED",
        "SELF_TRADE_NOT_ALLOWED",
        "INSUFFICIENT_BALANCE",
        "NFT_NOT_ON_SALE",
        "NFT_PERMISSION_DENIED",
    }


def test_every_command_has_a_key_of_its_own() -> None:
    market = marketplace()
    keys = [json.loads(command.body)["idempotency_key"] for command in market.registrations()]
    keys += [command["idempotency_key"] for command, _ in trades(market, 1_000)]
    assert len(set(keys)) == len(keys)


def test_skew_makes_some_items_hot() -> None:
    def hottest(skew: float) -> int:
        items = Counter(command["payload"]["nft_id"] for command, _ in trades(marketplace(skew=skew), 3_000))
        return items.most_common(1)[0][1]

    assert hottest(1.5) > 3 * hottest(0.0)


def test_commands_of_an_item_form_a_chain() -> None:
    for command in islice(marketplace().commands(), 200):
        assert command.chain == f"nft:{json.loads(command.body)['payload']['nft_id']}"


def test_the_poor_are_registered_but_not_funded() -> None:
    market = marketplace()
    funded = [command.chain for command in market.deposits(dict.fromkeys(market.traders, "memo"))]
    registered = [command.chain for command in market.registrations()]
    assert market.poor
    assert sorted(registered) == sorted([*funded, *(f"user:{user_id}" for user_id in market.poor)])


def test_prices_keep_within_the_documented_bounds() -> None:
    prices = [command["payload"].get("price_nano") for command, _ in trades(marketplace(), 3_000)]
    stale = 10_000_000
    assert all(10_000_000 <= price <= PRICE_MAX_NANO + stale for price in prices if price is not None)


def test_each_purchase_of_a_listed_item_has_a_buyer_who_is_not_its_owner() -> None:
    market = marketplace()
    rules = Rules(market)
    for command in (*market.listings(market.items, 5), *market.purchases(market.items)):
        assert rules.outcome(json.loads(command.body)) == "succeeded"


def test_a_marketplace_needs_somebody_to_trade_with() -> None:
    with pytest.raises(ValueError, match="at least 4 users"):
        marketplace(users=3)
