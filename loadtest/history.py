"""A sales history as commands: who must be there with how much money, and what happens to each item, in order.

A row whose price no marketplace command may carry is submitted all the same, and must be refused with 422; its buyer
does not become the owner, so the item's next seller gets it by a transfer.
"""

import csv
import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from loadtest.gifts import gift
from loadtest.pace import Command
from loadtest.workload import TON, Script

PRICE_MIN_NANO, PRICE_MAX_NANO = TON // 100, 100_000 * TON
"""The bounds of a price as documented, and of a deposit that is credited without an operator."""
COLUMNS = ("nft_id", "price_nano", "seller", "buyer")


class BadHistory(Exception):
    """The file is not a sales history; says where and why."""


class Sale(NamedTuple):
    nft_id: int
    price_nano: int
    seller_id: int
    buyer_id: int

    @property
    def in_bounds(self) -> bool:
        return PRICE_MIN_NANO <= self.price_nano <= PRICE_MAX_NANO


@dataclass
class Replay:
    """What is to be done and what must have come of it. The commands of one item follow each other."""

    users: list[int] = field(default_factory=list)
    spending: dict[int, int] = field(default_factory=dict)
    """What each buyer needs up front, if nothing is earned meanwhile."""
    first_owners: dict[int, int] = field(default_factory=dict)
    last_owners: dict[int, int] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    """Tagged with the Sale they belong to if they are its purchase."""
    sales: int = 0
    total_nano: int = 0
    refused: int = 0
    moved: int = 0


def read(path: Path) -> list[Sale]:
    """The sales in the order of the file. Raises BadHistory, OSError."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            message = f"{path}: no column {', '.join(missing)}"
            raise BadHistory(message)
        sales = []
        for row in rows:
            try:
                sale = Sale(*(int(row[column]) for column in COLUMNS))
            except (TypeError, ValueError):
                message = f"{path}:{rows.line_num}: not whole numbers: {', '.join(str(row[each]) for each in COLUMNS)}"
                raise BadHistory(message) from None
            if min(sale.seller_id, sale.buyer_id) < 1:
                message = f"{path}:{rows.line_num}: users are numbered from 1"
                raise BadHistory(message)
            if sale.seller_id == sale.buyer_id:
                message = f"{path}:{rows.line_num}: {sale.seller_id} sells to itself"
                raise BadHistory(message)
            sales.append(sale)
    return sales


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def renumbered(sales: Sequence[Sale]) -> tuple[list[Sale], dict[int, int]]:
    """Items in the marketplace are numbered from 1: one below that in the file gets an id above all others. Returns the
    sales with such ids replaced, and {id in the file: id instead}."""
    ids = {sale.nft_id for sale in sales}
    top = max(ids, default=0)
    instead = {nft_id: max(top, 0) + 1 + number for number, nft_id in enumerate(sorted(i for i in ids if i < 1))}
    return [sale._replace(nft_id=instead.get(sale.nft_id, sale.nft_id)) for sale in sales], instead


def plan(sales: Iterable[Sale], script: Script) -> Replay:
    """The history as commands. Keys are numbered in the order of planning: the same file gives the same commands."""
    replay = Replay()
    users: dict[int, None] = {}
    by_item: dict[int, list[Sale]] = {}
    for sale in sales:
        users[sale.seller_id] = users[sale.buyer_id] = None
        by_item.setdefault(sale.nft_id, []).append(sale)
        if sale.in_bounds:
            replay.spending[sale.buyer_id] = replay.spending.get(sale.buyer_id, 0) + sale.price_nano
    replay.users = list(users)
    for nft_id, item_sales in by_item.items():
        replay.first_owners[nft_id] = item_sales[0].seller_id
        replay.last_owners[nft_id] = _plan_item(replay, script, item_sales)
    return replay


def _plan_item(replay: Replay, script: Script, sales: list[Sale]) -> int:
    """Adds one item's commands; returns its owner after them."""
    nft_id, owner_id = sales[0].nft_id, sales[0].seller_id
    for sale in sales:
        foreseen = "succeeded" if sale.in_bounds else "invalid"
        if sale.in_bounds and owner_id != sale.seller_id:
            replay.commands.append(script.transfer(nft_id, owner_id, sale.seller_id))
            replay.moved += 1
        replay.commands.append(script.set_price(nft_id, sale.seller_id, sale.price_nano, foreseen=foreseen))
        replay.commands.append(script.buy(nft_id, sale.buyer_id, sale.price_nano, foreseen=foreseen, tag=sale))
        if sale.in_bounds:
            owner_id = sale.buyer_id
            replay.sales += 1
            replay.total_nano += sale.price_nano
        else:
            replay.refused += 1
    return owner_id


def registrations(replay: Replay, script: Script) -> Iterator[Command]:
    for user_id in replay.users:
        yield script.register(user_id)


def deposits(replay: Replay, script: Script, memos: dict[int, str]) -> Iterator[Command]:
    """As many equal deposits as the bound on one of them asks for."""
    for user_id, amount_nano in replay.spending.items():
        number = -(-amount_nano // PRICE_MAX_NANO)
        for index in range(number):
            yield script.deposit(user_id, memos[user_id], -(-amount_nano // number), index)


def intakes(replay: Replay, script: Script) -> Iterator[Command]:
    for nft_id, owner_id in replay.first_owners.items():
        yield script.receive(nft_id, owner_id, gift(random.Random(nft_id), nft_id, nft_id))
