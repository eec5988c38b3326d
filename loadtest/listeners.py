"""`loadtest listen`: thousands who wait for an outcome or follow a topic, on one API process, while others trade.

Every waiter must get its outcome, and every stream each event of its item once, in order, as the table has them. It
tells what listening costs: memory for each stream, processor time of the API with and without them, and how late an
answer is. A delay is counted from `at` of the event (`finished_at` of the outcome), which the database's clock gave
before the write and the commit, so it is more than that from the commit; both clocks are this machine's.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psutil
from httptools import HttpResponseParser
from pydantic_core import from_json, to_json
from rich.console import Console
from rich.table import Table

from loadtest.client import open_client
from loadtest.costs import API, part_of, times, usage
from loadtest.measure import Latencies, Tally
from loadtest.pace import open_loop
from loadtest.populate import all_succeed, populate
from loadtest.report import print_verdict
from loadtest.run import RunResult, unused_base
from loadtest.stack import Target, audit
from loadtest.submit import Submitter
from loadtest.workload import Item, Marketplace
from souk_client import FINAL, Client

QUIET_COMMANDS = 300
OPENING = 100
"""Streams and waiters that are opened at a time."""
WAIT_SECONDS = 30
LAST_SECONDS = 30.0
"""How long after the end of the load the last event and the last outcome may come."""

_EVENTS = """
SELECT txid || '-' || id, topics FROM events
WHERE topics && $1::text[] AND command_id > $2 ORDER BY txid, id
"""
_LAST_COMMAND = "SELECT id FROM commands ORDER BY id DESC LIMIT 1"


@dataclass(frozen=True)
class ListenPlan:
    """`rate`: trades a second. A tenth of the time goes by before the first waiter's command is due."""

    waiters: int = 5_000
    streams: int = 1_000
    seconds: float = 60.0
    rate: float = 200.0
    users: int = 200
    items: int = 2_000


class Stream(asyncio.Protocol):
    """One stream of server-sent events, as they come; `delays` takes how late each was."""

    def __init__(self, delays: Latencies) -> None:
        self.ids: list[str] = []
        self.heard = asyncio.Event()
        self._delays = delays
        self.ended = False
        self.began: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._parser = HttpResponseParser(self)
        self._text = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        if not self.began.done():
            self.began.set_result(0)

    def on_headers_complete(self) -> None:
        self.began.set_result(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        *blocks, self._text = (self._text + body.replace(b"\r\n", b"\n")).split(b"\n\n")
        now = time.time()
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"data" in fields and b"id" in fields:
                self.ids.append(fields[b"id"].decode())
                self._delays.add(now - datetime.fromisoformat(from_json(fields[b"data"])["at"]).timestamp())
        self.heard.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def listen(target: Target, plan: ListenPlan, console: Console) -> RunResult:
    """On a stack of our own: the processes whose time and memory are told are its."""
    base = unused_base()
    market = Marketplace(seed=1, users=plan.users, items=plan.items, skew=0.5, base=base, run=f"listen-{base}")
    figures: dict[str, Any] = {"plan": asdict(plan)}
    async with open_client(target.url, target.key, plan.waiters + 256) as client, _postgres(target) as postgres:
        console.print(f"setting up {plan.users:,} users and {plan.items:,} items", highlight=False)
        await populate(client, market)
        items = market.by_heat[: plan.streams]
        figures["quiet_ms"] = await _quiet(target, client, market, items[0])
        figures["load alone"] = await _load(client, market, plan, plan.seconds / 4)
        start = await postgres.fetchval(_LAST_COMMAND)
        before = _api_memory()
        topics = [f"nft:{item.nft_id}" for item in items]
        stream_delays = Latencies()
        streams = await _open(target, topics, stream_delays)
        figures["bytes a stream"] = (_api_memory() - before) // max(1, len(streams))
        console.print(f"{len(streams):,} streams are open", highlight=False)
        waiting = asyncio.create_task(_wait_all(client, market, plan))
        figures["load with listeners"] = await _load(client, market, plan, plan.seconds)
        outcomes, delays = await waiting
        figures["outcomes"] = outcomes
        figures["outcomes_ms"] = delays.summary_ms()
        wanted = await _wanted(postgres, topics, start)
        right = await _settled(streams, topics, wanted)
        figures["streams"] = {
            "open": len(streams),
            "right": right,
            "events": sum(len(stream.ids) for stream in streams),
        }
        figures["streams_ms"] = stream_delays.summary_ms()
        for stream in streams:
            stream.close()
    verdict = await audit(target.environment)
    _print(console, figures)
    print_verdict(console, verdict)
    figures["audit"] = asdict(verdict)
    loads = [figures["load alone"], figures["load with listeners"]]
    good = right == plan.streams and outcomes == plan.waiters and all(load["sound"] for load in loads)
    return RunResult(good and verdict.held is True, figures)


async def _quiet(target: Target, client: Client, market: Marketplace, item: Item) -> dict[str, float]:
    """How late events are while nothing else happens."""
    delays = Latencies()
    [stream] = await _open(target, [f"nft:{item.nft_id}"], delays)
    for number in range(QUIET_COMMANDS):
        price = market.script.set_price(item.nft_id, item.owner_id, 2_000_000_000 + number)
        await all_succeed(client, [price])
        item.price_nano = 2_000_000_000 + number
        async with asyncio.timeout(LAST_SECONDS):
            while len(stream.ids) <= number:
                stream.heard.clear()
                await stream.heard.wait()
    stream.close()
    return delays.summary_ms()


async def _load(client: Client, market: Marketplace, plan: ListenPlan, seconds: float) -> dict[str, Any]:
    """Trades at the plan's rate, and what they cost the API."""
    tally = Tally()
    before = times()
    until = time.monotonic() + seconds
    submit = Submitter(client, tally, batched=False, on_answer=market.note)
    await open_loop(market.commands(), submit, rate=plan.rate, batch=1, until=until)
    spent = usage(before, times(), psutil.cpu_count() or 1)
    return {
        "commands": tally.submitted,
        "sound": tally.sound() and not tally.unforeseen,
        "API cores": round(spent.parts[API] / spent.seconds, 3),
        "to_result_ms": tally.to_result.summary_ms(),
    }


async def _open(target: Target, topics: Sequence[str], delays: Latencies) -> list[Stream]:
    """A stream for each topic."""
    streams = []
    for first in range(0, len(topics), OPENING):
        opening = topics[first : first + OPENING]
        streams += await asyncio.gather(*(_open_one(target, topic, delays) for topic in opening))
    return streams


async def _open_one(target: Target, topic: str, delays: Latencies) -> Stream:
    parts = urlsplit(target.url)
    loop = asyncio.get_running_loop()
    transport, stream = await loop.create_connection(lambda: Stream(delays), parts.hostname or "", parts.port or 80)
    head = (
        f"GET /v1/events?topic={topic} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {target.key}\r\n\r\n"
    )
    transport.write(head.encode())
    status = await stream.began
    if status != 200:  # noqa: PLR2004
        message = f"a stream was answered with {status}"
        raise ConnectionError(message)
    return stream


async def _wait_all(client: Client, market: Marketplace, plan: ListenPlan) -> tuple[int, Latencies]:
    """As many outcomes as there are waiters, unless some are missing, and how late they came."""
    delays = Latencies()
    now = datetime.now(UTC)
    first = plan.seconds / 10

    async def wait(number: int) -> bool:
        due = now + timedelta(seconds=first + (plan.seconds - first) * number / plan.waiters)
        user_id = market.new_user()
        body = {
            "kind": "users.register",
            "payload": {"user_id": user_id},
            "run_at": due,
            "idempotency_key": f"w-{user_id}",
        }
        answer = await client.request("POST", "/v1/commands", to_json(body), timeout_seconds=LAST_SECONDS)
        path = f"/v1/commands/{from_json(answer.body)['id']}?wait={WAIT_SECONDS}"
        until = time.monotonic() + plan.seconds + LAST_SECONDS
        while time.monotonic() < until:
            answer = await client.request("GET", path, timeout_seconds=WAIT_SECONDS + LAST_SECONDS)
            receipt = from_json(answer.body)
            if receipt.get("status") in FINAL:
                delays.add(time.time() - datetime.fromisoformat(receipt["finished_at"]).timestamp())
                return bool(receipt["status"] == "succeeded")
        return False

    return sum(await asyncio.gather(*(wait(number) for number in range(plan.waiters)))), delays


async def _wanted(postgres: "asyncpg.Connection[Any]", topics: Sequence[str], start: Any) -> dict[str, list[str]]:
    """Of each topic, the ids of the events of later commands, in order, as the table has them."""
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    known = frozenset(topics)
    for id_, names in await postgres.fetch(_EVENTS, list(topics), start):
        for topic in known.intersection(names):
            wanted[topic].append(id_)
    return wanted


async def _settled(streams: Sequence[Stream], topics: Sequence[str], wanted: dict[str, list[str]]) -> int:
    """How many streams have had all of theirs once and in order, and are open still."""
    until = time.monotonic() + LAST_SECONDS
    while True:
        right = sum(
            stream.ids == wanted.get(topic, []) and not stream.ended
            for stream, topic in zip(streams, topics, strict=True)
        )
        if right == len(streams) or time.monotonic() > until:
            return right
        await asyncio.sleep(0.1)


def _api_memory() -> int:
    """Bytes that are the API's alone."""
    processes = psutil.Process().children(recursive=True)
    return sum(each.memory_full_info().uss for each in processes if part_of(each.name(), each.cmdline()) == API)


@asynccontextmanager
async def _postgres(target: Target) -> "AsyncIterator[asyncpg.Connection[Any]]":
    connection = await asyncpg.connect(target.environment["SOUK_DATABASE_URL"])
    try:
        yield connection
    finally:
        await connection.close()


def _print(console: Console, figures: dict[str, Any]) -> None:
    plan = figures["plan"]
    table = Table("", "", title="Listeners", show_header=False)
    rows = {
        "event to stream, else idle": _milliseconds(figures["quiet_ms"]),
        "event to stream, under load": _milliseconds(figures["streams_ms"]),
        "outcome to waiter, under load": _milliseconds(figures["outcomes_ms"]),
        "outcomes": f"{figures['outcomes']:,} of {plan['waiters']:,} waiters",
        "streams right": f"{figures['streams']['right']:,} of {plan['streams']:,}",
        "events on streams": f"{figures['streams']['events']:,}",
        "memory of a stream": f"{figures['bytes a stream'] / 1024:.0f} KiB of the API",
        "the API, load alone": f"{figures['load alone']['API cores']:.3f} cores",
        "the API with all": f"{figures['load with listeners']['API cores']:.3f} cores",
        "submit to outcome, load alone": _milliseconds(figures["load alone"]["to_result_ms"]),
        "submit to outcome, with all": _milliseconds(figures["load with listeners"]["to_result_ms"]),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _milliseconds(summary: dict[str, float]) -> str:
    return (
        f"{summary['p50']:.1f} ms median, {summary['p99']:.1f} p99, {summary['max']:.1f} worst" if summary else "none"
    )
