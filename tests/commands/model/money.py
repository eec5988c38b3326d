"""Users, deposits and what operators put right."""

from tests.commands.model.market import Deposit, Market, Refused, Sent, refuse, rule

DEPOSIT_NANO = (10_000_000, 100_000 * 10**9)


@rule("users.register")
def register(market: Market, sent: Sent) -> None:
    market.register(sent["user_id"])


@rule("users.block")
def block(market: Market, sent: Sent) -> None:
    refuse(sent["user_id"] not in market.blocked, "USER_NOT_FOUND", user_id=sent["user_id"])
    market.blocked[sent["user_id"]] = True


@rule("users.unblock")
def unblock(market: Market, sent: Sent) -> None:
    refuse(sent["user_id"] not in market.blocked, "USER_NOT_FOUND", user_id=sent["user_id"])
    market.blocked[sent["user_id"]] = False


@rule("market.deposit")
def deposit(market: Market, sent: Sent) -> None:
    transaction = (sent["wallet"], sent["logical_time"], sent["hash"])
    refuse(transaction in market.transactions, "DEPOSIT_ALREADY_RECORDED")

    market.transactions.add(transaction)
    amount, user_id = sent["amount_nano"], user_of(sent["memo"])
    market.platform["deposits"] -= amount
    if user_id in market.blocked and DEPOSIT_NANO[0] <= amount <= DEPOSIT_NANO[1]:
        assert user_id is not None
        market.available[user_id] += amount
        market.deposits[sent.id] = Deposit("credited", amount, user_id)
    else:
        market.platform["unclaimed"] += amount
        market.deposits[sent.id] = Deposit("unclaimed", amount, None)


def user_of(memo: str) -> int | None:
    """The memo of a user below 10: the id, and the same in two digits."""
    return int(memo[0]) if len(memo) == 3 and memo == f"{memo[0]}0{memo[0]}" and memo[0].isdecimal() else None


@rule("market.assign_deposit")
def assign_deposit(market: Market, sent: Sent) -> None:
    refuse(sent["user_id"] not in market.blocked, "USER_NOT_FOUND", user_id=sent["user_id"])
    found = market.deposits.get(sent["deposit_id"])
    if found is None:
        raise Refused("DEPOSIT_NOT_FOUND", {})
    refuse(found.state != "unclaimed", "DEPOSIT_NOT_UNCLAIMED")

    market.platform["unclaimed"] -= found.amount_nano
    market.available[sent["user_id"]] += found.amount_nano
    found.state, found.user_id = "assigned", sent["user_id"]


@rule("market.adjust")
def adjust(market: Market, sent: Sent) -> None:
    refuse(sent["user_id"] not in market.blocked, "USER_NOT_FOUND", user_id=sent["user_id"])
    market.require(sent["user_id"], max(0, -sent["amount_nano"]))

    market.available[sent["user_id"]] += sent["amount_nano"]
    market.platform["expense"] -= sent["amount_nano"]
