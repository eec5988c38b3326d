"""A Cluster of Redis servers, each in a directory of its own; and what a site makes of Redis."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from loadtest.faults.redises import DOWN_MS, HOST, RedisNode, until
from storage.redis.queue import Queue, connect_redis
from tests.system.site import Site


class RedisCluster:
    """Three masters, each with a third of the slots; `doubled` has a replica that takes over when it dies."""

    def __init__(self, nodes: Sequence[RedisNode], doubled: RedisNode) -> None:
        self.nodes = nodes
        self.doubled = doubled
        self.url = f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in nodes)}"

    def master_of(self, key: str) -> RedisNode:
        """Who has the key's slot, as a living node knows it."""
        for node in self.nodes:
            with suppress(RedisError):
                for first, last, (_, port, *_), *_ in node.ask("CLUSTER SLOTS"):
                    if first <= key_slot(key.encode()) <= last:
                        return next(each for each in self.nodes if each.port == port)
        raise AssertionError("no node answers")


@contextmanager
def redis_cluster(directory: Path) -> Iterator[RedisCluster]:
    settings = {"cluster-enabled": "yes", "cluster-node-timeout": str(DOWN_MS), "cluster-replica-validity-factor": "0"}
    nodes = [RedisNode(directory / f"node{number}", **settings) for number in range(4)]
    *masters, replica = nodes
    try:
        for node in nodes:
            node.start()
        bounds = [REDIS_CLUSTER_HASH_SLOTS * number // len(masters) for number in range(len(masters) + 1)]
        for master, first, end in zip(masters, bounds, bounds[1:], strict=False):
            master.ask("CLUSTER ADDSLOTS", *range(first, end))
        for number, node in enumerate(nodes):
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER MEET", HOST, nodes[0].port)
        until(lambda: all(_state(node, "cluster_known_nodes") == "4" for node in nodes), "the nodes do not meet")
        until(lambda: all(_state(node, "cluster_state") == "ok" for node in nodes), "the cluster does not come up")
        doubled = masters[key_slot(b"lock") * len(masters) // REDIS_CLUSTER_HASH_SLOTS]  # where the locks are
        replica.ask("CLUSTER REPLICATE", doubled.ask("CLUSTER MYID"))
        until(lambda: replica.info("replication").get("master_link_status") == "up", "the replica does not come")
        yield RedisCluster(nodes, doubled)
    finally:
        for node in nodes:
            node.close()


def _state(node: RedisNode, name: str) -> str:
    answer = node.ask("CLUSTER INFO")
    found: dict[str, str] = (
        answer if isinstance(answer, dict) else dict(line.split(":", 1) for line in answer.splitlines() if line)
    )
    return found[name]


async def redis_is(site: Site, *states: str) -> bool:
    """What `/readyz` says of it."""
    return (await site.client.get("/readyz")).json()["parts"]["redis"] in states


async def nothing_is_queued(site: Site) -> bool:
    redis = connect_redis(site.settings)
    try:
        return not await Queue(redis).peek(range(site.settings.partitions), 1)
    finally:
        await redis.aclose()


async def longest_pause(site: Site) -> float:
    """Seconds without execution, at most, while sales went on."""
    seconds = await site.value("""
        SELECT extract(epoch FROM max(pause)) FROM (
            SELECT finished_at - lag(finished_at) OVER (ORDER BY finished_at) AS pause
            FROM commands WHERE kind IN ('nft.set_price', 'nft.buy')
        ) AS pauses
    """)
    return float(seconds)
