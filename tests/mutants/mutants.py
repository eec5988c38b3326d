"""The mutants. Each takes one defence out of the code, as a careless change might, and names the checks that fail then.

`tests/mutants/run.py` applies them one at a time to a copy and runs those checks; a patch that no longer fits the code
is found by `tests/mutants/test_mutants.py`.
"""

from pathlib import Path
from typing import NamedTuple


class Patch(NamedTuple):
    """`old`, which stands in the file once, becomes `new`."""

    file: str
    old: str
    new: str

    def apply(self, directory: Path) -> None:
        path = directory / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            message = f"{self.file} holds this {text.count(self.old)} times, and not once:\n{self.old}"
            raise ValueError(message)
        path.write_text(text.replace(self.old, self.new))


class Mutant(NamedTuple):
    """`without` what, and what would come of it. `checks` are arguments of pytest, any of which must fail;
    `seconds` is how long a campaign of faults needs to find it too, where that is a matter of faults."""

    name: str
    without: str
    harm: str
    patches: tuple[Patch, ...]
    checks: tuple[str, ...]
    seconds: int | None = None


_BATCHES = "tests/workers/test_lanes.py::"
_COMMITS = "tests/workers/test_commits.py::"
_AUCTIONS = "tests/commands/test_auctions.py::"
_TIMERS = "tests/workers/test_timers.py::"
_FAULTS = "tests/system/test_faults.py::"
_LEASES = "tests/workers/test_leases.py::"

MUTANTS = (
    Mutant(
        "M1",
        "the commit before the acknowledgement",
        "A crash between the two loses a command whose sender was told that it is accepted.",
        (
            Patch(
                "storage/journal/accept.py",
                "        refused = await self._refusals(submissions, deadline)\n",
                "        await asyncio.gather(*vars(self).pop('_committing', ()), return_exceptions=True)\n"
                "        refused = await self._refusals(submissions, deadline)\n",
            ),
            Patch(
                "storage/journal/accept.py",
                "        answers = await self._insert(admitted, deadline) if admitted else {}\n",
                """\
        try:
            connection = await self._accepting.connected()
            await connection.execute("BEGIN")
        except Exception as error:
            self._accepting.drop()
            raise Unavailable(str(error)) from error
        answers = await self._insert(admitted, deadline) if admitted else {}
""",
            ),
            Patch(
                "storage/journal/accept.py",
                "        return [answers.get(submission.id) or refused[submission.id] for submission in submissions]\n",
                """\
        self._committing = [asyncio.create_task(connection.execute("COMMIT"))]
        return [answers.get(submission.id) or refused[submission.id] for submission in submissions]
""",
            ),
        ),
        ("tests/api/test_durability.py",),
    ),
    Mutant(
        "M2",
        "the fence",
        "A worker that slept past its lease goes on with partitions that are another's by now.",
        (
            Patch(
                "storage/journal/unit_of_work.py",
                'leases = ", ".join(f"({int(partition)}, {int(fence)})" for partition, fence in fences.items())',
                'leases = ", ".join(str(int(partition)) for partition in fences)',
            ),
            Patch("storage/journal/unit_of_work.py", "WHERE (id, fence) IN ({leases})", "WHERE id IN ({leases})"),
        ),
        (f"{_BATCHES}test_an_old_fence_writes_nothing",),
        seconds=45,
    ),
    Mutant(
        "M2b",
        "the lock on the partition, under which the fence is compared",
        "The partition passes to another worker in the middle of a batch, and both execute the same commands.",
        (Patch("storage/journal/unit_of_work.py", " ORDER BY id FOR NO KEY UPDATE", " ORDER BY id"),),
        (f"{_BATCHES}test_a_batch_that_stands_still_cannot_be_overtaken",),
    ),
    Mutant(
        "M3",
        "the token in the release of a lock",
        "Whoever lost a lock while it slept takes it from its next holder when it wakes up.",
        (
            Patch(
                "storage/redis/lock_calls.py",
                "if redis.call('GET', KEYS[i]) ~= token then",
                "if op == 'renew' and redis.call('GET', KEYS[i]) ~= token then",
            ),
        ),
        ("tests/storage/test_locks.py::test_releasing_a_key_that_passed_to_another_leaves_it_alone",),
    ),
    Mutant(
        "M4",
        "the one order of row locks",
        "Two lanes that touch the same accounts wait for each other until PostgreSQL kills one of them.",
        # Left to itself the index gives its own order, so what SQL merely permits has to be said.
        (
            Patch(
                "storage/journal/unit_of_work.py",
                'FROM {source} ORDER BY {order}{lock}"',
                'FROM {source} ORDER BY random(){lock}"',
            ),
        ),
        (f"{_COMMITS}test_batches_over_the_same_accounts_never_deadlock",),
    ),
    Mutant(
        "M5",
        "the refund of an outbid bidder",
        "What an outbid bidder has held stays held by nothing.",
        (
            Patch(
                "commands/auctions.py",
                '        book.release(leader.bidder_id, leader.held_nano, "bid", leader.id)\n',
                "",
            ),
        ),
        (f"{_AUCTIONS}test_an_outbid_bidder_has_the_money_back_at_once",),
    ),
    Mutant(
        "M6",
        "the guard against a second settlement",
        "The timer and a user settle one auction, and it is paid twice.",
        (
            Patch(
                "commands/auctions.py",
                "        _require_active(auction)\n        if not book.is_due",
                "        if not book.is_due",
            ),
        ),
        (f"{_AUCTIONS}test_of_two_settlements_in_a_batch_one_pays",),
    ),
    Mutant(
        "M7",
        "the outcome in the transaction of its effects",
        "A crash between two transactions leaves effects whose command is executed again.",
        (
            Patch(
                "storage/journal/unit_of_work.py",
                "        tag = await self._execute(write.statement, *write.arguments)\n",
                """\
        alone = write_of([], outcomes, book.now)
        effects = write.statement[: write.statement.rindex("UPDATE commands SET status")]
        own = len(alone.arguments) - 1
        await self._connection.execute(effects + "SELECT $1::timestamptz", *write.arguments[:-own])
        await self.commit()
        self._committed = False
        self._platform_nano.clear()
        await self._connection.execute("BEGIN")
        tag = await self._connection.execute(alone.statement, *alone.arguments)
""",
            ),
        ),
        (f"{_COMMITS}test_there_are_no_effects_without_their_outcome",),
    ),
    Mutant(
        "M8",
        "the second look at the journal after a COMMIT without an answer",
        "What was committed after all is done a second time.",
        (
            Patch(
                "workers/batch.py",
                "        await work.write(book, outcomes)\n        await work.commit()\n    _log_failures(outcomes)\n"
                "    claimed",
                """\
        try:
            await work.write(book, outcomes)
            await work.commit()
        except Exception as error:
            if not is_weather(error):
                raise
            from storage.postgres.connection import connect

            another = await connect(settings, "again", timeout_seconds=30)
            async with UnitOfWork(another, settings) as again:
                await again.begin(fences)
                await again.write(book, outcomes)
                await again.commit()
            await another.close()
    _log_failures(outcomes)
    claimed""",
            ),
            Patch("storage/journal/changes.py", " AND commands.finished_at IS NULL\n", "\n"),
        ),
        (f"{_COMMITS}test_what_was_committed_without_an_answer_is_not_done_again",),
    ),
    Mutant(
        "M9",
        "the journal's order, for the order of the clock",
        "A clock that is set back, or two commands of one microsecond, reverse what was accepted in order.",
        (
            Patch(
                "storage/journal/unit_of_work.py",
                "    ORDER BY commands.seq LIMIT $2\n) AS c\nORDER BY c.seq\n",
                "    ORDER BY commands.accepted_at LIMIT $2\n) AS c\nORDER BY c.accepted_at\n",
            ),
        ),
        (f"{_COMMITS}test_commands_run_in_the_order_of_the_journal_whatever_the_clock_said",),
    ),
    Mutant(
        "M10",
        "synchronous_commit",
        "PostgreSQL crashes, and what was acknowledged in its last moments is gone.",
        (Patch("storage/postgres/connection.py", '"synchronous_commit": "on"', '"synchronous_commit": "off"'),),
        ("tests/storage/test_database.py::test_a_commit_is_on_disk_even_where_the_database_is_told_to_be_quick",),
        seconds=45,
    ),
    Mutant(
        "M11",
        "idempotency keys in the journal",
        "A process remembers them, until it ends; another one never knew.",
        (
            Patch(
                "storage/journal/accept.py",
                "        return await self._accepts.add(submissions)\n",
                """\
        known = vars(self).setdefault("_known", {})
        keys = [(one.actor, one.idempotency_key or one.id) for one in submissions]
        for one, key in zip(submissions, keys, strict=True):
            if key not in known:
                known[key] = one, self._accepts.add([one._replace(idempotency_key=None)])
        answers = []
        for one, key in zip(submissions, keys, strict=True):
            first, accepting = known[key]
            try:
                [answer] = await asyncio.shield(accepting)
            except Unavailable:
                known.pop(key, None)
                raise
            if not isinstance(answer, Receipt):
                known.pop(key, None)
            elif one.fingerprint != first.fingerprint:
                answer = KeyReused(one.idempotency_key)
            elif one is not first:
                answer = (await self.read(first.id))._replace(replayed=True)
            answers.append(answer)
        return answers
""",
            ),
        ),
        (
            "tests/api/test_idempotency.py::test_duplicates_at_two_processes_at_once_are_one_command",
            "tests/storage/test_journal.py::test_a_hundred_duplicates_at_once_are_one_command",
        ),
        seconds=40,
    ),
    Mutant(
        "M12",
        "rounding down",
        "The platform takes a nano too much of most sales.",
        (
            Patch(
                "commands/terms.py", "return price_nano * fee_bp // BP_MAX", "return -(-price_nano * fee_bp // BP_MAX)"
            ),
        ),
        ("tests/commands/test_nft.py::test_fees_are_rounded_down_once",),
    ),
    Mutant(
        "M13",
        "the database's clock, for the worker's",
        "A worker whose clock is wrong lets commands expire that are in time, and executes those that are not.",
        (
            Patch(
                "storage/journal/unit_of_work.py",
                "from datetime import datetime\n",
                "from datetime import UTC, datetime\n",
            ),
            Patch(
                "storage/journal/unit_of_work.py",
                "return envelopes, Book(self._settings, now)",
                "return envelopes, Book(self._settings, datetime.now(UTC))",
            ),
        ),
        ("tests/system/test_clocks.py",),
    ),
    Mutant(
        "M14",
        "the commit before the notice",
        "Whoever hears it looks too early, and an outcome is told that a crash undoes.",
        (
            Patch("workers/batch.py", "SUSPECT_STEP = 64\n", "TELL = lambda batch: None\nSUSPECT_STEP = 64\n"),
            Patch(
                "workers/batch.py",
                "        await work.commit()\n    _log_failures(outcomes)\n    claimed",
                """\
        done = [(envelope.partition, envelope.id) for envelope in envelopes if envelope.id in outcomes]
        TELL(Batch(done, set(), 0, work.follow_ups))
        await work.commit()
    _log_failures(outcomes)
    claimed""",
            ),
            Patch(
                "workers/lanes.py",
                "        self._finished = finished\n",
                """\
        self._finished = finished
        from workers import batch

        batch.TELL = finished
""",
            ),
        ),
        ("tests/system/test_commits.py",),
    ),
    Mutant(
        "M15",
        "the sweeper",
        "A hint that Redis lost leaves its command accepted for ever.",
        (Patch("workers/worker.py", "            self._sweeper.run(),\n", ""),),
        ("tests/system/test_faults.py::test_redis_killed_and_started_again_in_the_middle_loses_and_repeats_nothing",),
        seconds=40,
    ),
    Mutant(
        "M16",
        "the order of timers",
        "Scheduled commands that are overdue are executed in any order.",
        # The order is one that SQL permits where none is asked for.
        (
            Patch(
                "storage/journal/promote.py",
                "SELECT id FROM due ORDER BY run_at, seq",
                "SELECT id FROM due ORDER BY id",
            ),
        ),
        (
            f"{_TIMERS}test_overdue_commands_are_accepted_in_the_order_of_their_times_whatever_the_plan",
            f"{_TIMERS}test_an_item_whose_price_is_cleared_and_then_set_ends_listed_however_late_it_comes",
        ),
    ),
    Mutant(
        "M16b",
        "the wait for another worker's timers",
        "Commands of an asset are executed before earlier ones of it are there to be seen.",
        (Patch("storage/journal/promote.py", "LIMIT $1 FOR UPDATE\n", "LIMIT $1 FOR UPDATE SKIP LOCKED\n"),),
        (f"{_TIMERS}test_a_worker_does_not_overtake_one_that_has_not_committed",),
    ),
    Mutant(
        "M16",
        "the lock of a lease",
        "Workers drain partitions whose lock another holds; only the fence, which comes after it, keeps them apart.",
        (
            Patch(
                "workers/leases.py",
                "            chosen += [number for number in asked if number in self._held]\n",
                "            chosen += asked\n",
            ),
            Patch(
                "workers/leases.py",
                "        return seen, {number for number in missing if number not in self._held}\n",
                "        return seen, set()\n",
            ),
        ),
        (
            f"{_LEASES}test_a_partition_whose_lock_somebody_else_holds_is_not_drained",
            f"{_LEASES}test_a_lock_given_to_another_by_hand_stops_its_partition_until_it_is_free",
        ),
    ),
)
