"""Where Redis is: one server, a Sentinel set or a Cluster, as `SOUK_REDIS_URL` says; and connections to it.

    redis://[user:password@]host:port/db                            one server; rediss:// over TLS; unix:///path
    redis+sentinel://[user:password@]host:port,host:port/master     whoever the sentinels say is the master
    redis+cluster://[user:password@]host:port,host:port             any nodes of the cluster, as a start

A Sentinel set and a Cluster both are *asked* for an address, at each new connection: a connection that meets a node
which lost its part is closed, and the next one asks anew. So a failover costs the calls under way and no restart.

In a Cluster a key lives on the node that has its slot. Whoever keeps to one key asks for `connections(redis, key)`;
whoever has commands for many slots sends them `together`, one round trip to each node; notices travel by any node.
(redis-py's RedisCluster has no subscriptions when asynchronous, and its pipeline fails for all nodes when one is away.)
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Connection, ConnectionPool, Redis
from redis.asyncio.cluster import ClusterParser
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError
from redis.exceptions import ConnectionError as Unreachable

REDIS_SECONDS = 2.0
"""No call to Redis takes longer: it holds hints, and nobody waits long for a hint."""

_FORM = re.compile(r"(rediss?)\+(sentinel|cluster)://(?:(?P<credentials>[^@]*)@)?(?P<nodes>[^/?@]+)(?P<rest>[/?].*)?")
_ANY = ""
"""Stands for a key when any node will do."""

Node = tuple[str, int]
Words = tuple[str | int | float | bytes, ...]


class Place(NamedTuple):
    """Several nodes to ask. `master` is the name the sentinels know, or empty for a Cluster."""

    nodes: Sequence[Node]
    master: str
    options: dict[str, Any]
    """For connections to the servers."""
    sentinel_options: dict[str, Any]


def locate(url: str) -> Place | None:
    """What a redis+… URL says; None for the URL of one server. Raises ValueError, saying what it must be."""
    if url.startswith(("redis://", "rediss://", "unix://")):
        return None
    found = _FORM.fullmatch(url)
    if found is None:
        message = (
            "must be a redis://, rediss:// or unix:// URL, redis+sentinel://host:port,host:port/master"
            " or redis+cluster://host:port,host:port"
        )
        raise ValueError(message)
    rest = urlsplit(found["rest"] or "")
    query = dict(parse_qsl(rest.query))
    master = unquote(rest.path.strip("/"))
    options: dict[str, Any] = _credentials(found["credentials"] or "", "")
    sentinel_options: dict[str, Any] = {}
    if found[2] == "sentinel":
        if not master:
            message = "must end in the master's name: redis+sentinel://host:port,host:port/master"
            raise ValueError(message)
        options["db"] = _number(query.pop("db", "0"), "db")
        sentinel_options = _credentials(query.pop("sentinel_username", ""), query.pop("sentinel_password", ""))
    elif master:
        message = "must end after the nodes: a cluster has no numbered databases"
        raise ValueError(message)
    if query:
        message = f"has the unknown parameter {min(query)!r}"
        raise ValueError(message)
    if found[1] == "rediss":
        options["ssl"] = sentinel_options["ssl"] = True
    default_port = 26379 if master else 6379
    return Place([_node(node, default_port) for node in found["nodes"].split(",")], master, options, sentinel_options)


def _credentials(username: str, password: str) -> dict[str, Any]:
    if not password:
        username, _, password = username.partition(":")
    return {name: unquote(value) for name, value in (("username", username), ("password", password)) if value}


def _number(text: str, name: str) -> int:
    if not text.isdecimal():
        message = f"must have a number for {name}"
        raise ValueError(message)
    return int(text)


def _node(text: str, default_port: int) -> Node:
    parts = urlsplit(f"//{text}")
    try:
        host, port = parts.hostname, parts.port or default_port
    except ValueError:
        host, port = None, 0
    if not host:
        message = "must name each node as host:port, with commas between"
        raise ValueError(message)
    return host, port


def connect(url: str) -> ConnectionPool:
    """Connections that are made when first used and repeat nothing by themselves; to a Cluster, by any node."""
    place = locate(url)
    options: dict[str, Any] = {
        "socket_timeout": REDIS_SECONDS,
        "socket_connect_timeout": REDIS_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 15,
    }
    if place is None:
        return ConnectionPool.from_url(url, **options)
    if place.master:
        sentinels = Sentinel(  # type: ignore[no-untyped-call]
            place.nodes,
            sentinel_kwargs=place.sentinel_options | {name: options[name] for name in options if "socket" in name},
        )
        return _SentinelPool(place.master, sentinels, **place.options, **options)  # type: ignore[no-untyped-call]
    cluster = _Cluster(place.nodes, place.options | options)
    return _ClusterPool(_ANY, cluster, connection_class=cluster.connection_class, **cluster.options)


def connections(redis: Redis, key: str) -> ConnectionPool:
    """The connections for what is done to one key; the client's own, unless it is a Cluster's."""
    pool = redis.connection_pool
    return pool.cluster.pool(key) if isinstance(pool, _ClusterPool) else pool


async def server_of(url: str, key: str) -> tuple[dict[str, Any], bool]:
    """How to connect to the one server that has a key now: redis-py's options for a connection, and whether it speaks
    TLS. Raises what redis-py raises when nobody knows that server."""
    redis = Redis(connection_pool=connect(url))
    pool = connections(redis, key)
    try:
        options = dict(pool.connection_kwargs)
        if isinstance(pool, SentinelConnectionPool):
            options["host"], options["port"] = await pool.sentinel_manager.discover_master(pool.service_name)
        return options, issubclass(pool.connection_class, SSLConnection)
    finally:
        await redis.connection_pool.disconnect()


def what_failed(redis: Redis, error: Exception) -> str:
    """What an error says, and of which servers, which a time-out alone does not tell."""
    servers, text = _servers(redis), str(error) or "no answer in time"
    return text if servers in text else f"{servers}: {text}"


def _servers(redis: Redis) -> str:
    """Those that the URL names."""
    pool = redis.connection_pool
    if isinstance(pool, _ClusterPool):
        return pool.cluster.nodes()
    if isinstance(pool, _SentinelPool):
        return ", ".join(_servers(sentinel) for sentinel in pool.sentinel_manager.sentinels)
    known = pool.connection_kwargs
    return known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}"


def in_slots(redis: Redis) -> bool:
    """Whether a call must keep to the keys of one slot."""
    return isinstance(redis.connection_pool, _ClusterPool)


async def together(redis: Redis, commands: Sequence[tuple[str, Words]]) -> list[Any]:
    """The answers to commands, each with its key, in one round trip to each node. When all have been sent and some
    failed, raises the first of their errors."""
    pool = redis.connection_pool
    if isinstance(pool, _ClusterPool):
        answers = await pool.cluster.together(commands)
    else:
        answers = await _pipelined(redis, [words for _, words in commands])
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


async def _pipelined(redis: Redis, commands: Sequence[Words]) -> list[Any]:
    async with redis.pipeline(transaction=False) as pipeline:
        for words in commands:
            pipeline.execute_command(*words)
        return list(await pipeline.execute(raise_on_error=False))


class _SentinelPool(SentinelConnectionPool):
    """To the master. Closed, it closes its connections to the sentinels too."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


class _SlotConnection(SentinelManagedConnection):
    """To the node that has a slot; it ends where the node says that it has it no more."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except (MovedError, AskError, ClusterDownError) as error:
            await self.disconnect()
            message = f"{self.host}:{self.port} does not serve this key now: {error}"
            raise Unreachable(message) from error


class _SlotSSLConnection(_SlotConnection, SSLConnection):
    pass


class _ClusterPool(SentinelConnectionPool):
    """To the node that has a key's slot, whom the Cluster names as sentinels name a master; or to any node."""

    def __init__(self, key: str, cluster: "_Cluster", **options: Any) -> None:
        super().__init__(key, cluster, **options)  # type: ignore[no-untyped-call]
        self.cluster = cluster

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections and self.service_name == _ANY:
            await self.cluster.close()


class _Cluster:
    """Which node has which slots: asked of a node that answers, and again after every failure."""

    def __init__(self, nodes: Sequence[Node], options: dict[str, Any]) -> None:
        tls = options.pop("ssl", False)
        self.options = options | {"parser_class": ClusterParser}
        self.connection_class = _SlotSSLConnection if tls else _SlotConnection
        self._plain_class = SSLConnection if tls else Connection
        self._clients: dict[Node, Redis] = {}  # in the order in which they are asked
        self._pools: dict[str, _ClusterPool] = {}
        self._owners: list[tuple[int, int, Node]] = []
        for node in nodes:
            self._know(node)

    async def discover_master(self, key: str) -> Node:
        """The node for a key, asked for anew. Raises Unreachable. Named as SentinelConnectionPool calls it."""
        asked = await self._ask()
        return asked if key == _ANY else self._owner(key)

    def nodes(self) -> str:
        return ", ".join(f"{host}:{port}" for host, port in self._clients)

    def pool(self, key: str) -> "_ClusterPool":
        if key not in self._pools:
            self._pools[key] = _ClusterPool(key, self, connection_class=self.connection_class, **self.options)
        return self._pools[key]

    async def together(self, commands: Sequence[tuple[str, Words]]) -> list[Any]:
        """The answers, or the errors in their places."""
        if not self._owners:
            await self._ask()
        places: defaultdict[Node, list[int]] = defaultdict(list)
        for place, (key, _) in enumerate(commands):
            places[self._owner(key)].append(place)
        answers: list[Any] = [None] * len(commands)

        async def send(node: Node, mine: list[int]) -> None:
            try:
                found = await _pipelined(self._clients[node], [commands[place][1] for place in mine])
            except (RedisError, OSError) as error:
                found = [error] * len(mine)
            for place, answer in zip(mine, found, strict=True):
                answers[place] = answer

        sound = False
        try:
            await asyncio.gather(*(send(node, mine) for node, mine in places.items()))
            sound = not any(isinstance(answer, Exception) for answer in answers)
        finally:  # whoever called may have stopped waiting: that is a failure too
            if not sound:
                self._owners = []
        return answers

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.disconnect()
        for client in self._clients.values():
            await client.connection_pool.disconnect()

    def _know(self, node: Node) -> None:
        if node not in self._clients:
            host, port = node
            options = self.options | {"connection_class": self._plain_class, "host": host, "port": port}
            self._clients[node] = Redis(connection_pool=ConnectionPool(**options))

    def _owner(self, key: str) -> Node:
        slot = key_slot(key.encode())
        for first, last, node in self._owners:
            if first <= slot <= last:
                return node
        message = f"no node of the cluster has slot {slot}"
        raise Unreachable(message)

    async def _ask(self) -> Node:
        """Learn the owners from the first node that answers, each time beginning with another. Returns that node."""
        for asked in list(self._clients):
            client = self._clients[asked] = self._clients.pop(asked)  # the last to be asked next time
            try:
                ranges = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
            except (RedisError, OSError):
                continue
            self._owners = [
                (first, last, (owner[0].decode() or asked[0], owner[1])) for first, last, owner, *_ in ranges
            ]
            for _, _, owner in self._owners:
                self._know(owner)
            return asked
        message = f"no node of the cluster answers: {self.nodes()}"
        raise Unreachable(message)
