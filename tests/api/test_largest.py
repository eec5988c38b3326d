"""Every number of the settings at its largest, all at once: commands, reads, the audit and the upkeep still work."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.fernet import Fernet
from pydantic import SecretStr

from api.views import READS
from api.views.reads import Audience
from commands.users import memo_of
from storage.audit import audit
from storage.journal.promote import PROMOTE
from storage.journal.retire import expire_keys, forget_calls, retire_commands
from storage.postgres.connection import connect
from tests.api.api import Api, running
from tests.api.bazaar import ADDRESS
from tests.installation import Installer, connected
from tests.largest import LARGEST
from tests.market import buy, deposit, gift, receive, register, set_price
from workers.services.turns import Turns

SELLER, BUYER = 1, 2
PRICE, AMOUNT, LIFE = LARGEST["price_max_nano"], LARGEST["deposit_max_nano"], LARGEST["offer_life_seconds"]
FLOOR_NANO = 2**53 - 1
COLLECTION = gift(1)["collection"]
_keys = itertools.count(1)


def send(kind: str, actor: int | None, **payload: Any) -> dict[str, Any]:
    return {"kind": kind, "actor": actor, "payload": payload, "idempotency_key": str(next(_keys))}


async def succeed(api: Api, *commands: dict[str, Any]) -> list[dict[str, Any]]:
    receipts = await api.settle(commands)
    assert {receipt["status"] for receipt in receipts} == {"succeeded"}, receipts
    return receipts


async def trade_at_the_bounds(api: Api) -> dict[str, str]:
    """One of everything that a setting bounds; answers the ids that reads ask for."""
    moment = datetime.now(UTC)
    movable = datetime(2999, 12, 31, tzinfo=UTC).isoformat()
    await succeed(
        api,
        register(SELLER),
        register(BUYER),
        *(deposit(memo_of(user), AMOUNT, 10 * user + number) for user in (SELLER, BUYER) for number in range(3)),
        *(receive(nft_id, SELLER) for nft_id in range(1, 8)),
        receive(8, BUYER),
        send("market.record_floor", None, market="souk", collection=COLLECTION, price_nano=FLOOR_NANO,
             observed_at=(moment - timedelta(seconds=1)).isoformat()),
        set_price(SELLER, 1, PRICE),
        buy(BUYER, 1, PRICE),
        set_price(SELLER, 2, PRICE),
        send("offers.create", BUYER, nft_id=2, price_nano=PRICE),
        send("market.withdraw", SELLER, amount_nano=AMOUNT, address=ADDRESS),
        send("nft.return", SELLER, nft_id=7),
    )  # fmt: skip
    terms = {"start_nano": PRICE, "step_bp": 10_000, "duration_seconds": LIFE}
    auction, presale, trade = await succeed(
        api,
        send("auctions.create", SELLER, nft_id=3, **terms),
        send("presale.register", None, gift_id=99, gift=gift(99), seller_id=SELLER, transferable_at=movable),
        send(
            "trades.create", SELLER, nft_ids=["4"],
            requirements=[{"collection": COLLECTION, "backdrop": None}],
        ),
    )  # fmt: skip
    presold = {"gift_id": 99, "presale_id": presale["id"], "price_nano": PRICE}
    _, _, _, proposal = await succeed(
        api,
        send("auctions.place_bid", BUYER, nft_id=3, auction_id=auction["id"], amount_nano=PRICE),
        send("presale.set_price", SELLER, **presold),
        send("presale.buy", BUYER, **presold),
        send("trades.propose", BUYER, trade_id=trade["id"], nft_ids=["8"]),
    )
    return {"auctions": auction["id"], "presales": presale["id"], "trades": trade["id"], "proposals": proposal["id"]}


async def test_everything_works_at_the_largest_values(installer: Installer) -> None:
    settings = await installer.install(**LARGEST, secret_key=SecretStr(Fernet.generate_key().decode()))
    async with running(settings) as api:
        ids = await trade_at_the_bounds(api)
        shown = (await api.operator.get(f"/v1/auctions/{ids['auctions']}")).json()
        assert shown["minimum_next_nano"] == 2 * PRICE < 2**53
        query: dict[str, Any] = {"proposal_id": ids["proposals"], "actor": SELLER}
        shown = (await api.operator.get(f"/v1/trades/{ids['trades']}", params=query)).json()
        assert shown["fee_estimate_nano"] == FLOOR_NANO * 9_999 // 10_000
        for path, audience, _ in READS:
            names = {"nft_id": 3, "gift_id": 3, "id": ids.get(path.split("/")[1], "1")}
            query = {"actor": SELLER} if audience is Audience.MINE else {}
            query |= {"/floor": {"collection": COLLECTION}, "/charts": {"collection": COLLECTION, "days": 7}}.get(
                path, {}
            )
            answer = await api.operator.get(f"/v1{path.format_map(names)}", params=query)
            assert answer.status_code in (200, 404), (path, answer.text)
        assert [finding for finding in await audit(api.engine, settings) if finding.broken] == []

        lane = await connect(settings, "test", timeout_seconds=10, pinned_plans=True)
        turns = Turns(settings)
        due = await turns.look([], [])
        assert [claim.op for pair in due if (claim := await turns.claim(pair))] == ["ton.pay", "gift.transfer"]
        await turns.close()
        assert await lane.fetch(PROMOTE, 10) == []
        kept = await api.count("idempotency_key IS NOT NULL")
        for upkeep in (expire_keys, retire_commands, forget_calls):
            assert (await upkeep(lane, settings)).changed == 0
        assert await api.count("idempotency_key IS NOT NULL") == kept > 0
        await lane.close()
        async with connected(settings) as connection:
            last = await connection.fetchval("SELECT max(run_at) FROM commands")
        assert last > datetime(2999, 12, 31, tzinfo=UTC)
