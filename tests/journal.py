"""A journal to work on without HTTP: submissions of commands, and what came of them."""

from datetime import datetime
from typing import Any

from commands.command import KINDS
from storage.journal.accept import Journal
from storage.journal.entry import Content, Entry, Facts, fingerprint_of, new_id
from storage.journal.receipts import Receipt
from storage.settings import Settings


def submission(
    settings: Settings,
    body: dict[str, Any],
    *,
    key: str | None = None,
    run_at: datetime | None = None,
    not_after: datetime | None = None,
) -> Entry:
    """What the API makes of a body like those of tests.market."""
    command = KINDS[body["kind"]].model_validate(body["payload"])
    facts = Facts(new_id(), body.get("actor"), key, run_at, not_after)
    payload = command.model_dump_json()  # secrets and all: nobody seals them here
    content = Content(payload, fingerprint_of(command.kind, payload))
    return Entry.of(command, facts, settings.partitions, content)


async def accept(journal: Journal, settings: Settings, *bodies: dict[str, Any]) -> list[Receipt]:
    """The receipts of commands that nothing speaks against."""
    answers = await journal.accept([submission(settings, body) for body in bodies])
    receipts = [answer for answer in answers if isinstance(answer, Receipt)]
    assert len(receipts) == len(bodies), answers
    return receipts


async def statuses(journal: Journal, receipts: list[Receipt]) -> list[str]:
    found = await journal.look([receipt.id for receipt in receipts])
    return [receipt.status if receipt else "none" for receipt in found]
