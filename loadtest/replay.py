"""`loadtest replay`: a real sales history through the public API, then proof from the tables that all of it happened.

All commands of an item may travel in one body, since those of one asset are executed in the order in which they were
accepted; so an item's whole history is sent ahead, and items go side by side.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from rich.console import Console

from loadtest.client import open_client
from loadtest.history import Replay, Sale, deposits, digest, intakes, plan, read, registrations, renumbered
from loadtest.measure import Tally
from loadtest.pace import Command, closed_loop
from loadtest.populate import all_succeed, memos_of
from loadtest.report import print_checks, print_tally, print_verdict, watching
from loadtest.run import RunResult
from loadtest.stack import Target, audit
from loadtest.submit import Receipt, Submitter
from loadtest.workload import Script

_DEALS = "SELECT count(*) AS count, coalesce(sum(price_nano), 0)::numeric AS nano FROM deals WHERE id = ANY($1::uuid[])"
_OWNERS = "SELECT id, owner_id FROM nfts WHERE id = ANY($1::bigint[])"


async def replay(target: Target, path: Path, console: Console, *, batch: int = 500, concurrency: int = 2) -> RunResult:
    """Good is: every sale in bounds succeeded, every other was refused, owners and sums agree, the audit holds.

    Keys derive from the file's content: replaying it once more on the same installation changes nothing and ends the
    same way, and an interrupted replay may simply be repeated. Raises BadHistory, OSError, SetupFailed.
    """
    sales, instead = renumbered(read(path))
    script = Script(f"replay-{digest(path)[:16]}")
    todo = plan(sales, script)
    deal_ids: list[UUID] = []
    refused: list[Sale] = []

    def note(command: Command, answer: Receipt) -> None:
        if command.tag is None:
            return
        if answer["status"] == "succeeded":
            deal_ids.append(UUID(answer["result"]["deal_id"]))
        elif answer.get("code") == "invalid":
            refused.append(command.tag)

    async with open_client(target.url, target.key) as client:
        console.print(
            f"{path.name}: {len(sales):,} sales of {len(todo.first_owners):,} items among {len(todo.users):,} users; "
            f"registering, funding, receiving at {target.url}",
            highlight=False,
        )
        for nft_id, used in instead.items():
            console.print(f"item {nft_id} is replayed as item {used}: ids start at 1", highlight=False)
        setup = Tally()
        memos = await memos_of(client, registrations(todo, script), tally=setup)
        await all_succeed(client, deposits(todo, script, memos), tally=setup)
        await all_succeed(client, intakes(todo, script), tally=setup)
        tally = Tally()
        submit = Submitter(client, tally, batched=True, on_answer=note)
        async with watching(console, "replay", tally, total=len(todo.commands)):
            await closed_loop(todo.commands, submit, concurrency=concurrency, batch=batch)
    print_tally(console, f"replay of {path.name}", tally)
    verdict = await audit(target.environment)
    checks = [
        ("commands as foreseen", len(todo.commands), tally.settled_count - tally.unforeseen.total()),
        ("sales in bounds succeeded", todo.sales, len(deal_ids)),
        ("sales out of bounds refused (422)", todo.refused, len(refused)),
        *await _checks_of_tables(target.environment["SOUK_DATABASE_URL"], todo, deal_ids),
    ]
    right = print_checks(
        console, "the history, from the tables", [(what, want, got, want == got) for what, want, got in checks]
    )
    print_verdict(console, verdict)
    figures: dict[str, Any] = {
        "file": path.name,
        "url": target.url,
        "renumbered_items": instead,
        "sales": {"in_bounds": todo.sales, "refused": todo.refused, "moved_outside_the_market": todo.moved},
        "sales_per_second": round(len(deal_ids) / tally.elapsed_seconds, 1),
        "setup": setup.as_json(),
        **tally.as_json(),
        "checks": {what: {"expected": want, "found": got} for what, want, got in checks},
        "audit": asdict(verdict),
    }
    return RunResult(right and tally.sound() and verdict.held is True, figures)


async def _checks_of_tables(dsn: str, todo: Replay, deal_ids: list[UUID]) -> list[tuple[str, int, int]]:
    connection = await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "on"})
    try:
        deals = await connection.fetchrow(_DEALS, deal_ids)
        owners = await connection.fetch(_OWNERS, list(todo.last_owners))
    finally:
        await connection.close()
    assert deals is not None  # noqa: S101 - an aggregate has a row
    right = sum(todo.last_owners[row["id"]] == row["owner_id"] for row in owners)
    return [
        ("deals", todo.sales, deals["count"]),
        ("sum of deal prices, nanoTON", todo.total_nano, int(deals["nano"])),
        ("items owned by their last buyer", len(todo.last_owners), right),
    ]
