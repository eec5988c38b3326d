"""Telegram accounts and their channels: what goes through the gateway and takes its time.

The outside world answers when it likes, so these stories look until they see the state that they wait for.
"""

from dataclasses import dataclass, field
from typing import Any

from loadtest.stories.people import joined
from loadtest.stories.stage import Scene, Story, Telling

UNKNOWN = "00000000-0000-7000-8000-000000000000"
DAY_SECONDS = 86_400


@dataclass
class Account:
    """A connected Telegram account, and those of its channels that are not on the market yet."""

    account_id: str
    user_id: int
    channels: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/v1/accounts/{self.account_id}"

    @property
    def asked(self) -> str:
        """The query of reads in its owner's name."""
        return f"?actor={self.user_id}"


def connected(scene: Scene) -> Story:
    """An account is connected and read; its channels may be sold later."""
    account = yield from _connected(scene)
    if account is not None:
        scene.market.accounts.append(account)


def gift_sent(scene: Scene) -> Story:
    """A gift is sent straight from the account to somebody in Telegram."""
    account = yield from _connected(scene)
    if account is None:
        return
    user_id = account.user_id

    def of_this_account(page: Any) -> Any:
        return next((each["gift"] for each in page["items"] if each["account_id"] == account.account_id), None)

    gift = yield from scene.until(f"/v1/accounts/gifts{account.asked}&limit=100", of_this_account)
    sent = {"account_id": account.account_id, "gift_id": gift["id"], "receiver_id": scene.rival(user_id)}
    yield from scene.stray("ACCOUNT_PERMISSION_DENIED", "accounts.send_gift", scene.rival(user_id), **sent)
    yield from scene.act("accounts.send_gift", user_id, **sent)
    scene.market.accounts.append(account)


def disconnected(scene: Scene) -> Story:
    """An account is connected and taken away again; what it had on the market goes with it."""
    account = yield from _connected(scene)
    if account is None:
        return
    user_id, named = account.user_id, {"account_id": account.account_id}
    yield from scene.stray("ACCOUNT_PERMISSION_DENIED", "accounts.disconnect", scene.rival(user_id), **named)
    yield from scene.act("accounts.disconnect", user_id, **named)
    yield from scene.act("accounts.sync", user_id, foreseen="ACCOUNT_NOT_ACTIVE", **named)


def channel_sold(scene: Scene) -> Story:
    """A channel is put on the market and bought; it is paid for once it has been handed over."""
    account = yield from _with_channel(scene)
    if account is None:
        return
    channel_id, seller_id = account.channels.pop(), account.user_id
    if account.channels:
        scene.market.accounts.append(account)
    named: dict[str, Any] = {"channel_id": channel_id}
    price_nano = scene.price()
    state = yield from _added(scene, account, channel_id)
    if state != "unlisted":
        return
    yield from scene.stray(
        "CHANNEL_NOT_ON_SALE", "channels.buy", scene.rival(seller_id), **named, price_nano=price_nano
    )
    if scene.terms.channel_account_age_seconds >= DAY_SECONDS:
        yield from scene.act(
            "channels.set_price", seller_id, foreseen="ACCOUNT_TOO_NEW", **named, price_nano=price_nano
        )
        return
    priced = yield from scene.act(
        "channels.set_price", seller_id, foreseen="succeeded|ACCOUNT_TOO_NEW", **named, price_nano=price_nano
    )
    if not priced:
        return
    buyer_id = scene.rival(seller_id, nano=price_nano)
    for code, actor, nano in (
        ("SELF_TRADE_NOT_ALLOWED", seller_id, price_nano),
        ("PRICE_CHANGED", buyer_id, price_nano + 1),
        ("INSUFFICIENT_BALANCE", scene.chance.choice(scene.market.poor), price_nano),
    ):
        yield from scene.stray(code, "channels.buy", actor, **named, price_nano=nano)
    scene.spend(buyer_id, price_nano)
    purchase = yield from scene.act("channels.buy", buyer_id, **named, price_nano=price_nano)
    yield from scene.stray(
        "CHANNEL_RESERVED|CHANNEL_NOT_FOUND", "channels.set_price", seller_id, **named, price_nano=None
    )
    page = f"/v1/channels/purchases?actor={buyer_id}&limit=100"
    state = yield from scene.until_ended(page, "purchase_id", purchase["purchase_id"], "requested")
    if state == "confirmed":
        scene.earn(seller_id, scene.after_fee(price_nano, scene.terms.channel_fee_bp))
    else:
        scene.earn(buyer_id, price_nano)


def channel_deleted(scene: Scene) -> Story:
    """A channel is added, and taken off the market by its owner."""
    account = yield from _with_channel(scene)
    if account is None:
        return
    channel_id, owner_id = account.channels.pop(), account.user_id
    yield from _added(scene, account, channel_id)
    stranger = scene.rival(owner_id)
    yield from scene.stray("CHANNEL_PERMISSION_DENIED", "channels.delete", stranger, channel_id=channel_id)
    yield from scene.act("channels.delete", owner_id, channel_id=channel_id)


def _added(scene: Scene, account: Account, channel_id: str) -> Telling[str]:
    """The state in which the inspection leaves the channel."""
    named = {"channel_id": channel_id, "account_id": account.account_id}
    unknown = {**named, "account_id": UNKNOWN}
    yield from scene.stray("ACCOUNT_NOT_FOUND", "channels.add", account.user_id, **unknown)
    yield from scene.act("channels.add", account.user_id, **named)
    page = f"/v1/channels/mine{account.asked}&limit=100"
    return (yield from scene.until_ended(page, "channel_id", channel_id, "checking"))


def _with_channel(scene: Scene) -> Telling[Account | None]:
    """A connected account that has a channel; it is this story's until it is given back."""
    accounts = scene.market.accounts
    if accounts:
        account: Account = accounts.pop(scene.chance.randrange(len(accounts)))
        return account
    return (yield from _connected(scene))


def _connected(scene: Scene) -> Telling[Account | None]:
    """A newcomer's account, connected and read; None when Telegram would not have it."""
    user_id = yield from joined(scene)
    phone = f"+{user_id % 10**13:013}"
    yield from scene.stray("ACCOUNT_NOT_FOUND", "accounts.sync", user_id, account_id=UNKNOWN)
    asked = yield from scene.act("accounts.connect", user_id, phone=phone)
    account = Account(asked["account_id"], user_id)
    named = {"account_id": account.account_id}
    if (yield from _seen(scene, account, "requested")) != "code_sent":
        return None
    yield from scene.stray("ACCOUNT_NOT_ACTIVE", "accounts.sync", user_id, **named)
    yield from scene.act("accounts.approve", user_id, **named, code="12345", name="main")
    if (yield from _seen(scene, account, "code_sent", "signing_in")) != "connected":
        return None
    again = scene.rival(user_id)
    yield from scene.stray("ACCOUNT_ALREADY_EXISTS", "accounts.connect", again, phone=phone)
    yield from scene.act("accounts.sync", user_id, **named)
    page = f"{account.path}/channels{account.asked}&limit=100"
    channels = yield from scene.until(page, lambda page: page["items"] or None)
    account.channels = [channel["channel_id"] for channel in channels]
    return account


def _seen(scene: Scene, account: Account, *waiting: str) -> Telling[str]:
    """The account's state once it is none of those."""

    def shows(read: Any) -> Any:
        return read["state"] if read["state"] not in waiting else None

    state: str = yield from scene.until(account.path + account.asked, shows)
    return state
