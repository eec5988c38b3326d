"""Withdrawals, and returns of gifts to Telegram: sagas that end with the answer from outside."""

from datetime import timedelta

from tests.commands.model.items import hold_free, own_free_item, reserve
from tests.commands.model.market import RETURN_FEE_NANO, Market, Refused, Return, Sent, Withdrawal, refuse, rule

WITHDRAW_FEE_NANO = 10_000_000
WITHDRAW_INTERVAL = timedelta(seconds=60)
DAY = timedelta(hours=24)


@rule("market.withdraw")
def withdraw(market: Market, sent: Sent) -> None:
    amount, last = sent["amount_nano"], market.withdrawn_at.get(sent.user)
    refuse(sent["address"] == market.limits.wallet, "ADDRESS_NOT_ALLOWED")
    refuse(last and sent.accepted_at < last + WITHDRAW_INTERVAL, "WITHDRAWAL_LIMIT")
    recent = sum(
        one.amount_nano
        for one in market.withdrawals.values()
        if one.user_id == sent.user and one.state != "failed" and one.opened_at > sent.now - DAY
    )
    refuse(recent + amount > market.limits.withdrawn_daily_nano, "WITHDRAWAL_LIMIT")
    market.require(sent.user, amount)

    market.available[sent.user] -= amount
    market.withdrawn_at[sent.user] = sent.accepted_at
    market.withdrawals[sent.id] = Withdrawal("requested", sent.user, amount, sent.now)
    market.ask(sent, "market.withdraw_fail", user_id=sent.user, withdrawal_id=sent.id)


def waiting_withdrawal(market: Market, sent: Sent) -> Withdrawal:
    found = market.withdrawals.get(sent["withdrawal_id"])
    if found is None or found.user_id != sent["user_id"]:
        raise Refused("WITHDRAWAL_NOT_FOUND", {})
    refuse(not found.is_open, "REQUEST_NOT_OPEN")
    market.refuse_in_flight(sent, sent["withdrawal_id"])
    return found


@rule("market.withdraw_confirm")
def confirm_withdrawal(market: Market, sent: Sent) -> None:
    found = waiting_withdrawal(market, sent)

    market.platform["withdrawals"] += found.amount_nano - WITHDRAW_FEE_NANO + sent["network_fee_nano"]
    market.platform["fees"] += WITHDRAW_FEE_NANO
    market.platform["expense"] -= sent["network_fee_nano"]
    found.state = "confirmed"


@rule("market.withdraw_fail")
def fail_withdrawal(market: Market, sent: Sent) -> None:
    found = waiting_withdrawal(market, sent)

    market.available[found.user_id] += found.amount_nano
    found.state = "failed"


@rule("nft.return")
def return_item(market: Market, sent: Sent) -> None:
    own_free_item(market, sent)
    market.require(sent.user, RETURN_FEE_NANO)

    market.available[sent.user] -= RETURN_FEE_NANO
    reserve(market, sent["nft_id"], "withdrawing", sent.id)
    market.returns[sent.id] = Return("requested", sent["nft_id"], sent.user)
    market.ask(sent, "nft.return_fail", nft_id=sent["nft_id"], return_id=sent.id)


def waiting_return(market: Market, sent: Sent) -> Return:
    found = market.returns.get(sent["return_id"])
    if found is None or found.nft_id != sent["nft_id"]:
        raise Refused("RETURN_NOT_FOUND", {})
    refuse(not found.is_open, "REQUEST_NOT_OPEN")
    market.refuse_in_flight(sent, sent["return_id"])
    return found


@rule("nft.return_confirm")
def confirm_return(market: Market, sent: Sent) -> None:
    found = waiting_return(market, sent)

    market.platform["fees"] += RETURN_FEE_NANO
    found.state = "confirmed"
    item = market.items[found.nft_id]
    item.owner_id, item.state, item.reserved_by = None, "external", None


@rule("nft.return_fail")
def fail_return(market: Market, sent: Sent) -> None:
    found = waiting_return(market, sent)

    market.available[found.user_id] += RETURN_FEE_NANO
    found.state = "failed"
    hold_free(market.items[found.nft_id], found.user_id)
