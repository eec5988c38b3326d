"""The sync face has every method of the client, and does the same."""

import asyncio
import inspect

import pytest

from souk_client import Client, Problem, SyncClient
from tests.client.misbehaving import SUCCEEDED, http, problem, serving, sse
from tests.client.test_streams import event

ONLY_ASYNC = {"aclose", "call", "request"}


def test_every_method_has_its_twin() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_") and name not in ONLY_ASYNC:
            assert inspect.signature(getattr(SyncClient, name)).parameters == inspect.signature(method).parameters


async def test_it_works_without_an_event_loop() -> None:
    def reply(number: int, body: bytes) -> bytes:
        return (
            sse(event(1), event(2))
            if number == 2
            else http(200, {"receipts": [SUCCEEDED]} if number == 3 else SUCCEEDED)
        )

    def program(url: str) -> None:
        with SyncClient(url, "key") as souk:
            assert souk.submit("nft.buy", nft_id=17, wait=1).succeeded
            events = souk.events("market")
            assert [next(events).id, next(events).id] == ["9-1", "9-2"]
            events.close()  # type: ignore[attr-defined]
            assert len(souk.submit_many([{"kind": "nft.buy", "payload": {}}])) == 1
        souk.close()

    async with serving(reply) as server:
        await asyncio.to_thread(program, server.url)


async def test_errors_come_through() -> None:
    def program(url: str) -> None:
        with SyncClient(url, "key") as souk, pytest.raises(Problem, match="not_found"):
            souk.get("1")

    async with serving(lambda _, __: problem(404, "not_found")) as server:
        await asyncio.to_thread(program, server.url)
