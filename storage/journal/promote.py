"""Promotes timers: scheduled commands become accepted when the database's clock says so."""

from uuid import UUID

from storage.postgres.connection import Connection


def promotion(due_at: str, accepted_at: str) -> str:
    """Returns the statement that accepts up to $1 of the commands that were due at `due_at`, in the order of `run_at`
    and then of submission; the two are SQL.

    A command takes its place in the journal when it is accepted, so it gets its number now. Numbers are drawn from rows
    that have been sorted, because an UPDATE alone meets its rows in any order. And nobody passes over a row that is
    locked: of several workers the one that locks the first command that is due has the turn, and the others wait for
    its commit behind that command.
    """
    return f"""
WITH due AS MATERIALIZED (
    SELECT id, run_at, seq FROM commands WHERE status = 'scheduled' AND run_at <= {due_at}
    ORDER BY run_at, seq LIMIT $1 FOR UPDATE
), numbered AS MATERIALIZED (
    SELECT id, nextval(pg_get_serial_sequence('commands', 'seq')) AS number, {accepted_at} AS accepted_at
    FROM (SELECT id FROM due ORDER BY run_at, seq) AS sorted
)
UPDATE commands SET status = 'accepted', accepted_at = numbered.accepted_at, seq = numbered.number
FROM numbered WHERE commands.id = numbered.id
RETURNING partition, commands.id
"""  # noqa: S608 - of our own words


# The time of the statement is one for all of it, so the index finds what is due; clock_timestamp() would be compared
# with every timer there is.
PROMOTE = promotion("statement_timestamp()", "clock_timestamp()")


async def promote(connection: Connection, due_max: int) -> list[tuple[int, UUID]]:
    """Accepts the commands that are due, as many at most, and returns their (partition, id)."""
    return [(row["partition"], row["id"]) for row in await connection.fetch(PROMOTE, due_max)]
