"""Who wrote: a log kept by triggers that the load test puts into its own database, and what it must show.

`loadtest.leases` has every change of a partition's fence or owner, `loadtest.writes` the outcomes of one batch in one
partition, with the fence that the partition has at that moment and the connection that wrote them. Both number their
rows while the partition's row is locked until the COMMIT, so for one partition the order of the numbers is that of the
commits; `guarded` says whether the writer did hold that lock.

A connection belongs to one process for life, and a fence to the worker that took it. So when no connection ever wrote
under the fences of two workers, each fence had one writer.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

LEASES = """
CREATE SCHEMA loadtest;
CREATE SEQUENCE loadtest.numbers;
CREATE TABLE loadtest.leases (
    number bigint DEFAULT nextval('loadtest.numbers'), partition smallint, fence bigint, owner text, at timestamptz
);
CREATE FUNCTION loadtest.log_leases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO loadtest.leases (partition, fence, owner, at)
    SELECT id, after.fence, after.owner, clock_timestamp() FROM before JOIN after USING (id)
    WHERE (before.fence, before.owner) IS DISTINCT FROM (after.fence, after.owner);
    RETURN NULL;
END $$;
CREATE TRIGGER log_leases AFTER UPDATE ON partitions REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION loadtest.log_leases();
"""
"""Logs who has what: adds nothing to a batch."""

WRITES = """
CREATE TABLE loadtest.writes (
    number bigint DEFAULT nextval('loadtest.numbers'), partition smallint, fence bigint, guarded boolean,
    connection text, commands uuid[]
);
CREATE FUNCTION loadtest.log_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO loadtest.writes (partition, fence, guarded, connection, commands)
    SELECT partitions.id, partitions.fence, pg_current_xact_id()::xid IN (partitions.xmax, partitions.xmin),
        pg_backend_pid() || ' since ' || (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())), ids
    FROM (
        SELECT after.partition, array_agg(id) AS ids FROM before JOIN after USING (id)
        WHERE before.finished_at IS NULL AND after.finished_at IS NOT NULL AND after.status <> 'cancelled'
        GROUP BY 1
    ) AS finished JOIN partitions ON partitions.id = finished.partition;
    RETURN NULL;
END $$;
CREATE TRIGGER log_writes AFTER UPDATE ON commands REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION loadtest.log_writes();
"""
"""Logs the outcomes that workers write, beside LEASES; a cancellation is the API's, and needs no lease."""


class Lease(NamedTuple):
    """A partition has this fence and owner from now on."""

    number: int
    partition: int
    fence: int
    owner: str | None


class Write(NamedTuple):
    """Outcomes of commands of a partition, in one transaction."""

    number: int
    partition: int
    fence: int
    guarded: bool
    connection: str
    commands: Sequence[str]


@dataclass(frozen=True, slots=True)
class Writing:
    """Both logs, in the order of their numbers."""

    log: Sequence[Lease | Write]

    def strangers(self, ids: Iterable[str]) -> Iterator[str]:
        """What does not fit one writer for each fence, in a sentence each. `ids`: commands that have an outcome."""
        fences: dict[int, int] = {}
        takers: dict[str, str] = {}
        workers: dict[str, str] = {}
        for entry in self.log:
            place = f"partition {entry.partition} under fence {entry.fence}"
            known = fences.get(entry.partition, 0)
            if isinstance(entry, Lease):
                if entry.fence < known:
                    yield f"fences: {place}, after {known}"
                fences[entry.partition] = entry.fence
                if entry.owner is not None and takers.setdefault(place, entry.owner) != entry.owner:
                    yield f"two writers: {place} is taken by {entry.owner}, while it is {takers[place]}'s"
                continue
            taker = takers.get(place, "nobody")
            if entry.fence != known:
                yield f"fences: {place} is written, while its fence is {known}"
            if not entry.guarded:
                yield f"two writers: {place} is written without its lock"
            if "nobody" in (taker, first := workers.setdefault(entry.connection, taker)) or first != taker:
                yield f"two writers: {place}, {taker}'s, is written by {first} ({entry.connection})"
        written = {id_ for entry in self.log if isinstance(entry, Write) for id_ in entry.commands}
        yield from (f"two writers: nobody knows who wrote the outcome of {id_}" for id_ in ids if id_ not in written)

    def figures(self) -> dict[str, int]:
        """How many batches of a partition there were, under how many fences, of how many workers."""
        leases = [entry for entry in self.log if isinstance(entry, Lease) and entry.owner is not None]
        return {
            "batches": sum(isinstance(entry, Write) for entry in self.log),
            "fences": len({(lease.partition, lease.fence) for lease in leases}),
            "writers": len({lease.owner for lease in leases}),
        }


async def writing(connection: "asyncpg.Connection[Any]") -> Writing:
    leases = await connection.fetch("SELECT number, partition, fence, owner FROM loadtest.leases")
    writes = await connection.fetch(
        "SELECT number, partition, fence, guarded, connection, commands::text[] FROM loadtest.writes"
    )
    log: list[Lease | Write] = [*(Lease(*row) for row in leases), *(Write(*row) for row in writes)]
    return Writing(sorted(log, key=lambda entry: entry.number))
