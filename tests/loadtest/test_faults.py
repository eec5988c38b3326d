"""Faults of Redis that have to be shown to happen: a failover that loses writes; locks, under the names they have."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from loadtest.faults.redises import SentinelSet, sentinel_set
from loadtest.faults.schedule import PARTITION_LOCK, WORKER_LOCKS
from storage.redis.locks import Locks
from storage.redis.queue import connect_redis
from storage.settings import Settings


@pytest.fixture
def redises(tmp_path: Path) -> Iterator[SentinelSet]:
    with sentinel_set(tmp_path / "sentinel", replicas=1) as found:
        yield found


def count(redises: SentinelSet, unseen_seconds: float) -> int:
    """How far the master has counted when it dies and another is promoted."""
    old, counted = redises.master().client, 0
    failing_over = threading.Thread(target=redises.fail_over, args=(unseen_seconds,))
    failing_over.start()
    while True:
        try:
            counted = old.incr("count")  # type: ignore[assignment]
        except RedisError:
            break
    failing_over.join()
    return counted


def test_a_failover_loses_what_the_replica_has_not_seen_and_the_old_master_comes_back_as_its_replica(
    redises: SentinelSet,
) -> None:
    first, second = redises.servers
    first.client.set("seen", "yes")
    counted = count(redises, unseen_seconds=0.3)
    assert redises.master() is second
    assert second.client.get("seen") == "yes"
    assert int(str(second.client.get("count") or 0)) < counted
    assert redises.is_whole()
    redises.fail_over(0)
    assert redises.master() is first
    assert first.client.get("seen") == "yes"


async def test_the_keys_that_are_deleted_and_given_away_are_those_of_the_locks(settings: Settings) -> None:
    redis = connect_redis(settings)
    async with Locks(redis) as locks, locks.hold("partition:3", "worker:host:17:abc"):
        assert await redis.exists(PARTITION_LOCK.format(3)) == 1
        assert [key async for key in redis.scan_iter(match=WORKER_LOCKS)] == [b"souk:{lock}:worker:host:17:abc"]
    await redis.aclose()
