"""What a load costs is told apart by process, whoever comes and goes meanwhile; and a small run of it all."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.costs import (
    ACCOUNTS,
    API,
    LOAD,
    LOG,
    OTHER,
    OTHERS,
    PARTS,
    PLATFORM,
    POSTGRES,
    REDIS,
    RUNNING,
    WORKER,
    Sessions,
    Times,
    evenness,
    part_of,
    state_of,
    usage,
)
from loadtest.pace import Sending
from loadtest.scale import in_turns, typical

PYTHON = "/usr/bin/python3"
SECONDS = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("name", "command_line", "part"),
    [
        ("python3", [PYTHON, "/usr/lib/souk.py", "api", "--port", "0"], API),
        ("python3", [PYTHON, "/usr/lib/souk.py", "worker"], WORKER),
        ("souk", [PYTHON, "/usr/bin/souk", "api"], API),
        ("souk", [PYTHON, "/usr/bin/souk", "worker"], WORKER),
        ("postgres", ["postgres: io worker 0"], POSTGRES),
        ("redis-server", ["redis-server *:0"], REDIS),
        ("python3", [PYTHON, "-P", "/usr/lib/storage/embedded/fake_redis.py", "port"], REDIS),
        ("python3", [PYTHON, "/usr/lib/souk.py", "up", "--workers", "0"], None),
        ("python3", [PYTHON, "/usr/lib/souk.py"], None),
        ("bash", ["bash"], None),
    ],
)
def test_a_process_is_known_by_its_command_line(name: str, command_line: list[str], part: str | None) -> None:
    assert part_of(name, command_line) == part


def test_costs_are_shared_out_among_the_parts_and_the_rest_is_others() -> None:
    before = Times(100.0, {(API, 1): 5.0, (WORKER, 2): 1.0, (LOAD, 9): 2.0}, 50.0)
    after = Times(110.0, {(API, 1): 9.0, (WORKER, 2): 3.0, (WORKER, 3): 1.0, (LOAD, 9): 2.5}, 60.0)
    used = usage(before, after, cores=2)
    assert used.parts == {API: 4.0, WORKER: 3.0, POSTGRES: 0.0, REDIS: 0.0, LOAD: 0.5, OTHERS: 2.5}
    assert used.microseconds_each(10_000) == {API: 400.0, WORKER: 300.0, POSTGRES: 0.0, REDIS: 0.0, LOAD: 50.0}
    assert used.shares()[API] == pytest.approx(0.2)
    assert used.busiest[API] == pytest.approx(0.4)
    assert used.busiest[WORKER] == pytest.approx(0.2)
    assert used.bound() == "waits"


def test_a_backend_that_ended_has_left_its_time_to_the_server() -> None:
    before = Times(0.0, {(POSTGRES, 1): 10.0, (POSTGRES, 2): 4.0}, 20.0)
    after = Times(1.0, {(POSTGRES, 1): 14.5}, 20.5)  # the other's 4, and half a second more
    assert usage(before, after, cores=2).parts[POSTGRES] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("busy", "machine", "bound"),
    [
        ({API: 0.97}, 0.97, "one API process"),
        ({API: 0.97, WORKER: 0.96}, 1.96, "all cores"),
        ({API: 0.5}, 1.95, "all cores"),
        ({API: 0.5, REDIS: 0.95}, 1.5, "one Redis process"),
        ({API: 0.6, POSTGRES: 0.7}, 1.3, "waits"),
    ],
)
def test_what_bounds_a_load_is_what_has_nothing_left_to_give(
    busy: dict[str, float], machine: float, bound: str
) -> None:
    after = {(part, number): spent for number, (part, spent) in enumerate(busy.items())}
    assert usage(Times(0.0, {}, 0.0), Times(1.0, after, machine), cores=2).bound() == bound


@given(st.lists(st.tuples(st.sampled_from(PARTS), SECONDS, SECONDS), max_size=10), SECONDS, st.integers(1, 1_000_000))
def test_shares_are_never_negative_and_make_up_what_was_spent(
    spent: list[tuple[str, float, float]], more: float, commands: int
) -> None:
    before = {(part, number): first for number, (part, first, _) in enumerate(spent)}
    after = {(part, number): first + further for number, (part, first, further) in enumerate(spent)}
    total = sum(after.values()) - sum(before.values()) + more
    used = usage(Times(0.0, before, 0.0), Times(2.0, after, total), cores=4)
    assert all(share >= 0 for share in used.shares().values())
    assert sum(used.shares().values()) * 8 == pytest.approx(total, abs=1e-3)
    assert sum(used.microseconds_each(commands).values()) * commands / 1e6 <= total + 1e-3


@pytest.mark.parametrize(
    ("counts", "even"), [([5, 5, 5], 1.0), ([10, 5], 0.5), ([3, 0], 0.0), ([0, 0], 0.0), ([7], 1.0), ([], 0.0)]
)
def test_work_is_even_when_the_least_is_near_the_most(counts: list[int], even: float) -> None:
    assert evenness(counts) == even


@pytest.mark.parametrize(
    ("wait_type", "wait", "query", "state"),
    [
        ("", "", "SELECT 1", RUNNING),
        ("Lock", "transactionid", "SELECT accounts.id FROM accounts … FOR UPDATE OF accounts", ACCOUNTS),
        ("Lock", "tuple", "UPDATE accounts SET available_nano = 1 WHERE id = -1; COMMIT", PLATFORM),
        ("Lock", "transactionid", "SELECT nfts.id FROM nfts … FOR UPDATE OF nfts", OTHER),
        ("IO", "WalSync", "UPDATE accounts SET available_nano = 1 WHERE id = -1; COMMIT", LOG),
        ("LWLock", "WALWrite", "INSERT INTO commands", LOG),
        ("IO", "DataFileRead", "SELECT accounts.id FROM accounts", OTHER),
    ],
)
def test_a_session_is_said_to_wait_for_what_it_waits_for(wait_type: str, wait: str, query: str, state: str) -> None:
    assert state_of(wait_type, wait, query) == state


def test_sessions_are_counted_in_the_mean_of_all_looks() -> None:
    sessions = Sessions()
    sessions.see([RUNNING, RUNNING, LOG])
    sessions.see([])
    assert sessions.mean() == {RUNNING: 1.0, ACCOUNTS: 0.0, PLATFORM: 0.0, LOG: 0.5, OTHER: 0.0}


async def test_bodies_go_to_each_api_in_turn() -> None:
    taken: list[tuple[str, int]] = []

    def api(name: str) -> "Api":
        return Api(name, taken)

    submit = in_turns([api("first"), api("second")])
    await asyncio.gather(*(submit([]) for _ in range(6)))
    assert all(one != other for (one, _), (other, _) in pairwise(taken))


class Api:
    """Notes who took a body, and of how many commands."""

    def __init__(self, name: str, taken: list[tuple[str, int]]) -> None:
        self._name = name
        self._taken = taken

    async def __call__(self, body: Sequence[Sending]) -> None:
        self._taken.append((self._name, len(body)))


def test_the_typical_round_is_one_that_took_place() -> None:
    rounds = [{"per_second": rate, "p50": p50} for rate, p50 in ((3.0, 1), (1.0, 2), (2.0, 3), (9.0, 4))]
    assert typical(rounds) == {"per_second": 2.0, "p50": 3}
