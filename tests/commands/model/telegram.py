"""Users' own Telegram accounts, what is in them, and the sale of channels."""

from datetime import timedelta
from uuid import UUID

from tests.commands.model.market import (
    Channel,
    ChannelPurchase,
    Deal,
    Market,
    Refused,
    Sent,
    TelegramAccount,
    refuse,
    rule,
)

CHANNEL_FEE_BP = 100
ACCOUNT_AGE = timedelta(seconds=86_400)
TRY_AGAIN = ("code_wrong", "password_wrong", "password_needed")
ADD_AGAIN = ("gifts_modified", "not_creator", "account_unusable")


def any_account(market: Market, sent: Sent) -> TelegramAccount:
    account = market.accounts.get(sent["account_id"])
    if account is None:
        raise Refused("ACCOUNT_NOT_FOUND", {})
    return account


def own_account(market: Market, sent: Sent) -> TelegramAccount:
    account = any_account(market, sent)
    refuse(account.user_id != sent.actor, "ACCOUNT_PERMISSION_DENIED")
    return account


def answered_account(market: Market, sent: Sent) -> TelegramAccount:
    account = any_account(market, sent)
    refuse(account.user_id != sent["user_id"], "ACCOUNT_NOT_FOUND")
    return account


def require_connected(account: TelegramAccount) -> None:
    refuse(account.state != "connected", "ACCOUNT_NOT_ACTIVE", state=account.state)


def others_connected(market: Market, account_id: UUID) -> list[TelegramAccount]:
    return [one for id_, one in market.accounts.items() if id_ != account_id and one.state == "connected"]


@rule("accounts.connect")
def connect(market: Market, sent: Sent) -> None:
    same = [account for account in market.accounts.values() if account.phone == sent["phone"] and account.is_open]
    refuse(any(account.state == "connected" for account in same), "ACCOUNT_ALREADY_EXISTS")

    for account in same:
        if account.user_id == sent.actor:
            account.state = "failed"
    market.accounts[sent.id] = TelegramAccount("requested", sent.user, sent["phone"])
    market.ask(sent, "accounts.connect_fail", user_id=sent.user, account_id=sent.id)


@rule("accounts.connect_confirm")
def confirm_connect(market: Market, sent: Sent) -> None:
    account = answered_account(market, sent)
    refuse(account.state != "requested", "REQUEST_NOT_OPEN")

    account.state = "code_sent"


@rule("accounts.connect_fail")
def fail_connect(market: Market, sent: Sent) -> None:
    account = answered_account(market, sent)
    refuse(account.state != "requested", "REQUEST_NOT_OPEN")
    market.refuse_in_flight(sent, sent["account_id"])

    account.state = "failed"


@rule("accounts.approve")
def approve(market: Market, sent: Sent) -> None:
    account = own_account(market, sent)
    for other in others_connected(market, sent["account_id"]):
        same_name = other.user_id == sent.actor and other.name == sent["name"]
        refuse(same_name or other.phone == account.phone, "ACCOUNT_ALREADY_EXISTS")
    refuse(account.state != "code_sent", "ACCOUNT_NOT_ACTIVE", state=account.state)

    account.state, account.approve_id, account.name = "signing_in", sent.id, sent["name"]
    names = {"user_id": account.user_id, "account_id": sent["account_id"], "approve_id": sent.id}
    market.ask(sent, "accounts.approve_fail", **names)


def signing_in(market: Market, sent: Sent) -> TelegramAccount:
    account = answered_account(market, sent)
    refuse(account.state != "signing_in" or account.approve_id != sent["approve_id"], "REQUEST_NOT_OPEN")
    market.refuse_in_flight(sent, sent["approve_id"])
    return account


@rule("accounts.approve_confirm")
def confirm_approve(market: Market, sent: Sent) -> None:
    """Connected elsewhere: by its id at Telegram, its phone, or the name that its user gave to another one since."""
    account = signing_in(market, sent)

    duplicate = any(
        other.telegram_id == sent["telegram_id"]
        or other.phone == account.phone
        or (other.user_id, other.name) == (account.user_id, account.name)
        for other in others_connected(market, sent["account_id"])
    )
    if duplicate:
        account.state = "failed"
        market.ask(sent)
    else:
        account.state, account.connected_at, account.telegram_id = "connected", sent.now, sent["telegram_id"]


@rule("accounts.approve_fail")
def fail_approve(market: Market, sent: Sent) -> None:
    account = signing_in(market, sent)

    account.state = "code_sent" if sent["reason"] in TRY_AGAIN else "failed"


@rule("accounts.sync")
def sync(market: Market, sent: Sent) -> None:
    require_connected(own_account(market, sent))

    market.ask(sent)


@rule("accounts.sync_confirm")
def confirm_sync(market: Market, sent: Sent) -> None:
    require_connected(answered_account(market, sent))

    drop_snapshot(market, sent["account_id"])
    market.account_gifts |= {(sent["account_id"], found["gift"]["id"]) for found in sent["gifts"]}
    market.account_channels |= {(sent["account_id"], found["channel_id"]) for found in sent["channels"]}


@rule("accounts.sync_fail")
def fail_sync(market: Market, sent: Sent) -> None:
    account = answered_account(market, sent)

    if sent["reason"] == "session_lost" and account.state == "connected":
        end_account(market, sent, account)


@rule("accounts.send_gift")
def send_gift(market: Market, sent: Sent) -> None:
    any_account(market, sent)
    refuse((sent["account_id"], sent["gift_id"]) not in market.account_gifts, "GIFT_NOT_FOUND")
    require_connected(own_account(market, sent))

    market.ask(sent)


@rule("accounts.send_gift_confirm")
def confirm_send_gift(market: Market, sent: Sent) -> None:
    answered_account(market, sent)

    market.account_gifts.discard((sent["account_id"], sent["gift_id"]))


@rule("accounts.send_gift_fail")
def fail_send_gift(market: Market, sent: Sent) -> None:
    answered_account(market, sent)


@rule("accounts.disconnect", releases_only=True)
def disconnect(market: Market, sent: Sent) -> None:
    account = own_account(market, sent)
    refuse(not account.is_open, "ACCOUNT_NOT_ACTIVE", state=account.state)
    channels = [channel for channel in market.channels.values() if channel.account_id == sent["account_id"]]
    refuse(any(channel.state == "selling" for channel in channels), "ACCOUNT_IN_USE")

    end_account(market, sent, account)


def end_account(market: Market, sent: Sent, account: TelegramAccount) -> None:
    account.state = "disconnected"
    drop_snapshot(market, sent["account_id"])
    for channel in market.channels.values():
        if channel.account_id == sent["account_id"] and channel.is_open and channel.state != "selling":
            channel.state, channel.price_nano = "deleted", None
    market.ask(sent)


def drop_snapshot(market: Market, account_id: UUID) -> None:
    market.account_gifts = {row for row in market.account_gifts if row[0] != account_id}
    market.account_channels = {row for row in market.account_channels if row[0] != account_id}


# -- channels


@rule("channels.add")
def add_channel(market: Market, sent: Sent) -> None:
    account, channel = own_account(market, sent), market.channels.get(sent["channel_id"])
    if channel:
        others = channel.state in ("unlisted", "listed") and channel.owner_id != sent.actor
        refuse(channel.state == "checking" or others, "CHANNEL_ALREADY_EXISTS")
    require_connected(account)
    refuse(channel and channel.state == "selling", "CHANNEL_RESERVED")

    market.channels[sent["channel_id"]] = Channel("checking", sent.user, sent["account_id"], sent.id)
    market.ask(sent, "channels.add_fail", channel_id=sent["channel_id"], check_id=sent.id)


def named_channel(market: Market, sent: Sent) -> Channel:
    channel = market.channels.get(sent["channel_id"])
    if channel is None or not channel.is_open:
        raise Refused("CHANNEL_NOT_FOUND", {})
    return channel


def checked_channel(market: Market, sent: Sent) -> Channel:
    channel = named_channel(market, sent)
    refuse(channel.state != "checking" or channel.check_id != sent["check_id"], "REQUEST_NOT_OPEN")
    market.refuse_in_flight(sent, sent["check_id"])
    return channel


@rule("channels.add_confirm")
def confirm_add(market: Market, sent: Sent) -> None:
    channel = checked_channel(market, sent)

    channel.state = "unlisted" if sent["is_creator"] and sent["gifts"] else "refused"


@rule("channels.add_fail")
def fail_add(market: Market, sent: Sent) -> None:
    channel = checked_channel(market, sent)

    channel.state = "refused"


@rule("channels.set_price")
def set_price(market: Market, sent: Sent) -> None:
    channel = named_channel(market, sent)
    refuse(channel.owner_id != sent.actor, "CHANNEL_PERMISSION_DENIED")
    refuse(channel.state == "selling", "CHANNEL_RESERVED")
    refuse(channel.state in ("checking", "refused"), "CHANNEL_NOT_READY", state=channel.state)
    if sent["price_nano"] is not None:
        account = market.accounts[channel.account_id]
        require_connected(account)
        assert account.connected_at is not None
        refuse(sent.accepted_at < account.connected_at + ACCOUNT_AGE, "ACCOUNT_TOO_NEW")

    channel.price_nano = sent["price_nano"]
    channel.state = "unlisted" if channel.price_nano is None else "listed"


@rule("channels.delete", releases_only=True)
def delete_channel(market: Market, sent: Sent) -> None:
    channel = named_channel(market, sent)
    refuse(sent.actor not in (None, channel.owner_id), "CHANNEL_PERMISSION_DENIED")
    refuse(channel.state == "selling", "CHANNEL_RESERVED")

    channel.state, channel.price_nano = "deleted", None


@rule("channels.buy")
def buy(market: Market, sent: Sent) -> None:
    channel = named_channel(market, sent)
    refuse(channel.state == "selling", "CHANNEL_RESERVED")
    refuse(channel.state != "listed", "CHANNEL_NOT_ON_SALE")
    require_connected(market.accounts[channel.account_id])
    refuse(channel.owner_id == sent.actor, "SELF_TRADE_NOT_ALLOWED")
    price = channel.price_nano
    assert price is not None
    refuse(sent["price_nano"] != price, "PRICE_CHANGED", price_nano=price)
    market.require(sent.user, price)

    market.available[sent.user] -= price
    market.purchases[sent.id] = ChannelPurchase("requested", sent["channel_id"], sent.user, channel.owner_id, price)
    channel.state, channel.reserved_by = "selling", sent.id
    market.ask(sent, "channels.buy_fail", channel_id=sent["channel_id"], purchase_id=sent.id)


def waiting_purchase(market: Market, sent: Sent) -> ChannelPurchase:
    """A purchase that has ended is found whatever has become of its channel since (H34)."""
    purchase = market.purchases.get(sent["purchase_id"])
    if purchase is None or purchase.channel_id != sent["channel_id"]:
        named_channel(market, sent)
        raise Refused("REQUEST_NOT_OPEN", {})
    refuse(not purchase.is_open, "REQUEST_NOT_OPEN")
    market.refuse_in_flight(sent, sent["purchase_id"])
    return purchase


@rule("channels.buy_confirm")
def confirm_buy(market: Market, sent: Sent) -> None:
    purchase = waiting_purchase(market, sent)

    purchase.state = "confirmed"
    channel = market.channels[sent["channel_id"]]
    channel.state, channel.price_nano, channel.reserved_by = "sold", None, None
    fee = market.pay(purchase.seller_id, purchase.price_nano, CHANNEL_FEE_BP)
    deal = Deal("channel", purchase.seller_id, purchase.buyer_id, purchase.price_nano, fee)
    market.deals[sent["purchase_id"]] = deal


@rule("channels.buy_fail")
def fail_buy(market: Market, sent: Sent) -> None:
    purchase = waiting_purchase(market, sent)

    purchase.state = "failed"
    market.available[purchase.buyer_id] += purchase.price_nano
    channel = market.channels[sent["channel_id"]]
    channel.reserved_by = None
    if sent["reason"] in ADD_AGAIN:
        channel.state, channel.price_nano = "refused", None
    else:
        channel.state = "listed"
