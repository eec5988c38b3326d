"""The checker: a history and the facts, and every way in which they cannot both be true.

| claim | broken when |
|-------|-------------|
| nothing accepted is lost | an acknowledged command has no row, or no outcome |
| one outcome | a receipt, once final, changes; or the journal says otherwise than a client was told |
| one effect | a purchase that succeeded has not exactly one deal and its postings, any other command has some |
| order | a command acknowledged before another on its item was sent is executed after it |
| one writer | the fence of a partition fell, or two workers wrote under one, or one without the partition's row lock |
| order of timers | likewise for two commands that were scheduled, the first of them due no later than the second |
| linearizable | executed again one by one, in the same order, by the plainest model, an item's commands end otherwise |
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from loadtest.faults.history import FINAL, Facts, Item, Operation, Row

POSTINGS_OF_A_PURCHASE = 2
"""The seller's part and the fee."""


def violations(history: Sequence[Operation], facts: Facts) -> list[str]:
    """A sentence for each, naming the command; none when all is well."""
    return [
        *_lost(history, facts),
        *_told_otherwise(history, facts),
        *_doubled(facts),
        *_out_of_order(history, facts),
        *facts.writing.strangers(row.id for row in facts.rows if row.status in FINAL),
        *_not_linear(facts),
    ]


def _lost(history: Sequence[Operation], facts: Facts) -> Iterator[str]:
    ids = {row.id for row in facts.rows}
    for operation in history:
        if operation.id is not None and operation.id not in ids:
            yield f"lost: {operation.id} was acknowledged, and the journal has no such command"
    for row in facts.rows:
        if row.status not in FINAL:
            yield f"lost: {row.id} has no outcome, it is {row.status}"
        elif row.status == "failed":
            yield f"failed: {row.id} was set aside: {(row.error or '').strip().rpartition(chr(10))[2]}"


def _told_otherwise(history: Sequence[Operation], facts: Facts) -> Iterator[str]:
    rows = {row.id: row for row in facts.rows}
    for operation in history:
        finals = [seen for seen in operation.seen if seen[0] in FINAL]
        row = rows.get(operation.id or "")
        if row is not None and any(seen != (row.status, row.code) for seen in finals):
            yield f"told otherwise: {row.id} is {row.status} {row.code}, a client was told {finals}"
        first = next((number for number, seen in enumerate(operation.seen) if seen[0] in FINAL), None)
        if first is not None and len(finals) != len(operation.seen) - first:
            yield f"told otherwise: {operation.id} was final, and then was not: {operation.seen}"


def _doubled(facts: Facts) -> Iterator[str]:
    for key, count in Counter(row.key for row in facts.rows).items():
        if count > 1:
            yield f"doubled: the key {key} has {count} commands"
    for row in facts.rows:
        bought = row.kind == "nft.buy" and row.status == "succeeded"
        if (row.deals, row.postings) != ((1, POSTINGS_OF_A_PURCHASE) if bought else (0, 0)):
            effects = f"{row.deals} deals, {row.postings} postings"
            yield f"doubled or missing effect: {row.id} ({row.kind}, {row.status}) has {effects}"


def _out_of_order(history: Sequence[Operation], facts: Facts) -> Iterator[str]:
    operations = {operation.id: operation for operation in history if operation.id is not None}
    by_item: defaultdict[int, list[Row]] = defaultdict(list)
    for row in facts.rows:
        by_item[row.nft_id].append(row)
    for rows in by_item.values():
        earliest: Operation | None = None  # the first acknowledged of those that were executed later
        scheduled: list[tuple[Operation, Row]] = []  # those of them that had to wait for their time, if they were told
        for row in reversed(rows):
            operation = operations.get(row.id)
            if operation is None or operation.acknowledged_at is None:
                continue
            if operation.was_scheduled:
                for other, its_row in scheduled:
                    if _is_before(other, operation) and _is_due_no_later(its_row, row):
                        yield f"out of order: {other.id} was scheduled before {row.id} was sent, and executed after it"
            if earliest is not None and _is_before(earliest, operation):
                yield f"out of order: {earliest.id} was acknowledged before {row.id} was sent, and executed after it"
            if row.run_at is not None:
                scheduled.append((operation, row))
            elif earliest is None or operation.acknowledged_at < (earliest.acknowledged_at or 0):
                earliest = operation


def _is_before(one: Operation, other: Operation) -> bool:
    return one.acknowledged_at is not None and one.acknowledged_at < other.sent_at


def _is_due_no_later(one: Row, other: Row) -> bool:
    return one.run_at is not None and other.run_at is not None and one.run_at <= other.run_at


def _not_linear(facts: Facts) -> Iterator[str]:
    items = dict(facts.before)
    for row in facts.rows:
        if row.status in ("succeeded", "rejected"):
            items[row.nft_id], code = execute(items[row.nft_id], row)
            if code != row.code:
                yield f"not linear: {row.id} ({row.kind}) ended {row.code or 'well'}, not {code or 'well'}"
    for nft_id, item in items.items():
        if facts.after.get(nft_id) != item:
            yield f"not linear: item {nft_id} is {facts.after.get(nft_id)}, its commands make it {item}"


def execute(item: Item, row: Row) -> tuple[Item, str | None]:
    """The plainest model of an item: what a command makes of it, or why it is refused."""
    match row.kind:
        case "nft.set_price":
            if row.actor != item.owner_id:
                return item, "NFT_PERMISSION_DENIED"
            return Item(item.owner_id, row.payload["price_nano"]), None
        case "nft.buy":
            if item.price_nano is None:
                return item, "NFT_NOT_ON_SALE"
            if row.actor == item.owner_id:
                return item, "SELF_TRADE_NOT_ALLOWED"
            if row.payload["price_nano"] != item.price_nano:
                return item, "PRICE_CHANGED"
            return Item(row.actor, None), None
        case _:
            if row.actor != item.owner_id:
                return item, "NFT_PERMISSION_DENIED"
            if row.payload["to_user_id"] == row.actor:
                return item, "SELF_TRADE_NOT_ALLOWED"
            return Item(int(row.payload["to_user_id"]), None), None
