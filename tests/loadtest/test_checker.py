"""The checker of a faults run finds every lie that is planted, and none in the truth."""

import dataclasses
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.faults.checker import execute, violations
from loadtest.faults.history import Facts, Item, Operation, Row
from loadtest.faults.writers import Lease, Write, Writing

OWNER, BUYER, ITEM = 1, 2, 17
PARTITION, OTHER_PARTITION = 3, 4
PRICE = 10_000_000
DONE_AT = datetime(2030, 1, 1, tzinfo=UTC)

Story = tuple[list[Operation], Facts]


def told(*steps: tuple[str, int, dict[str, int | None]]) -> Story:
    """A true history: each step is sent when the one before was acknowledged, and executed in that order."""
    item = Item(OWNER, None)
    history, rows = [], []
    for number, (kind, actor, payload) in enumerate(steps):
        id_, key = f"id {number}", f"key {number}"
        row = Row(id_, number, key, kind, ITEM, actor, payload, "succeeded", None, DONE_AT, 0, 0)
        item, code = execute(item, row)
        if code:
            row = row._replace(status="rejected", code=code)
        elif kind == "nft.buy":
            row = row._replace(deals=1, postings=2)
        rows.append(row)
        operation = Operation(key, kind, ITEM, actor, payload, sent_at=2.0 * number)
        operation.note({"id": id_, "status": row.status, "rejection": code and {"code": code}}, at=2.0 * number + 1)
        history.append(operation)
    return history, Facts(rows, {ITEM: Item(OWNER, None)}, {ITEM: item}, written(row.id for row in rows))


def written(ids: Iterable[str]) -> Writing:
    """Each by one lane of one worker."""
    log: list[Lease | Write] = [Lease(1, PARTITION, 7, "worker")]
    log += [Write(number, PARTITION, 7, True, "lane", [id_]) for number, id_ in enumerate(ids, 2)]
    return Writing(log)


TRUE_STORY: tuple[tuple[str, int, dict[str, int | None]], ...] = (
    ("nft.set_price", OWNER, {"price_nano": PRICE}),
    ("nft.buy", BUYER, {"price_nano": PRICE}),
    ("nft.buy", OWNER, {"price_nano": PRICE}),
    ("nft.set_price", BUYER, {"price_nano": 2 * PRICE}),
    ("nft.transfer", BUYER, {"to_user_id": OWNER}),
)


def test_the_truth_is_believed() -> None:
    assert violations(*told(*TRUE_STORY)) == []


def _change(number: int, **changes: object) -> Callable[[Story], Story]:
    def change(story: Story) -> Story:
        history, facts = story
        rows = list(facts.rows)
        rows[number] = rows[number]._replace(**changes)  # type: ignore[arg-type]
        return history, dataclasses.replace(facts, rows=rows)

    return change


def _lose(story: Story) -> Story:
    """The last transfer was acknowledged, and is gone as if it had never been."""
    history, facts = story
    return history, dataclasses.replace(facts, rows=facts.rows[:-1], after={ITEM: Item(BUYER, 2 * PRICE)})


def _double(story: Story) -> Story:
    history, facts = story
    again = facts.rows[1]._replace(id="another id", seq=99)
    return history, dataclasses.replace(facts, rows=[*facts.rows, again])


def _reorder(story: Story) -> Story:
    """The two offers to buy are executed the other way around, and everybody is told so."""
    history, facts = story
    rows = list(facts.rows)
    rows[1], rows[2] = rows[2]._replace(seq=1), rows[1]._replace(seq=2)
    return history, dataclasses.replace(facts, rows=rows)


def _take_back(story: Story) -> Story:
    history, facts = story
    history[1].note({"id": "id 1", "status": "accepted", "rejection": None}, at=9)
    return history, facts


def _tell_another(story: Story) -> Story:
    history, facts = story
    history[1].seen[-1] = ("rejected", "NFT_NOT_ON_SALE")
    return history, facts


def _steal(story: Story) -> Story:
    history, facts = story
    return history, dataclasses.replace(facts, after={ITEM: Item(BUYER, None)})


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        (_lose, "lost: id 4 was acknowledged"),
        (_double, "doubled: the key key 1 has 2 commands"),
        (_reorder, "out of order: id 1 was acknowledged before id 2 was sent"),
        (_take_back, "told otherwise: id 1 was final"),
        (_tell_another, "told otherwise: id 1 is succeeded"),
        (_steal, "not linear: item 17 is"),
        (_change(1, deals=2), "doubled or missing effect: id 1"),
        (_change(1, postings=4), "doubled or missing effect: id 1"),
        (_change(1, deals=0), "doubled or missing effect: id 1"),
        (_change(2, postings=2), "doubled or missing effect: id 2"),
        (_change(2, status="succeeded", code=None, deals=1, postings=2), "not linear: id 2 (nft.buy) ended well"),
        (_change(4, status="accepted", finished_at=None), "lost: id 4 has no outcome"),
        (_change(4, status="failed"), "failed: id 4 was set aside"),
    ],
)
def test_a_planted_lie_is_found(lie: Callable[[Story], Story], found: str) -> None:
    assert any(violation.startswith(found) for violation in violations(*lie(told(*TRUE_STORY))))


TAKEN = (Lease(1, PARTITION, 7, "worker"), Lease(2, OTHER_PARTITION, 4, "another"))
GIVEN_BACK = Lease(20, PARTITION, 7, None)
TAKEN_OVER = Lease(21, PARTITION, 8, "another")


def write(number: int, partition: int, fence: int, connection: str, *, guarded: bool = True) -> Write:
    return Write(number, partition, fence, guarded, connection, [f"id {number}"])


HANDED_OVER = (
    *TAKEN,
    write(10, PARTITION, 7, "lane"),
    write(11, OTHER_PARTITION, 4, "another's lane"),
    write(12, PARTITION, 7, "lane, connected again"),
    GIVEN_BACK,
    write(20, PARTITION, 7, "lane"),  # its last batch; nobody else has it
    TAKEN_OVER,
    write(22, PARTITION, 8, "another's lane"),
    Lease(30, PARTITION, 9, "worker"),
    write(31, PARTITION, 9, "lane"),
)


def test_one_writer_after_the_other_is_believed() -> None:
    assert list(Writing(HANDED_OVER).strangers(["id 10", "id 31"])) == []


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (
            write(99, PARTITION, 9, "another's lane"),
            "two writers: partition 3 under fence 9, worker's, is written by an",
        ),
        (write(99, PARTITION, 9, "lane", guarded=False), "two writers: partition 3 under fence 9 is written without"),
        (
            write(99, PARTITION, 8, "another's lane"),
            "fences: partition 3 under fence 8 is written, while its fence is 9",
        ),
        (write(99, PARTITION, 7, "lane"), "fences: partition 3 under fence 7 is written, while its fence is 9"),
        (Lease(99, PARTITION, 8, "another"), "fences: partition 3 under fence 8, after 9"),
        (
            Lease(99, PARTITION, 9, "another"),
            "two writers: partition 3 under fence 9 is taken by another, while it is wo",
        ),
        (write(99, 5, 0, "lane"), "two writers: partition 5 under fence 0, nobody's, is written by worker"),
        (write(99, 5, 0, "a new lane"), "two writers: partition 5 under fence 0, nobody's, is written by nobody"),
    ],
)
def test_a_planted_second_writer_is_found(planted: Lease | Write, found: str) -> None:
    [violation] = Writing([*HANDED_OVER, planted]).strangers([])
    assert violation.startswith(found)


def test_an_outcome_that_nobody_is_known_to_have_written_is_found() -> None:
    assert list(Writing(HANDED_OVER).strangers(["id 77"])) == [
        "two writers: nobody knows who wrote the outcome of id 77"
    ]


def test_the_checker_asks_who_wrote() -> None:
    history, facts = told(*TRUE_STORY)
    unknown = dataclasses.replace(facts, writing=Writing([]))
    assert [found for found in violations(history, unknown) if found.startswith("two writers")]


@pytest.mark.parametrize(("seconds", "found"), [(1, True), (0, True), (-1, False)])
def test_of_two_scheduled_commands_the_one_that_is_due_no_later_comes_first(seconds: int, found: bool) -> None:
    """The second of them is due so many seconds after the first."""
    history, facts = told(TRUE_STORY[0], TRUE_STORY[0])
    times = [DONE_AT, DONE_AT + timedelta(seconds=seconds)]
    for operation in history:
        operation.seen.insert(0, ("scheduled", None))
    rows = [row._replace(run_at=run_at) for row, run_at in zip(facts.rows, times, strict=True)]
    assert violations(history, dataclasses.replace(facts, rows=rows)) == []
    lies = violations(history, dataclasses.replace(facts, rows=rows[::-1]))
    assert any(lie.startswith("out of order: id 0 was scheduled before id 1") for lie in lies) == found


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("nft.set_price"),
            st.integers(1, 3),
            st.fixed_dictionaries({"price_nano": st.sampled_from([PRICE, None])}),
        ),
        st.tuples(
            st.just("nft.buy"),
            st.integers(1, 3),
            st.fixed_dictionaries({"price_nano": st.sampled_from([PRICE, 2 * PRICE])}),
        ),
        st.tuples(st.just("nft.transfer"), st.integers(1, 3), st.fixed_dictionaries({"to_user_id": st.integers(1, 3)})),
    ),
    max_size=20,
)


@given(STEPS)
def test_no_true_history_is_doubted(steps: list[tuple[str, int, dict[str, int | None]]]) -> None:
    assert violations(*told(*steps)) == []


@given(STEPS.filter(bool), st.data())
def test_no_lost_command_goes_unnoticed(
    steps: list[tuple[str, int, dict[str, int | None]]], data: st.DataObject
) -> None:
    history, facts = told(*steps)
    lost = data.draw(st.integers(0, len(steps) - 1))
    rows = [row for number, row in enumerate(facts.rows) if number != lost]
    assert violations(history, dataclasses.replace(facts, rows=rows))
