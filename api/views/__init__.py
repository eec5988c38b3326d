"""The reads, declared in one table: each list is a Page, each single thing a select.

A read changes nothing and calls nothing outside. What is not the caller's is not there.
"""

from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.auth import Keyring, reader
from api.entity_tags import unless_known
from api.openapi.components import IF_NONE_MATCH
from api.openapi.operation import Answer, Parameter, described
from api.problems import Problem
from api.replica import Reader
from api.views import exchange, market, mine, ops, outside, swaps
from api.views.reads import Asked, Audience, Listed, View, one, page
from commands.command import BIGINT_MAX
from storage.keys import Credential, Role
from storage.settings import Settings

ACTOR = Parameter(
    "actor",
    {"type": "integer", "format": "int64", "minimum": 1, "maximum": BIGINT_MAX},
    "Whose things are read: to be named by services and operators, nobody else's for a user.",
)
_CACHED = {"Cache-Control": "private, no-cache", "Vary": "Authorization"}
_ALL, _MINE, _OPERATORS = Audience.ALL, Audience.MINE, Audience.OPERATORS

READS: tuple[tuple[str, Audience, View], ...] = (
    ("/listings", _ALL, page("Items on sale", market.LISTINGS)),
    ("/nfts/{nft_id}", _ALL, one("An item in custody", market.nft)),
    ("/gifts/{gift_id}", _ALL, one("A gift, in custody or not", market.gift)),
    ("/gifts/{gift_id}/deals", _ALL, page("Deals of a gift", market.deals_of_gift)),
    ("/collections", _ALL, market.collections),
    ("/models", _ALL, page("Models, and how many gifts have each", market.MODELS)),
    ("/patterns", _ALL, page("Patterns, and how many gifts have each", market.PATTERNS)),
    ("/backdrops", _ALL, page("Backdrops, and how many gifts have each", market.BACKDROPS)),
    ("/floor", _ALL, market.floor),
    ("/charts", _ALL, market.charts),
    ("/integrations", _ALL, market.integrations),
    ("/settings", _ALL, market.settings),
    ("/users/me", _MINE, one("The user and the account", mine.user)),
    ("/users/me/topup", _MINE, mine.topup),
    ("/users/me/nfts", _MINE, page("Own items", mine.items)),
    ("/users/me/ledger", _MINE, page("Every change of the own account", mine.ledger)),
    ("/users/me/holds", _MINE, page("Money set aside, and for what", mine.my_holds)),
    ("/users/me/deposits", _MINE, page("Own deposits", mine.my_deposits)),
    ("/users/me/withdrawals", _MINE, page("Own withdrawals", mine.my_withdrawals)),
    ("/users/me/transactions", _MINE, page("Own deposits and withdrawals", mine.my_transactions)),
    ("/users/me/deals", _MINE, page("Own deals", mine.my_deals(*mine.DEAL_SOURCES))),
    ("/users/me/returns", _MINE, page("Own items on their way back to Telegram", mine.my_returns)),
    ("/accounts", _MINE, page("Own Telegram accounts", outside.my_accounts)),
    ("/accounts/gifts", _MINE, page("Gifts that were last seen in own Telegram accounts", outside.gifts_of_accounts)),
    ("/accounts/{id}", _MINE, one("One own Telegram account", outside.account)),
    (
        "/accounts/{id}/channels",
        _MINE,
        page("Channels that were last seen in an own Telegram account", outside.channels_of_account),
    ),
    ("/offers", _MINE, page("Offers made and received", exchange.my_offers)),
    ("/offers/{id}", _MINE, one("An offer made or received", exchange.offer)),
    ("/presales", _ALL, page("Presales to buy", exchange.PRESALES)),
    ("/presales/mine", _MINE, page("Own presales, sold and bought", exchange.my_presales)),
    ("/presales/{id}", _ALL, one("A presale", exchange.presale)),
    ("/auctions", _ALL, page("Auctions under way", exchange.AUCTIONS)),
    ("/auctions/mine", _MINE, page("Auctions held and bid in", exchange.my_auctions)),
    ("/auctions/deals", _MINE, page("Own deals of auctions", mine.my_deals("auction"))),
    ("/auctions/{id}", _ALL, one("An auction", exchange.auction)),
    ("/auctions/{id}/bids", _ALL, page("Bids of an auction, nobody named", exchange.auction_bids)),
    ("/trades", _ALL, page("Open trades", swaps.public_trades)),
    ("/trades/mine", _MINE, page("Own trades", swaps.my_trades)),
    ("/trades/personal", _MINE, page("Open trades that are addressed to oneself", swaps.personal_trades)),
    ("/trades/deals", _MINE, page("Own swaps", mine.my_swaps)),
    ("/trades/{id}", _ALL, one("A trade", swaps.trade, swaps.OF_PROPOSAL)),
    ("/proposals", _MINE, page("Proposals made and received", swaps.my_proposals)),
    ("/channels", _ALL, page("Channels to buy", outside.CHANNELS)),
    ("/channels/mine", _MINE, page("Own channels", outside.my_channels)),
    ("/channels/purchases", _MINE, page("Channels bought and sold", outside.my_purchases)),
    ("/channels/deals", _MINE, page("Own deals of channels", mine.my_deals("channel"))),
    ("/channels/{id}", _ALL, one("A channel", outside.channel)),
    ("/ops/deposits", _OPERATORS, page("Deposits that nobody was credited with", ops.DEPOSITS)),
    ("/ops/requests", _OPERATORS, page("Requests to the outside world", ops.REQUESTS)),
    ("/ops/ledger", _OPERATORS, ops.ledger),
)
"""Path under /v1, who may ask, and the view; of two that match, the first."""


class Views:
    """The routes of the reads."""

    def __init__(self, settings: Settings, reader: Reader, keyring: Keyring) -> None:
        self._settings = settings
        self._reader = reader
        self._keyring = keyring
        self._listed = Listed()
        self.routes = [Route(f"/v1{path}", self._route(audience, view)) for path, audience, view in READS]

    def _route(self, audience: Audience, view: View) -> Any:
        told = view.describe(self._settings)

        @described(
            "market" if audience is Audience.ALL else audience.value,
            summary=view.summary,
            parameters=(*told.parameters, ACTOR, IF_NONE_MATCH),
            answers={200: Answer("As it is now.", told.shown, ("ETag",)), 304: Answer("As known.", headers=("ETag",))},
            problems=("forbidden", "not_found", "invalid"),
        )
        async def answer(request: Request) -> Response:
            credential = await self._keyring.authenticate(request)
            user_id = _whose(audience, credential, request.query_params.get("actor"))
            asked = Asked(user_id, request.path_params, request.query_params, self._settings, self._listed)
            content = to_json(await self._reader.read(lambda connection: view(connection, asked)))
            return unless_known(request, content, "application/json", _CACHED)

        return answer


def _whose(audience: Audience, credential: Credential, actor: str | None) -> int | None:
    """Whose private things the answer may show. Raises Problem 403, and Invalid when a user has to be named."""
    if audience is Audience.OPERATORS and credential.role is not Role.OPERATOR:
        raise Problem(403, "forbidden", "Only operators may read this.")
    if audience is not Audience.MINE and (credential.role is Role.FEED or (actor is None and not credential.user_id)):
        return None
    return reader(credential, actor)
