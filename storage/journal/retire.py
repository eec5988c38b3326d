"""How long the past is kept: idempotency keys, finished commands, the log of calls to the outside.

Each is a walk through a table in the order of its ids, which are the order of time, a bounded step a statement. How far
it has come is a row of `maintenance`: whoever has locked it takes the step, all others pass it by, so that any number
of workers may try at once. A walk for which nothing comes late goes through the table once; one that leaves behind what
is not finished yet begins anew when it has come to the end, and finds there little but that.
"""

from typing import NamedTuple

from storage.postgres.connection import Connection
from storage.settings import Settings
from storage.tables import archived_commands

STEP_MAX = 1_000
"""Rows that one step looks at."""

_COLUMNS = ", ".join(archived_commands.columns.keys())

_START = "'00000000-0000-0000-0000-000000000000'::uuid"

# The first 48 bits of an id are its time, in milliseconds, and none is of before 1970. $1 are days.
_OLD = "statement_timestamp() - make_interval(days => $1)"
_MILLISECONDS = f"greatest(0, extract(epoch FROM {_OLD}) * 1000)::bigint"
_CUTOFF = f"rpad(lpad(to_hex({_MILLISECONDS}), 12, '0'), 32, '0')::uuid"

_WALK = f"""
WITH place AS (
    SELECT position FROM maintenance WHERE name = '{{name}}' FOR UPDATE SKIP LOCKED
), step AS MATERIALIZED (
    SELECT {{looked_at}} FROM {{table}}
    WHERE {{id}} > (SELECT position FROM place) AND {{id}} < {_CUTOFF}
    ORDER BY {{id}} LIMIT {{step_max}}
), moved AS (
    UPDATE maintenance SET position = CASE
        WHEN (SELECT count(*) FROM step) = {{step_max}} OR {{once}}
        THEN coalesce((SELECT {{id}} FROM step ORDER BY {{id}} DESC LIMIT 1), place.position)
        ELSE {_START} END
    FROM place WHERE name = '{{name}}'
), {{changes}}
SELECT (SELECT count(*) FROM step), (SELECT count(*) FROM changed)
"""  # noqa: S608 - constant

# Nobody is helped by a key that may be used again while its first command is still to come.
_KEYS = {
    "name": "keys",
    "table": "commands",
    "id": "id",
    "once": "true",
    "looked_at": "id, idempotency_key IS NOT NULL AND finished_at IS NOT NULL AS is_done_with",
    "changes": """changed AS (
    UPDATE commands SET idempotency_key = NULL FROM step WHERE commands.id = step.id AND is_done_with RETURNING 1
)""",
}

# Kept in any case: commands that may be run again, or whose secrets are still waited for; and of those that say what
# no other table does, how an item changed hands, what they say.
_COMMANDS = {
    "name": "commands",
    "table": "commands",
    "id": "id",
    "once": "false",
    "looked_at": f"id, finished_at < {_OLD} AND status <> 'failed' AND secrets IS NULL AS is_done_with",
    "changes": f"""changed AS (
    DELETE FROM commands USING step WHERE commands.id = step.id AND is_done_with RETURNING commands.*
), kept AS (
    INSERT INTO archived_commands ({_COLUMNS}) SELECT {_COLUMNS} FROM changed
    WHERE $2 OR (status = 'succeeded' AND kind IN ('nft.transfer', 'nft.return_confirm', 'auctions.settle'))
    ON CONFLICT DO NOTHING
), told AS (
    UPDATE maintenance SET position = greatest(position, last.id)
    FROM (SELECT id FROM changed WHERE NOT $2 ORDER BY id DESC LIMIT 1) AS last WHERE name = 'deleted'
)""",  # noqa: S608 - constant
}

_CALLS = {
    "name": "gateway_log",
    "table": "gateway_log",
    "id": "reference",
    "once": "false",
    "looked_at": f"""reference, number, at < {_OLD} AND NOT EXISTS (
        SELECT FROM gateway_requests AS request WHERE request.reference = gateway_log.reference AND closed_at IS NULL
    ) AS is_done_with""",
    "changes": """changed AS (
    DELETE FROM gateway_log AS log USING step
    WHERE log.reference = step.reference AND log.number = step.number AND is_done_with RETURNING 1
)""",
}


def statement(walk: dict[str, str], step_max: int = STEP_MAX) -> str:
    return _WALK.format(**walk, step_max=int(step_max))


class Step(NamedTuple):
    """Rows looked at: as many as one may look at, when there is more; and those that were changed."""

    looked_at: int
    changed: int


async def expire_keys(connection: Connection, settings: Settings, step_max: int = STEP_MAX) -> Step:
    """Idempotency keys older than they are kept may be used again, as new ones."""
    return await _take(connection, statement(_KEYS, step_max), settings.idempotency_days)


async def retire_commands(connection: Connection, settings: Settings, step_max: int = STEP_MAX) -> Step:
    """Commands that finished longer ago than they are kept leave the journal: for the archive, or for good."""
    days, archive = settings.keep_commands_days, settings.archive_commands
    if days is None:
        return Step(0, 0)
    return await _take(connection, statement(_COMMANDS, step_max), days, archive)


async def forget_calls(connection: Connection, settings: Settings, step_max: int = STEP_MAX) -> Step:
    """The log of calls to the outside is kept as long as commands are."""
    if settings.keep_commands_days is None:
        return Step(0, 0)
    return await _take(connection, statement(_CALLS, step_max), settings.keep_commands_days)


async def _take(connection: Connection, walk: str, *arguments: object) -> Step:
    [row] = await connection.fetch(walk, *arguments)
    return Step(*row)
