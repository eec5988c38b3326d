"""What is one's own: the account, its ledger and holds, what came in and went out, items and deals."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    SmallInteger,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from api.openapi.columns import INT64, TextOrNull, object_of, or_null
from api.openapi.operation import Parameter
from api.pages import (
    TIME,
    UUID_TEXT,
    Condition,
    Filter,
    Page,
    document_id,
    either,
    holds,
    integer,
    moment,
    one_of,
    require_known,
)
from api.problems import not_found
from api.views.reads import Asked, shown
from api.views.shapes import (
    DEAL_ITEM,
    DEAL_ITEMS,
    ITEM,
    ITEMS_AND_GIFTS,
    as_list,
    as_object,
    columns,
    gift_filters,
    text_id,
)
from commands.command import BIGINT_MAX
from commands.nft.items import NftState
from commands.users import memo_of
from storage.tables import (
    HOLDS,
    accounts,
    archived_commands,
    commands,
    deal_items,
    deals,
    deposits,
    gateway_requests,
    nfts,
    postings,
    returns,
    users,
    withdrawals,
)

DEAL_SOURCES = ("sale", "offer", "auction", "presale", "trade", "channel", "bundle", "order")


def user(asked: Asked) -> Select[Any]:
    return (
        select(
            users.c.id.label("user_id"),
            users.c.language,
            accounts.c.available_nano,
            accounts.c.held_nano,
            users.c.blocked,
            users.c.memo,
            users.c.opened_at.label("registered_at"),
        )
        .join_from(users, accounts, accounts.c.id == users.c.id)
        .where(users.c.id == asked.me)
    )


@shown(
    "Where to send a deposit, and with which memo",
    object_of({"wallet": {"type": "string"}, "memo": {"type": "string"}, "amount_nano": or_null(INT64)}),
    Parameter(
        "amount_nano", INT64 | {"minimum": "deposit_min_nano", "maximum": "deposit_max_nano"}, "What is to be sent."
    ),
)
async def topup(connection: AsyncConnection, asked: Asked) -> Any:
    require_known(asked.query, {"amount_nano", "actor"})
    amount = asked.query.get("amount_nano")
    least, most = asked.settings.deposit_min_nano, asked.settings.deposit_max_nano
    amount_nano = None if amount is None else integer("amount_nano", amount, least, most)
    if await connection.scalar(select(users.c.id).where(users.c.id == asked.me)) is None:
        raise not_found()
    return {"wallet": asked.settings.wallet, "memo": memo_of(asked.me), "amount_nano": amount_nano}


def items(asked: Asked) -> Page:
    return Page(
        rows=select().select_from(nfts).where(nfts.c.owner_id == asked.me),
        show=ITEMS_AND_GIFTS.add_columns(*columns(ITEM), nfts.c.reserved_by, nfts.c.reserved_kind),
        ids=(nfts.c.id,),
        sorts={
            "received_at": nfts.c.opened_at,
            # What has no price comes after what has one.
            "price": func.coalesce(nfts.c.price_nano, cast(literal(BIGINT_MAX), BigInteger)),
            "num": nfts.c.num,
            "model_permille": nfts.c.model_permille,
        },
        default="-received_at",
        filters=gift_filters(nfts)
        | {
            "on_sale": holds(nfts.c.state == NftState.LISTED.value),
            "state": one_of(nfts.c.state, list(NftState)),
        },
    )


# -- money


def _leg(number: int, side: str, sign: int) -> Select[Any]:
    """One side of postings."""
    return select(
        postings.c.id,
        literal(number, SmallInteger).label("leg"),
        postings.c[f"{side}_account"].label("account"),
        postings.c.at,
        postings.c[f"{side}_side"].label("side"),
        (postings.c.amount_nano * sign).label("change_nano"),
        postings.c[f"{side}_balance_nano"].label("balance_nano"),
        postings.c.command_id,
        postings.c.document_kind,
        postings.c.document_id,
    )


_LEGS = union_all(_leg(0, "debit", -1), _leg(1, "credit", 1)).subquery("legs")


def _until(column: ColumnElement[Any]) -> Filter:
    return Filter(lambda name, values: column < moment(name, values[-1]), TIME, many=False)


def _since(column: ColumnElement[Any]) -> Filter:
    return Filter(lambda name, values: column >= moment(name, values[-1]), TIME, many=False)


def _of_document(name: str, values: list[str]) -> Condition:
    """Most postings are those of deals, and these have no index of their documents, but were made with their deal."""
    id_ = document_id(name, values[-1])
    same, is_deal = _LEGS.c.document_id == str(id_), _LEGS.c.document_kind == "deal"
    made_at = select(deals.c.made_at).where(deals.c.id == id_).scalar_subquery()
    return or_(and_(same, _LEGS.c.document_kind != "deal"), and_(same, is_deal, _LEGS.c.at == made_at))


_ARCHIVED_KIND = select(archived_commands.c.kind).where(archived_commands.c.id == _LEGS.c.command_id).scalar_subquery()


def ledger(asked: Asked) -> Page:
    legs = _LEGS.c
    shown = {
        **{name: legs[name] for name in ("id", "at", "side", "change_nano")},
        "balance_after_nano": legs.balance_nano,
        "kind": type_coerce(func.coalesce(commands.c.kind, _ARCHIVED_KIND), TextOrNull()),
        **{name: legs[name] for name in ("command_id", "document_kind", "document_id")},
    }
    return Page(
        rows=select().select_from(_LEGS).where(legs.account == asked.me),
        show=select(*columns(shown))
        .join_from(_LEGS, commands, commands.c.id == legs.command_id, isouter=True)
        # Said again: the rows are read anew, and postings are found by their account too.
        .where(legs.account == asked.me),
        ids=(legs.id, legs.leg),
        sorts={"id": legs.id},
        default="-id",
        parts=(legs.leg == 0, legs.leg == 1),
        filters={
            "document_id": Filter(_of_document, UUID_TEXT, many=False),
            "from": _since(legs.at),
            "to": _until(legs.at),
        },
    )


def my_holds(asked: Asked) -> Page:
    return Page(
        rows=select(*(HOLDS.c[name] for name in ("document_kind", "document_id", "amount_nano"))).where(
            HOLDS.c.user_id == asked.me
        ),
        show=None,
        ids=(HOLDS.c.document_id,),
        sorts={"document_id": HOLDS.c.document_id},
        default="document_id",
    )


_DEPOSIT_STATES = ("credited", "assigned")
_WITHDRAWAL_STATES = ("requested", "confirmed", "failed")


def my_deposits(asked: Asked) -> Page:
    shown = {"deposit_id": deposits.c.id} | {
        name: deposits.c[name] for name in ("amount_nano", "hash", "state", "opened_at")
    }
    return Page(
        rows=select(*columns(shown)).where(deposits.c.user_id == asked.me),
        show=None,
        ids=(deposits.c.id,),
        sorts={"opened_at": deposits.c.opened_at},
        default="-opened_at",
        filters={"state": one_of(deposits.c.state, _DEPOSIT_STATES)},
    )


def request_state(reference: ColumnElement[Any]) -> ColumnElement[Any]:
    """How far the gateway has come with the request that a document waits for."""
    return select(gateway_requests.c.state).where(gateway_requests.c.reference == reference).scalar_subquery()


def my_withdrawals(asked: Asked) -> Page:
    table = withdrawals.c
    shown = {
        "withdrawal_id": table.id,
        "amount_nano": table.amount_nano,
        "fee_nano": table.fee_nano,
        "net_nano": table.amount_nano - table.fee_nano,
        "address": table.address,
        "state": table.state,
        "request_state": request_state(table.id),
        **{name: table[name] for name in ("tx_hash", "reason", "opened_at")},
    }
    return Page(
        rows=select().select_from(withdrawals).where(table.user_id == asked.me),
        show=select(*columns(shown)),
        ids=(table.id,),
        sorts={"opened_at": table.opened_at},
        default="-opened_at",
        filters={"state": one_of(table.state, _WITHDRAWAL_STATES)},
    )


def my_transactions(asked: Asked) -> Page:
    """Deposits and withdrawals."""
    both = union_all(
        *(
            select(
                literal(kind).label("type"),
                table.c.id,
                table.c.amount_nano,
                table.c.state,
                table.c.opened_at.label("at"),
                table.c.user_id,
            )
            for kind, table in (("deposit", deposits), ("withdrawal", withdrawals))
        )
    ).subquery("transactions")
    return Page(
        rows=select(both.c.type, both.c.amount_nano, both.c.state, both.c.at).where(both.c.user_id == asked.me),
        show=None,
        ids=(both.c.id,),
        sorts={"opened_at": both.c.at},
        default="-opened_at",
        parts=(both.c.type == "deposit", both.c.type == "withdrawal"),
        filters={"state": one_of(both.c.state, (*_DEPOSIT_STATES, *_WITHDRAWAL_STATES))},
    )


def my_returns(asked: Asked) -> Page:
    shown = {"return_id": returns.c.id, "nft_id": text_id(returns.c.nft_id)} | {
        name: returns.c[name] for name in ("state", "fee_nano", "reason", "opened_at")
    }
    return Page(
        rows=select(*columns(shown)).where(returns.c.user_id == asked.me),
        show=None,
        ids=(returns.c.id,),
        sorts={"opened_at": returns.c.opened_at},
        default="-opened_at",
        filters={"state": one_of(returns.c.state, _WITHDRAWAL_STATES)},
    )


# -- deals


def _sides(user_id: int) -> Mapping[str, ColumnElement[bool]]:
    return {"sell": deals.c.seller_id == user_id, "buy": deals.c.buyer_id == user_id}


def _deals(user_id: int, sources: tuple[str, ...], **more: ColumnElement[Any]) -> Page:
    sides = _sides(user_id)
    shown = {
        "deal_id": deals.c.id,
        "source": deals.c.source,
        "side": case((sides["sell"], "sell"), else_="buy"),
        "price_nano": deals.c.price_nano,
        "fee_nano": deals.c.fee_nano,
        "made_at": deals.c.made_at,
    }
    by_source = either({source: deals.c.source == source for source in sources})
    return Page(
        rows=select().select_from(deals),
        show=select(*columns(shown | more)),
        ids=(deals.c.id,),
        sorts={"made_at": deals.c.made_at},
        default="-made_at",
        spreads={"side": either(sides), "source": by_source},
    )


def _deal_items(*conditions: ColumnElement[bool]) -> ColumnElement[Any]:
    found = DEAL_ITEMS.where(deal_items.c.deal_id == deals.c.id, *conditions)
    return as_list(found, as_object(DEAL_ITEM, "DealItem"), deal_items.c.direction, deal_items.c.gift_id)


def my_deals(*sources: str) -> Any:
    """One's own deals of these sources."""
    return lambda asked: _deals(asked.me, sources, items=_deal_items())


def my_swaps(asked: Asked) -> Page:
    """Deals of trades: the owner sells what went to the buyer."""
    selling = _sides(asked.me)["sell"]
    sent = case((selling, "to_buyer"), else_="to_seller")
    received = case((selling, "to_seller"), else_="to_buyer")
    return _deals(
        asked.me,
        ("trade",),
        sent=_deal_items(deal_items.c.direction == sent),
        received=_deal_items(deal_items.c.direction == received),
    )
