"""Erases the secrets that are sealed beside the payloads of commands."""

from storage.postgres.connection import Connection

# A failed command keeps them: it may be run again.
_ERASE = """
UPDATE commands SET secrets = NULL
WHERE secrets IS NOT NULL AND status IN ('succeeded', 'rejected', 'cancelled', 'expired')
    AND NOT EXISTS (SELECT 1 FROM gateway_requests WHERE reference = commands.id AND closed_at IS NULL)
"""


async def erase_secrets(connection: Connection) -> None:
    """Erases what nothing waits for any more: the command has ended, and so has the request that it feeds."""
    await connection.execute(_ERASE)
