"""Topics: what events can be listened to, and by whom."""

import re
from collections.abc import Callable, Sequence
from uuid import UUID

from api.openapi.columns import DECIMAL, Schema, named
from api.problems import Problem
from commands.command import BIGINT_MAX, PRINTABLE, Invalid
from storage.keys import Credential, Role

TOPICS_MAX = 100
"""Topics of one stream."""
_NAME_MAX = 128
_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
CURSOR: Schema = {"type": "string", "pattern": "^[0-9]{1,19}-[0-9]{1,19}$", "examples": ["7052-9"]}
TOPIC: Schema = named(
    "Topic",
    {
        "type": "string",
        "pattern": "^("
        "market|commands|ops"
        f"|(user|nft|gift|channel):{DECIMAL}"
        "|(trade|auctions):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        rf"|collection:[^\x00-\x1f\x7f]{{1,{_NAME_MAX}}}"
        ")$",
        "description": "What to be told of. `user:<id>` is that user's, `ops` the operators'; `commands` tells webhooks"
        " what came of the credential's own commands.",
        "examples": ["market", "nft:17", "collection:Plush Pepe"],
    },
)
_FORMS = "market, nft:<id>, gift:<id>, channel:<id>, collection:<name>, trade:<id>, auctions:<id>, user:<id>, commands"


def readable(credential: Credential, topics: Sequence[str]) -> list[str]:
    """The names under which the events of these topics are stored, each once.

    Raises Invalid for what is no topic, and Problem 403 for another's, which tells nobody whether there is such a user.
    """
    if not topics:
        raise Invalid(("topic", "name at least one"))
    if len(topics) > TOPICS_MAX:
        raise Invalid(("topic", f"at most {TOPICS_MAX}"))
    return list(dict.fromkeys(_stored(credential, topic) for topic in topics))


def _stored(credential: Credential, topic: str) -> str:
    sort, colon, name = topic.partition(":")
    if not colon:
        match topic:
            case "market":
                return topic
            case "commands":  # what came of the credential's own
                return f"commands:{credential.id}"
            case "ops":
                if credential.role is not Role.OPERATOR:
                    raise _forbidden()
                return topic
            case _:
                raise _unknown(topic)
    stored = _PLAIN[sort](name) if sort in _PLAIN else None
    if stored is None:
        raise _unknown(topic)
    if sort == "user" and not _may_read(credential, int(stored)):
        raise _forbidden()
    return f"{sort}:{stored}"


def _may_read(credential: Credential, user_id: int) -> bool:
    match credential.role:
        case Role.OPERATOR | Role.SERVICE:
            return True
        case Role.USER:
            return credential.user_id == user_id
        case Role.FEED:
            return False


def _number(name: str) -> str | None:
    return name if _NUMBER.fullmatch(name) and int(name) <= BIGINT_MAX else None


def _uuid(name: str) -> str | None:
    try:
        return str(UUID(name))
    except ValueError:
        return None


def _text(name: str) -> str | None:
    return name if 0 < len(name) <= _NAME_MAX and re.fullmatch(PRINTABLE, name) else None


_PLAIN: dict[str, Callable[[str], str | None]] = {
    "user": _number,
    "nft": _number,
    "gift": _number,
    "channel": _number,
    "collection": _text,
    "trade": _uuid,
    "auctions": _uuid,
}
"""The plain form of what follows the colon, or None when it is none."""


def _unknown(topic: str) -> Invalid:
    return Invalid(("topic", f"{topic[:40]!r} is none of {_FORMS}"))


def _forbidden() -> Problem:
    return Problem(403, "forbidden", "The topic is not yours.")
