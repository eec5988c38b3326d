"""Arrays arrive as they were given, whatever is in them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.postgres.arrays import argument, parameter
from storage.postgres.connection import Connection

# PostgreSQL keeps no NUL, and no half of a surrogate pair.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(
    texts=st.lists(st.one_of(st.none(), TEXTS)),
    integers=st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_arrays_come_back_as_they_were_sent(
    lane: Connection, texts: list[str | None], integers: list[int | None]
) -> None:
    row = await lane.fetchrow(
        f"SELECT {parameter(1, 'text[]')}, {parameter(2, 'bigint[]')}",
        argument("text[]", texts),
        argument("bigint[]", integers),
    )
    assert row is not None
    assert (row[0], row[1]) == (texts, integers)


@pytest.mark.parametrize(
    "text", ["", "NULL", "null", '"', "\\", '\\"', "{}", ",", " a ", "a\nb", "\x1f", "é", "a'b;--"]
)
async def test_awkward_texts_arrive(lane: Connection, text: str) -> None:
    assert await lane.fetchval(f"SELECT {parameter(1, 'text[]')}", argument("text[]", [text, None])) == [text, None]


def test_other_types_travel_as_they_are() -> None:
    values = [object()]
    assert parameter(3, "uuid[]") == "$3::uuid[]"
    assert argument("uuid[]", values) is values
