"""Setting up before the measurement: in big batches, and all of it must succeed."""

from collections.abc import Callable, Iterable

from loadtest.measure import Tally
from loadtest.pace import Command, closed_loop
from loadtest.submit import Receipt, Submitter
from loadtest.workload import Marketplace
from souk_client import Client

BATCH = 250
CONCURRENCY = 4


class SetupFailed(Exception):
    """A command that the measurement stands on did not succeed."""


async def all_succeed(
    client: Client,
    commands: Iterable[Command],
    *,
    tally: Tally | None = None,
    on_answer: Callable[[Command, Receipt], None] | None = None,
) -> Tally:
    """Submits the commands; raises SetupFailed unless every outcome is the one foreseen."""
    tally = tally or Tally()
    submit = Submitter(client, tally, batched=True, on_answer=on_answer)
    await closed_loop(commands, submit, concurrency=CONCURRENCY, batch=BATCH)
    if tally.unforeseen or not tally.sound():
        seen = ", ".join(f"{count} {what}" for what, count in tally.unforeseen.items())
        message = f"setting up did not go through: {seen or 'no answer'} ({tally.unfinished} unfinished)"
        raise SetupFailed(message)
    return tally


async def populate(client: Client, market: Marketplace) -> None:
    """Users registered and funded, items received."""
    await all_succeed(client, market.deposits(await memos_of(client, market.registrations())))
    await all_succeed(client, market.intakes())


async def memos_of(client: Client, registrations: Iterable[Command], tally: Tally | None = None) -> dict[int, str]:
    """Registers users; each one's deposit memo, as the answer gives it."""
    memos: dict[int, str] = {}

    def note(command: Command, receipt: Receipt) -> None:
        if receipt.get("result"):
            memos[command.tag] = receipt["result"]["memo"]

    await all_succeed(client, registrations, tally=tally, on_answer=note)
    return memos
