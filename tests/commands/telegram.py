"""What the tests of Telegram accounts and of channels start from, as a gateway would answer: read from JSON."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from commands.accounts.telegram import Channel
from commands.book import Account
from commands.command import Command, decode
from commands.outcome import Code, Outcome, Status
from commands.requests import GatewayRequest, RequestState
from commands.terms import TON
from tests.commands.world import World, gift

OWNER, OTHER, THIRD = 1, 2, 3
PHONE = "+491701234567"
NOWHERE = UUID(int=1 << 100)
CHANNEL = 5_000_000_000_000_000_000
"""Larger than 2^62: as large as an id may be."""
PRICE = 4 * TON


def told(kind: str, **payload: Any) -> Command:
    return decode(kind, to_json(payload))


def id_of(outcome: Outcome, name: str) -> UUID:
    assert outcome.result is not None, outcome
    return UUID(outcome.result[name])


def connecting(world: World, user_id: int = OWNER, phone: str = PHONE) -> UUID:
    """An account to which a code is to be sent."""
    return id_of(world.one(told("accounts.connect", phone=phone), user_id), "account_id")


def with_code(world: World, user_id: int = OWNER, phone: str = PHONE) -> UUID:
    """An account to which a code was sent."""
    account_id = connecting(world, user_id, phone)
    succeed(world, told("accounts.connect_confirm", user_id=user_id, account_id=account_id))
    return account_id


def approve(account_id: UUID, name: str = "main", **fields: Any) -> Command:
    return told("accounts.approve", **({"account_id": account_id, "code": "12345", "name": name} | fields))


def signing_in(world: World, user_id: int = OWNER, phone: str = PHONE, name: str = "main") -> tuple[UUID, UUID]:
    """An account whose code was entered, and the sign-in."""
    account_id = with_code(world, user_id, phone)
    return account_id, id_of(world.one(approve(account_id, name), user_id), "approve_id")


def approved(account_id: UUID, approve_id: UUID, user_id: int = OWNER, telegram_id: int = 777) -> Command:
    names = {"user_id": user_id, "account_id": account_id, "approve_id": approve_id}
    return told("accounts.approve_confirm", **names, telegram_id=telegram_id, stars=50, premium=True)


def connected(
    world: World, user_id: int = OWNER, phone: str = PHONE, telegram_id: int = 777, name: str = "main"
) -> UUID:
    """A connected account."""
    account_id, approve_id = signing_in(world, user_id, phone, name)
    result = succeed(world, approved(account_id, approve_id, user_id, telegram_id))
    assert result["state"] == "connected"
    return account_id


def in_account(gift_id: int, message_ref: str | None = None) -> dict[str, Any]:
    """A gift as a snapshot tells of it."""
    return {"gift": gift(gift_id), "message_ref": message_ref or f"gift {gift_id}"}


def snapshot(account_id: UUID, user_id: int = OWNER, **changes: Any) -> Command:
    fields: dict[str, Any] = {
        "user_id": user_id,
        "account_id": account_id,
        "sync_id": NOWHERE,
        "stars": 60,
        "premium": False,
        "gifts": [in_account(7)],
        "channels": [],
    }
    return told("accounts.sync_confirm", **(fields | changes))


def shown(channel_id: int, check_id: UUID, **changes: Any) -> Command:
    """What an inspection answers."""
    fields: dict[str, Any] = {
        "channel_id": str(channel_id),
        "check_id": check_id,
        "title": "Gifts",
        "username": "gifts",
        "is_creator": True,
        "gifts": [{"gift": gift(7), "quantity": 2}, {"gift": gift(8), "quantity": 1}],
        "gifts_hash": "a hash",
    }
    return told("channels.add_confirm", **(fields | changes))


def added(world: World, account_id: UUID, channel_id: int = CHANNEL, user_id: int = OWNER) -> int:
    """An unlisted channel of a connected account."""
    outcome = world.one(told("channels.add", channel_id=str(channel_id), account_id=account_id), user_id)
    succeed(world, shown(channel_id, id_of(outcome, "check_id")))
    return channel_id


def listed(world: World, account_id: UUID, price_nano: int, channel_id: int = CHANNEL, user_id: int = OWNER) -> int:
    """A listed channel."""
    added(world, account_id, channel_id, user_id)
    world.now += timedelta(days=1)
    succeed(world, told("channels.set_price", channel_id=channel_id, price_nano=price_nano), user_id)
    return channel_id


def sent(world: World, reference: UUID, state: RequestState = RequestState.SENT) -> None:
    """What the courier writes down before it calls the gateway."""
    place = GatewayRequest, reference
    world.rows[place] = world.get(*place)._replace(state=state, attempts=1)


def succeed(world: World, command: Command, actor: int | None = None) -> dict[str, Any]:
    outcome = world.one(command, actor)
    assert outcome.status is Status.SUCCEEDED, outcome
    assert outcome.result is not None
    return outcome.result


def refuse(
    world: World, code: Code, command: Command, actor: int | None = None, *, contradicted: bool = False
) -> dict[str, Any]:
    """The command is refused with the code, and leaves nothing behind but what operators are told."""
    rows, records = world.snapshot()
    outcome = world.one(command, actor)
    assert outcome.rejection is not None, outcome
    assert outcome.rejection["code"] == code.name
    assert world.rows == rows
    events: list[Any] = world.records[len(records) :]
    assert [(event.name, event.topics) for event in events] == [("gateway.contradicted", ("ops",))] * contradicted
    return outcome.rejection


def events_since(world: World, mark: int) -> list[Any]:
    """(name, topics, fields) of the events since there were that many records."""
    return [row[1:] for row in world.records[mark:] if type(row).__name__ == "Event"]


# -- channels


def add(account_id: UUID, channel_id: int = CHANNEL) -> Command:
    return told("channels.add", channel_id=str(channel_id), account_id=account_id)


def not_shown(check_id: UUID, reason: str = "not_visible", channel_id: int = CHANNEL) -> Command:
    return told("channels.add_fail", channel_id=str(channel_id), check_id=check_id, reason=reason)


def price(price_nano: int | None, channel_id: int = CHANNEL) -> Command:
    return told("channels.set_price", channel_id=channel_id, price_nano=price_nano)


def delete(channel_id: int = CHANNEL) -> Command:
    return told("channels.delete", channel_id=channel_id)


def buy(price_nano: int = PRICE, channel_id: int = CHANNEL, **fields: Any) -> Command:
    return told("channels.buy", channel_id=channel_id, price_nano=price_nano, **fields)


def moved(purchase_id: UUID, channel_id: int = CHANNEL) -> Command:
    return told("channels.buy_confirm", channel_id=str(channel_id), purchase_id=purchase_id)


def not_moved(purchase_id: UUID, reason: str = "refused", channel_id: int = CHANNEL) -> Command:
    return told("channels.buy_fail", channel_id=str(channel_id), purchase_id=purchase_id, reason=reason)


def channel(world: World, channel_id: int = CHANNEL) -> Channel:
    found: Channel = world.get(Channel, channel_id)
    return found


def asked(world: World, reference: UUID) -> GatewayRequest:
    found: GatewayRequest = world.get(GatewayRequest, reference)
    return found


def money(world: World, user_id: int) -> tuple[int, int]:
    account = world.get(Account, user_id)
    return account.available_nano, account.held_nano


def checking(world: World, account_id: UUID, user_id: int = OWNER) -> UUID:
    """A channel that is being inspected: the inspection."""
    return id_of(world.one(add(account_id), user_id), "check_id")


def selling(world: World, account_id: UUID, buyer_id: int = OTHER) -> UUID:
    """A channel that is being moved: the purchase."""
    listed(world, account_id, PRICE)
    return id_of(world.one(buy(), buyer_id), "purchase_id")
