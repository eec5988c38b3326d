"""Topics: public ones for all, private ones for their own."""

from collections.abc import Sequence
from uuid import uuid4

import pytest

from api.events.topics import TOPICS_MAX, readable
from api.problems import Problem
from commands.command import Invalid
from storage.keys import Credential, Role

TRADE = str(uuid4())
PUBLIC = [
    "market",
    "nft:17",
    f"nft:{2**63 - 1}",
    "gift:1",
    "channel:5",
    "collection:Plush Pepe: the second",
    f"trade:{TRADE}",
    f"auctions:{TRADE}",
]
OPERATOR = Credential("o", Role.OPERATOR, None)
SERVICE = Credential("s", Role.SERVICE, None)
FEED = Credential("f", Role.FEED, None)
USER = Credential("u", Role.USER, 42)


@pytest.mark.parametrize("credential", [OPERATOR, SERVICE, FEED, USER])
def test_public_topics_are_for_all(credential: Credential) -> None:
    assert readable(credential, PUBLIC) == PUBLIC


@pytest.mark.parametrize("credential", [OPERATOR, SERVICE, USER])
def test_a_users_topic_is_for_the_user_and_for_those_who_serve_all(credential: Credential) -> None:
    assert readable(credential, ["user:42"]) == ["user:42"]


@pytest.mark.parametrize(
    ("credential", "topic"),
    [(USER, "user:43"), (USER, "ops"), (SERVICE, "ops"), (FEED, "ops"), (FEED, "user:42")],
)
def test_anothers_topic_is_refused_alike_whether_there_is_such_a_one_or_not(credential: Credential, topic: str) -> None:
    with pytest.raises(Problem) as refused:
        readable(credential, ["market", topic])
    assert (refused.value.status, refused.value.code) == (403, "forbidden")
    assert not any(character.isdigit() for character in refused.value.detail)


def test_ops_is_for_operators() -> None:
    assert readable(OPERATOR, ["ops"]) == ["ops"]


def test_finished_commands_are_those_of_the_credential() -> None:
    assert readable(USER, ["commands"]) == ["commands:u"]
    with pytest.raises(Invalid):
        readable(OPERATOR, ["commands:u"])


@pytest.mark.parametrize(
    "topic",
    [
        *("", ":", "nft", "nft:", "nft:0", "nft:-1", "nft:017", "nft:1 ", "nft:1.0", f"nft:{2**63}", "nft:\uff11"),
        *(
            "market:",
            "market:1",
            "Market",
            "user:",
            "user:x",
            "ops:1",
            "commands:",
            "trade:1",
            "auctions:",
            "auction:1",
        ),
        *("collection:", "collection:\x00", "collection:a\nb", "collection:" + "x" * 129, "x" * 10_000, "nft:1,nft:2"),
    ],
)
def test_what_is_no_topic_is_invalid(topic: str) -> None:
    with pytest.raises(Invalid) as refused:
        readable(OPERATOR, [topic])
    [(path, message)] = refused.value.errors
    assert path == "topic"
    assert len(message) < 300


def test_an_id_is_known_in_any_form() -> None:
    assert readable(USER, [f"trade:{TRADE.upper()}", f"trade:{TRADE}", "market", "market"]) == [
        f"trade:{TRADE}",
        "market",
    ]


@pytest.mark.parametrize("topics", [[], [f"nft:{number}" for number in range(1, TOPICS_MAX + 2)]])
def test_a_stream_is_of_one_topic_at_least_and_of_so_many_at_most(topics: Sequence[str]) -> None:
    with pytest.raises(Invalid):
        readable(OPERATOR, topics)
