"""What operators look at: deposits that nobody was credited with, requests to the outside, the platform's money."""

from typing import Any

from sqlalchemy import BigInteger, cast, extract, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from api.openapi.columns import INT64, object_of
from api.pages import Page, either, require_known
from api.views.reads import Asked, page_schema, shown
from api.views.shapes import columns
from storage.tables import accounts, deposits, gateway_requests

_DEPOSIT_STATES = ("unclaimed", "credited", "assigned")
_OPEN_STATES = ("pending", "sent", "unknown", "never_seen")
_ENDED_STATES = ("done", "refused", "cancelled")

DEPOSITS = Page(
    rows=select(
        deposits.c.id.label("deposit_id"),
        *(deposits.c[name] for name in ("wallet", "logical_time", "hash", "amount_nano", "memo", "from_address")),
        *(deposits.c[name] for name in ("user_id", "state", "reason", "opened_at")),
    ),
    show=None,
    ids=(deposits.c.id,),
    sorts={"opened_at": deposits.c.opened_at},
    default="-opened_at",
    spreads={"state": either({state: deposits.c.state == state for state in _DEPOSIT_STATES})},
    defaults={"state": ["unclaimed"]},
)

_age = cast(extract("epoch", func.now() - gateway_requests.c.opened_at), BigInteger)
_REQUEST = {name: gateway_requests.c[name] for name in ("reference", "op", "state", "attempts", "lookups")} | {
    "opened_at": gateway_requests.c.opened_at,
    "due_at": gateway_requests.c.due_at,
    "age_seconds": _age,
}
# Their bodies may hold secrets, and are not shown.
REQUESTS = Page(
    rows=select(*columns(_REQUEST)),
    show=None,
    ids=(gateway_requests.c.reference,),
    sorts={"opened_at": gateway_requests.c.opened_at},
    default="opened_at",
    spreads={"state": either({state: gateway_requests.c.state == state for state in _OPEN_STATES + _ENDED_STATES})},
    defaults={"state": list(_OPEN_STATES)},
)

_NAMES = {-1: "fees", -2: "deposits", -3: "withdrawals", -4: "expense", -5: "unclaimed"}


_ACCOUNT = object_of({"id": INT64, "name": {"type": "string", "enum": list(_NAMES.values())}, "available_nano": INT64})


@shown("The platform's accounts, and what its wallet should contain", page_schema(_ACCOUNT, wallet_nano=INT64))
async def ledger(connection: AsyncConnection, asked: Asked) -> Any:
    require_known(asked.query, {"actor"})
    found = await connection.execute(select(accounts.c.id, accounts.c.available_nano).where(accounts.c.id.in_(_NAMES)))
    balances = {row.id: row.available_nano for row in found}
    shown = [{"id": id_, "name": name, "available_nano": balances[id_]} for id_, name in _NAMES.items()]
    return {"items": shown, "next": None, "wallet_nano": -(balances[-2] + balances[-3])}
