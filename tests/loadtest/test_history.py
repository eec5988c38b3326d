"""A sales history as commands."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.history import BadHistory, Sale, deposits, intakes, plan, read, registrations, renumbered
from loadtest.workload import TON, Script

ANN, BEN, CAT, DAN = 1, 2, 3, 4


def steps(*sales: Sale) -> list[tuple[Any, ...]]:
    """(kind, item, actor, price or receiver, foreseen) of each planned command."""
    found = []
    for command in plan(sales, Script("test")).commands:
        body = json.loads(command.body)
        payload = body["payload"]
        last = payload.get("price_nano", payload.get("to_user_id"))
        found.append((body["kind"], payload["nft_id"], body["actor"], last, command.foreseen))
    return found


def test_a_sale_is_a_listing_and_a_purchase() -> None:
    assert steps(Sale(7, TON, ANN, BEN)) == [
        ("nft.set_price", 7, ANN, TON, "succeeded"),
        ("nft.buy", 7, BEN, TON, "succeeded"),
    ]


def test_an_item_is_moved_to_a_seller_who_is_not_its_last_buyer() -> None:
    assert [step[:4] for step in steps(Sale(7, TON, ANN, BEN), Sale(7, 2 * TON, CAT, DAN))] == [
        ("nft.set_price", 7, ANN, TON),
        ("nft.buy", 7, BEN, TON),
        ("nft.transfer", 7, BEN, CAT),
        ("nft.set_price", 7, CAT, 2 * TON),
        ("nft.buy", 7, DAN, 2 * TON),
    ]


@pytest.mark.parametrize("price", [0, TON // 100 - 1, 100_000 * TON + 1])
def test_a_sale_out_of_bounds_must_be_refused_and_changes_no_owner(price: int) -> None:
    assert steps(Sale(7, price, ANN, BEN), Sale(7, TON, BEN, CAT)) == [
        ("nft.set_price", 7, ANN, price, "invalid"),
        ("nft.buy", 7, BEN, price, "invalid"),
        ("nft.transfer", 7, ANN, BEN, "succeeded"),
        ("nft.set_price", 7, BEN, TON, "succeeded"),
        ("nft.buy", 7, CAT, TON, "succeeded"),
    ]


def test_an_item_is_not_moved_for_a_sale_that_is_refused() -> None:
    sales = (Sale(7, TON, ANN, BEN), Sale(7, 0, CAT, DAN))
    assert "nft.transfer" not in [step[0] for step in steps(*sales)]
    assert plan(sales, Script("test")).last_owners == {7: BEN}


def test_the_price_bounds_themselves_are_in_bounds() -> None:
    replay = plan([Sale(7, TON // 100, ANN, BEN), Sale(7, 100_000 * TON, BEN, ANN)], Script("test"))
    assert (replay.sales, replay.refused, replay.moved) == (2, 0, 0)


def test_the_plan_counts_what_the_tables_must_show() -> None:
    sales = [
        Sale(7, 3 * TON, ANN, BEN),
        Sale(8, TON, BEN, ANN),
        Sale(7, 0, BEN, CAT),
        Sale(7, 5 * TON, CAT, DAN),
        Sale(9, 1, DAN, ANN),
    ]
    replay = plan(sales, Script("test"))
    assert replay.users == [ANN, BEN, CAT, DAN]
    assert replay.first_owners == {7: ANN, 8: BEN, 9: DAN}
    assert replay.last_owners == {7: DAN, 8: ANN, 9: DAN}
    assert (replay.sales, replay.refused, replay.moved, replay.total_nano) == (3, 2, 1, 9 * TON)
    assert replay.spending == {BEN: 3 * TON, ANN: TON, DAN: 5 * TON}


def test_commands_of_an_item_follow_each_other_in_the_order_of_its_sales() -> None:
    sales = [Sale(7, TON, ANN, BEN), Sale(8, TON, ANN, BEN), Sale(7, TON, BEN, ANN), Sale(8, TON, BEN, ANN)]
    assert [step[1] for step in steps(*sales)] == [7, 7, 7, 7, 8, 8, 8, 8]
    assert [step[2] for step in steps(*sales)] == [ANN, BEN, BEN, ANN] * 2


def test_what_one_deposit_may_not_carry_comes_in_several() -> None:
    replay = plan([Sale(7, 100_000 * TON, ANN, BEN), Sale(8, 50_000 * TON, ANN, BEN)], Script("test"))
    amounts = [json.loads(each.body)["payload"]["amount_nano"] for each in deposits(replay, Script("test"), {BEN: "m"})]
    assert amounts == [75_000 * TON, 75_000 * TON]


def test_several_deposits_of_a_user_have_hashes_of_their_own() -> None:
    replay = plan([Sale(7, 100_000 * TON, ANN, BEN), Sale(8, 100_000 * TON, ANN, BEN)], Script("test"))
    hashes = [json.loads(each.body)["payload"]["hash"] for each in deposits(replay, Script("test"), {BEN: "m"})]
    assert len(hashes) == len(set(hashes)) == 2


def test_everybody_is_registered_and_each_item_received_by_its_first_seller() -> None:
    replay, script = plan([Sale(7, TON, ANN, BEN), Sale(7, TON, CAT, DAN)], Script("test")), Script("test")
    assert [each.tag for each in registrations(replay, script)] == [ANN, BEN, CAT, DAN]
    received = [json.loads(each.body)["payload"] for each in intakes(replay, script)]
    assert [(each["nft_id"], each["gift"]["id"], each["sender_id"]) for each in received] == [(7, 7, ANN)]


def test_the_same_history_gives_the_same_keys() -> None:
    sales = [Sale(7, TON, ANN, BEN), Sale(8, TON, BEN, ANN)]
    assert plan(sales, Script("x")).commands == plan(sales, Script("x")).commands


def test_an_item_below_one_gets_an_id_above_all_others() -> None:
    sales = [Sale(0, TON, ANN, BEN), Sale(7, TON, ANN, BEN), Sale(0, TON, BEN, CAT)]
    assert renumbered(sales) == ([sale._replace(nft_id=sale.nft_id or 8) for sale in sales], {0: 8})


def test_items_from_one_on_keep_their_ids() -> None:
    sales = [Sale(1, TON, ANN, BEN), Sale(7, TON, ANN, BEN)]
    assert renumbered(sales) == (sales, {})


def test_a_file_is_read_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "sales.csv"
    file.write_text(
        "sold_at,nft_id,price_nano,seller,buyer\n2020-01-01T00:00:00Z,7,5,1,2\n2020-01-02T00:00:00Z,7,6,2,3\n"
    )
    assert read(file) == [Sale(7, 5, 1, 2), Sale(7, 6, 2, 3)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sold_at,nft_id,price,seller,buyer\n", "no column price_nano"),
        ("nft_id,price_nano,seller,buyer\n7,1.5,1,2\n", ":2: not whole numbers"),
        ("nft_id,price_nano,seller,buyer\n7,5,1,2\n7,5,1\n", ":3: not whole numbers"),
        ("nft_id,price_nano,seller,buyer\n7,5,1,1\n", ":2: 1 sells to itself"),
        ("nft_id,price_nano,seller,buyer\n7,5,0,1\n", ":2: users are numbered from 1"),
        ("", "no column nft_id"),
    ],
)
def test_a_file_that_is_no_sales_history_says_where(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "sales.csv"
    file.write_text(text)
    with pytest.raises(BadHistory, match=complaint):
        read(file)
