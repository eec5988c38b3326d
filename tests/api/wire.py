"""What each field of each kind takes, and what it does not: from the documentation, not from the code."""

from typing import Any, NamedTuple

from tests.market import TON, gift

BIGGEST = 2**63 - 1
SAFE = 2**53 - 1  # the largest integer that every JSON reader keeps
UUID = "0197b0c4-0000-7000-8000-000000000001"
ADDRESS = "EQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPrHF"


class Field(NamedTuple):
    """Its type, whether it must be there, whether it may be null."""

    type: str
    required: bool = True
    nullable: bool = False


def _fields(**types: str) -> dict[str, Field]:
    """A type with ? may be absent or null, with ~ it may be null, with = it may be absent."""
    return {
        name: Field(kind.rstrip("?~="), required=kind[-1] not in "?=", nullable=kind[-1] in "?~")
        for name, kind in types.items()
    }


GIFT = {
    "id": Field("big id"),
    "collection": Field("name"),
    "num": Field("count"),
    **{name: Field("name") for name in ("model", "pattern", "backdrop", "slug")},
    **{f"{name}_permille": Field("permille") for name in ("model", "pattern", "backdrop")},
    **{f"{name}_color": Field("color") for name in ("center", "edge", "pattern", "text")},
    "availability_total": Field("count", required=False, nullable=True),
}
_A_GIFT = {"gift": Field("object"), **{f"gift.{name}": field for name, field in GIFT.items()}}

REASONS: dict[str, list[Any]] = {
    "return reason": ["receiver_refused", "not_transferable", "refused", "expired"],
    "withdraw reason": ["address_rejected", "never_broadcast", "refused", "expired"],
    "connect reason": ["phone_invalid", "flood", "refused", "expired"],
    "approve reason": ["code_wrong", "code_expired", "password_wrong", "password_needed", "refused", "expired"],
    "add reason": ["not_a_channel", "not_visible", "account_unusable", "expired"],
    "sale reason": [
        *("gifts_modified", "not_creator", "account_unusable", "receiver_not_subscribed"),
        *("receiver_refused", "refused", "expired"),
    ],
}

_OFFER = {"nft_id": "big id", "offer_id": "uuid"}
_AUCTION = {"nft_id": "big id", "auction_id": "uuid"}
_PRESALE = {"gift_id": "big id", "presale_id": "uuid"}
_PROPOSAL = {"trade_id": "uuid", "proposal_id": "uuid"}
_ACCOUNT = {"user_id": "user id", "account_id": "uuid"}
_CHANNEL = {"channel_id": "big id"}

OF_USERS: dict[str, dict[str, Field]] = {
    "nft.set_price": _fields(nft_id="big id", price_nano="price~"),
    "nft.buy": _fields(nft_id="big id", price_nano="price"),
    "nft.transfer": _fields(nft_id="big id", to_user_id="user id"),
    "nft.return": _fields(nft_id="big id"),
    "market.withdraw": _fields(amount_nano="payment", address="address", comment="comment?"),
    "offers.create": _fields(nft_id="big id", price_nano="price"),
    "offers.withdraw": _fields(**_OFFER),
    "offers.refuse": _fields(**_OFFER),
    "offers.counter": _fields(**_OFFER, price_nano="price"),
    "offers.accept": _fields(**_OFFER, price_nano="price"),
    "auctions.create": _fields(nft_id="big id", start_nano="price", step_bp="step=", duration_seconds="duration="),
    "auctions.cancel": _fields(**_AUCTION),
    "auctions.place_bid": _fields(**_AUCTION, amount_nano="price"),
    "presale.set_price": _fields(**_PRESALE, price_nano="price~"),
    "presale.buy": _fields(**_PRESALE, price_nano="price"),
    "trades.create": _fields(nft_ids="items", requirements="requirements", receiver_id="user id?"),
    "trades.delete": _fields(trade_id="uuid"),
    "trades.propose": _fields(trade_id="uuid", nft_ids="items"),
    "trades.withdraw_proposal": _fields(**_PROPOSAL),
    "trades.decline": _fields(**_PROPOSAL),
    "trades.accept": _fields(**_PROPOSAL, fee_max_nano="whole?"),
    "accounts.connect": _fields(phone="phone"),
    "accounts.approve": _fields(account_id="uuid", code="code", password="password?", name="account name"),
    "accounts.sync": _fields(account_id="uuid"),
    "accounts.send_gift": _fields(account_id="uuid", gift_id="big id", receiver_id="user id"),
    "accounts.disconnect": _fields(account_id="uuid"),
    "channels.add": _fields(**_CHANNEL, account_id="uuid"),
    "channels.set_price": _fields(**_CHANNEL, price_nano="price~"),
    "channels.buy": _fields(**_CHANNEL, price_nano="price", receiver_id="user id?"),
}
FIELDS: dict[str, dict[str, Field]] = OF_USERS | {
    "users.register": _fields(user_id="user id", language="language="),
    "users.block": _fields(user_id="user id", reason="text"),
    "users.unblock": _fields(user_id="user id"),
    "market.deposit": _fields(
        wallet="name",
        logical_time="logical time",
        hash="hash",
        amount_nano="amount",
        memo="memo",
        from_address="name?",
    ),
    "market.assign_deposit": _fields(deposit_id="uuid", user_id="user id"),
    "market.adjust": _fields(user_id="user id", amount_nano="signed", reason="text"),
    "market.record_floor": _fields(
        market="market", collection="name", model="name?", price_nano="bid", observed_at="time"
    ),
    "market.withdraw_confirm": _fields(
        user_id="user id", withdrawal_id="uuid", tx_hash="name", logical_time="logical time", network_fee_nano="whole"
    ),
    "market.withdraw_fail": _fields(user_id="user id", withdrawal_id="uuid", reason="withdraw reason"),
    "nft.receive": _fields(nft_id="big id", sender_id="user id", message_ref="text") | _A_GIFT,
    "nft.return_confirm": _fields(nft_id="big id", return_id="uuid"),
    "nft.return_fail": _fields(nft_id="big id", return_id="uuid", reason="return reason"),
    "offers.expire": _fields(**_OFFER),
    "auctions.settle": _fields(**_AUCTION),
    "presale.register": _fields(gift_id="big id", seller_id="user id", transferable_at="time") | _A_GIFT,
    "presale.delete": _fields(**_PRESALE),
    "presale.deliver": _fields(**_PRESALE, nft_id="big id", sender_id="user id", message_ref="text") | _A_GIFT,
    "presale.expire": _fields(**_PRESALE),
    "accounts.connect_confirm": _fields(**_ACCOUNT),
    "accounts.connect_fail": _fields(**_ACCOUNT, reason="connect reason"),
    "accounts.approve_confirm": _fields(
        **_ACCOUNT, approve_id="uuid", telegram_id="user id", stars="whole", premium="yes or no"
    ),
    "accounts.approve_fail": _fields(**_ACCOUNT, approve_id="uuid", reason="approve reason"),
    "accounts.sync_confirm": _fields(
        **_ACCOUNT, sync_id="uuid", stars="whole", premium="yes or no", gifts="list", channels="list"
    ),
    "accounts.sync_fail": _fields(**_ACCOUNT, sync_id="uuid", reason="text"),
    "accounts.send_gift_confirm": _fields(**_ACCOUNT, gift_id="big id", send_id="uuid"),
    "accounts.send_gift_fail": _fields(**_ACCOUNT, gift_id="big id", send_id="uuid", reason="text"),
    "channels.add_confirm": _fields(
        **_CHANNEL,
        check_id="uuid",
        title="memo",
        username="memo?",
        is_creator="yes or no",
        gifts="list",
        gifts_hash="text",
    ),
    "channels.add_fail": _fields(**_CHANNEL, check_id="uuid", reason="add reason"),
    "channels.delete": _fields(**_CHANNEL),
    "channels.buy_confirm": _fields(**_CHANNEL, purchase_id="uuid"),
    "channels.buy_fail": _fields(**_CHANNEL, purchase_id="uuid", reason="sale reason"),
}

NOT_A_VALUE: list[Any] = [[], ["1"], {}, {"nano": 1}, True, False]
NOT_A_NUMBER: list[Any] = [*NOT_A_VALUE, "", "one", "1", " 1", "0x1", 1.0, 1.5, 1e3, -0.0, 1e300, -(10**30), 10**30]
NOT_A_BIG_ID: list[Any] = [
    *NOT_A_VALUE, "", "one", " 1", "1 ", "+1", "-1", "0", "01", "1.0", "1e3", "0x1", "1_0", "\u0661", "\u00b2", "1\0",
    str(2**63), "9" * 5_000, 1.0, 1.5, 1e3, 10**30, 0, -1, 2**63,
]  # fmt: skip
NOT_TEXT: list[Any] = [*NOT_A_VALUE, 1, 1.5]
UNPRINTABLE = ["a\0", "\x01", "a\nb", "tab\t", "\x1f", "\x7f", "\x1b[31mred"]
BAD: dict[str, list[Any]] = {
    "user id": [*NOT_A_NUMBER, 0, -1, SAFE + 1, 2**63, 2**64],
    "big id": NOT_A_BIG_ID,
    "price": [*NOT_A_NUMBER, 0, -1, TON // 100 - 1, 100_000 * TON + 1, SAFE + 1, 2**63],
    "amount": [*NOT_A_NUMBER, 0, -1, 10**18 + 1, 2**63],
    "logical time": [*NOT_A_NUMBER, 0, -1, 2**63],
    "count": [*NOT_A_NUMBER, 0, -1, 2**31],
    "permille": [*NOT_A_NUMBER, -1, 1_001],
    "color": [*NOT_A_NUMBER, -1, 2**24],
    "hash": [*NOT_TEXT, "", "ab" * 31, "ab" * 33, "ab" * 31 + "a\n", "xy" * 32, "ab" * 32 + "\n"],
    "name": [*NOT_TEXT, *UNPRINTABLE, "", "x" * 129],
    "text": [*NOT_TEXT, *UNPRINTABLE, "", "x" * 256],
    "memo": [*NOT_TEXT, "x" * 256],
    "language": [*NOT_TEXT, *UNPRINTABLE, "", "e", "x" * 9],
    "object": ["", "gift", 1, 1.5, [], [gift(17)], True],
    "uuid": [*NOT_TEXT, "", "x", UUID[:-1], UUID + "0", f"{{{UUID}"],
    "bid": [*NOT_A_NUMBER, 0, -1, SAFE + 1],
    "step": [*NOT_A_NUMBER, 99, 10_001, -1],
    "duration": [*NOT_A_NUMBER, 59, 604_801, -1],
    "time": [*NOT_A_VALUE, "", "soon", "2030-01-01T00:00:00", "1969-12-31T23:59:59Z", "3000-01-01T00:00:00Z"],
    "items": ["", 1, {}, True, [], ["17", "17"], [0], ["x"], [None], list(range(1, 52)), [17, [18]]],
    "requirements": ["", 1, {}, True, [], [{}], [{"collection": ""}], [{"collection": "x", "model": "y"}], [1]],
    "whole": [*NOT_A_NUMBER, -1, SAFE + 1],
    "signed": [*NOT_A_NUMBER, 0, SAFE + 1, -SAFE - 1],
    "phone": [
        *NOT_TEXT,
        "",
        "+1234567",
        "+1234567890123456",
        "123456789",
        "+12 345 678 90",
        "+1234567890\n",
        "+1234567a",
    ],
    "code": [*NOT_TEXT, "", "123", "12345678901", "12 34", "12a4", "1234\n"],
    "password": [*NOT_TEXT, "", "x" * 256],
    "account name": [*NOT_TEXT, *UNPRINTABLE, "", "x" * 65],
    "payment": [*NOT_A_NUMBER, 0, -1, TON // 10 - 1, 10_000 * TON + 1],
    "address": [*NOT_TEXT, "", ADDRESS[:-1], ADDRESS + "A", ADDRESS[:-1] + "x", "!" * 48, "k" + ADDRESS[1:]],
    "comment": [*NOT_TEXT, *UNPRINTABLE, "x" * 121, "\u0436" * 61],
    "market": [*NOT_TEXT, "", "nowhere", "Souk"],
    "yes or no": [0, 1, "true", "", [], {}],
    "list": ["", 1, {}, True, [1], [{}]],
    **{reasons: [*NOT_TEXT, "", "because"] for reasons in REASONS},
}
GOOD: dict[str, list[Any]] = {
    "user id": [1, SAFE],
    "big id": [1, "1", SAFE + 2, str(BIGGEST), BIGGEST],
    "price": [TON, TON // 100, 100_000 * TON],
    "amount": [1, 10**18],
    "logical time": [1, BIGGEST],
    "count": [1, 2**31 - 1],
    "permille": [0, 1_000],
    "color": [0, 2**24 - 1],
    "hash": ["0" * 64, "aB" * 32],
    "name": ["x", "x" * 128, "\u0414\u0443\u0440\u043e\u0432 🎁", "' OR 1=1 --", "%s {0} $1 \\"],
    "text": ["x", "x" * 255],
    "memo": ["", "x" * 255, "a\0b", "\r\n", "🎁", "\x1f"],
    "language": ["en", "x" * 8],
    "object": [gift(17, availability_total=500)],
    "uuid": [UUID],
    "bid": [TON],
    "step": [1_000, 100, 10_000],
    "duration": [3_600, 60, 604_800],
    "time": ["2030-01-01T00:00:00Z", "2030-01-01T03:00:00.5+03:00"],
    "items": [["17"], [17, "18"], list(range(1, 51))],
    "requirements": [[{"collection": "x"}], [{"collection": "x", "backdrop": None}], [{"collection": "x"}] * 20],
    "whole": [0, SAFE],
    "signed": [1, -1, SAFE, -SAFE],
    "phone": ["+12345678", "+123456789012345"],
    "code": ["1234", "1234567890"],
    "password": ["x", "x" * 255, "a\0b"],
    "account name": ["x", "x" * 64],
    "payment": [TON, TON // 10, 10_000 * TON],
    "address": [ADDRESS],
    "comment": ["", "x" * 120, "\u0436" * 60],
    "market": ["souk"],
    "yes or no": [True, False],
    "list": [[]],
    **REASONS,
}


def valid(kind: str) -> dict[str, Any]:
    """A payload that nothing speaks against."""
    return {
        name: "17" if name in ("nft_id", "gift_id") else GOOD[field.type][0]
        for name, field in FIELDS[kind].items()
        if "." not in name
    }


VALID = {kind: valid(kind) for kind in FIELDS}
