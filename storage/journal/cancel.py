"""Cancelling a command that has not run.

Its partition's row is locked first, as every batch does: a batch under way ends before, and none begins meanwhile. So a
command is cancelled and never runs, or has its outcome and is not cancelled.
"""

from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from commands.outcome import Status
from storage.journal.changes import finished_event

LOCK_SECONDS = 5
"""How long a batch under way is waited for."""

# Who falls asleep with the lock keeps the partition for so long at most; and what was acknowledged is on disk, whatever
# the database's own default.
_BOUND = text(f"""
    SELECT set_config('lock_timeout', '{LOCK_SECONDS}s', true),
        set_config('idle_in_transaction_session_timeout', '{LOCK_SECONDS}s', true),
        set_config('synchronous_commit', 'on', true)
""")
_LOCK = text("SELECT 1 FROM partitions WHERE id = :partition FOR NO KEY UPDATE")
_CANCEL = text("""
    UPDATE commands SET status = 'cancelled', finished_at = clock_timestamp(), secrets = NULL
    WHERE id = :id AND key_id IS NOT NULL AND status IN ('scheduled', 'accepted')
    RETURNING kind, CASE WHEN notify THEN key_id END AS told
""")
_TELL = text("""
    INSERT INTO events (command_id, name, topics, fields, at)
    VALUES (:command_id, :name, :topics, CAST(:fields AS json), clock_timestamp())
""")


async def cancel(engine: AsyncEngine, command_id: UUID, partition: int) -> bool:
    """Whether it was cancelled now; false when it is final already, or was submitted by nobody but written by another
    command. Raises what the database raises."""
    async with engine.begin() as connection:
        await connection.execute(_BOUND)
        await connection.execute(_LOCK, {"partition": partition})
        row = (await connection.execute(_CANCEL, {"id": command_id})).first()
        if row is not None and row.told is not None:
            event = finished_event(command_id, row.kind, Status.CANCELLED, row.told)
            fields = to_json(event.fields).decode()
            values = {"command_id": command_id, "name": event.name, "topics": list(event.topics), "fields": fields}
            await connection.execute(_TELL, values)
    return row is not None
