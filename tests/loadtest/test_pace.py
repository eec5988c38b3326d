"""Order within a chain, and the two loops."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loadtest.pace import Command, Dispatcher, Sending, closed_loop, open_loop


def commands(chains: Iterable[str]) -> list[Command]:
    return [Command(str(number).encode(), chain) for number, chain in enumerate(chains)]


def bodies(sendings: Sequence[Sending]) -> list[bytes]:
    return [sending.command.body for sending in sendings]


class Recorder:
    """Takes bodies as a server would: each is under way for some turns of the loop."""

    def __init__(self, turns: int = 3) -> None:
        self.turns = turns
        self.sent: list[Command] = []
        self.under_way: list[str] = []
        self.overlaps = 0
        self.most = 0

    async def __call__(self, body: Sequence[Sending]) -> None:
        chains = {sending.command.chain for sending in body}
        self.overlaps += sum(chain in self.under_way for chain in chains)
        self.under_way += chains
        self.most = max(self.most, len(self.under_way))
        self.sent += [sending.command for sending in body]
        for _ in range(self.turns):
            await asyncio.sleep(0)
        for chain in chains:
            self.under_way.remove(chain)


def test_a_chain_under_way_holds_back_its_next_command_but_no_other() -> None:
    dispatcher = Dispatcher(commands("aab"))
    first = dispatcher.take(1)
    second = dispatcher.take(1)
    assert bodies(first) == [b"0"]
    assert bodies(second) == [b"2"]
    assert dispatcher.take(1) == []
    dispatcher.done(first)
    assert bodies(dispatcher.take(1)) == [b"1"]


def test_a_body_carries_many_commands_of_a_chain_in_order() -> None:
    assert bodies(Dispatcher(commands("aba")).take(10)) == [b"0", b"1", b"2"]


def test_a_command_is_not_handed_out_before_it_is_due() -> None:
    dispatcher = Dispatcher(commands("abc"), lambda index: 0.0 if index < 2 else 1e12)
    assert bodies(dispatcher.take(10)) == [b"0", b"1"]
    assert dispatcher.next_due == 1e12
    assert not dispatcher.finished


@given(st.lists(st.sampled_from("abcde"), max_size=60), st.integers(1, 7), st.integers(1, 6))
def test_every_command_is_sent_once_and_in_order_within_its_chain(
    chains: list[str], batch: int, concurrency: int
) -> None:
    stream, record = commands(chains), Recorder()
    asyncio.run(closed_loop(stream, record, concurrency=concurrency, batch=batch))
    assert sorted(record.sent, key=stream.index) == stream
    assert record.overlaps == 0
    for chain in set(chains):
        numbers = [int(command.body) for command in record.sent if command.chain == chain]
        assert numbers == sorted(numbers)


async def test_the_closed_loop_keeps_its_concurrency_and_no_more() -> None:
    record = Recorder()
    await closed_loop(commands(map(str, range(40))), record, concurrency=4, batch=1)
    assert record.most == 4


async def test_the_open_loop_sends_on_while_answers_are_out() -> None:
    record = Recorder(turns=10_000)
    await open_loop(commands(map(str, range(20))), record, rate=10_000, batch=1)
    assert record.most > 4
    assert len(record.sent) == 20


async def test_a_latency_of_the_open_loop_starts_when_the_command_was_due() -> None:
    """A chain that is held back shows in the latencies, though its commands go out one after the other."""
    dues: list[float] = []

    async def submit(body: Sequence[Sending]) -> None:
        dues.extend(sending.due for sending in body)
        await asyncio.sleep(0.01)

    await open_loop(commands("aaaa"), submit, rate=1_000, batch=1)
    distances = [later - earlier for earlier, later in pairwise(dues)]
    assert all(abs(distance - 0.001) < 1e-9 for distance in distances)


async def test_a_failing_submission_ends_the_loop() -> None:
    async def submit(body: Sequence[Sending]) -> None:
        raise LookupError

    caught: list[BaseException] = []
    try:
        await closed_loop(commands("abc"), submit, concurrency=2, batch=1)
    except* LookupError as group:
        caught.extend(group.exceptions)
    assert caught
