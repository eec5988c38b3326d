"""A small marketplace that has one or two of everything there is to read, made by commands."""

from base64 import urlsafe_b64encode
from binascii import crc_hqx
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from storage.keys import Role
from tests.api.api import Api
from tests.market import TON, fund, gift, receive, register

ALICE, BOB, CAROL, DAVE = 1, 2, 3, 4
"""Dave has nothing to do with anything."""
CHANNEL, UNLISTED_CHANNEL = 2**53 + 1, 9
_ACCOUNT = bytes([0x51, 0]) + bytes(range(32))
ADDRESS = urlsafe_b64encode(_ACCOUNT + crc_hqx(_ACCOUNT, 0).to_bytes(2)).decode()
WANTED = [{"collection": "Swiss Watch", "backdrop": None}]


class Bazaar:
    """`ids` are the documents' by name."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.ids: dict[str, str] = {}

    async def do(self, kind: str, actor: int | None = None, /, **payload: Any) -> dict[str, Any]:
        """The result of a command that succeeds."""
        command = {"kind": kind, "actor": actor, "payload": payload, "idempotency_key": uuid4().hex}
        [receipt] = await self.api.settle([command])
        assert receipt["status"] == "succeeded", receipt
        result: dict[str, Any] = receipt["result"]
        return result

    async def get(self, path: str, user_id: int | None = None, **query: Any) -> Any:
        """What a user is answered, or an operator who names nobody, with 200."""
        actor = {} if user_id is None else {"actor": user_id}
        response = await self.api.operator.get(f"/v1{path}", params=query | actor)
        assert response.status_code == 200, response.text
        return response.json()

    async def items(self, path: str, user_id: int | None = None, **query: Any) -> list[dict[str, Any]]:
        """All items of a short list."""
        page = await self.get(path, user_id, **query)
        assert page.keys() == {"items", "next"}
        assert page["next"] is None
        items: list[dict[str, Any]] = page["items"]
        return items

    async def status(self, path: str, user_id: int, **query: Any) -> int:
        client = await self.api.as_role(Role.USER, user_id)
        return (await client.get(f"/v1{path}", params=query)).status_code

    async def open(self) -> None:
        people = (ALICE, BOB, CAROL, DAVE)
        await self.api.settle(register(user_id) for user_id in people)
        await self.api.settle(fund(user_id) for user_id in (ALICE, BOB, CAROL))
        traits = ({"collection": "Plush Pepe"}, {"collection": "Swiss Watch", "model": "Gold", "backdrop": "Black"})
        await self.api.settle(receive(number, ALICE, num=number, **traits[0]) for number in range(1, 9))
        await self.api.settle(receive(number, BOB, num=number, **traits[1]) for number in range(11, 17))
        await self.api.settle([receive(21, CAROL)])
        await self._market()
        await self._auctions()
        await self._presales()
        await self._swaps()
        await self._outside()
        await self._money()

    async def _market(self) -> None:
        do = self.do
        for nft_id, price in ((1, 2 * TON), (2, 3 * TON)):
            await do("nft.set_price", ALICE, nft_id=nft_id, price_nano=price)
        await do("nft.set_price", BOB, nft_id=11, price_nano=5 * TON)
        offered = await do("offers.create", BOB, nft_id=1, price_nano=TON)
        self.ids["offer"] = offered["offer_id"]
        await do("offers.counter", ALICE, nft_id=1, offer_id=offered["offer_id"], price_nano=2 * TON - 1)
        refused = await do("offers.create", CAROL, nft_id=1, price_nano=TON)
        self.ids["refused"] = refused["offer_id"]
        await do("offers.refuse", ALICE, nft_id=1, offer_id=refused["offer_id"])
        self.ids["sale"] = (await do("nft.buy", CAROL, nft_id=11, price_nano=5 * TON))["deal_id"]

    async def _auctions(self) -> None:
        do = self.do
        self.ids["auction"] = (await do("auctions.create", ALICE, nft_id=3, start_nano=5 * TON))["auction_id"]
        self.ids["fresh"] = (await do("auctions.create", BOB, nft_id=12, start_nano=7 * TON))["auction_id"]
        for bidder, amount in ((BOB, 5 * TON), (CAROL, 6 * TON)):
            bid = await do("auctions.place_bid", bidder, nft_id=3, auction_id=self.ids["auction"], amount_nano=amount)
            self.ids[f"bid of {bidder}"] = bid["bid_id"]
        ended = await do("auctions.create", BOB, nft_id=13, start_nano=TON)
        self.ids["cancelled"] = ended["auction_id"]
        await do("auctions.cancel", BOB, nft_id=13, auction_id=ended["auction_id"])

    async def _presales(self) -> None:
        later = (datetime.now(UTC) + timedelta(days=9)).isoformat()
        for gift_id, price, name in ((101, 10 * TON, "presale"), (102, 20 * TON, "sold presale"), (103, None, "plain")):
            facts = {"gift_id": gift_id, "gift": gift(gift_id), "seller_id": ALICE, "transferable_at": later}
            presale_id = (await self.do("presale.register", **facts))["presale_id"]
            self.ids[name] = presale_id
            if price is not None:
                named = {"gift_id": gift_id, "presale_id": presale_id, "price_nano": price}
                await self.do("presale.set_price", ALICE, **named)
        sold = {"gift_id": 102, "presale_id": self.ids["sold presale"], "price_nano": 20 * TON}
        await self.do("presale.buy", BOB, **sold)

    async def _swaps(self) -> None:
        do = self.do
        for collection, model, price in (("Swiss Watch", None, 3 * TON), ("Swiss Watch", "Gold", 4 * TON)):
            floor = {"market": "souk", "collection": collection, "model": model, "price_nano": price}
            await do("market.record_floor", **floor, observed_at=datetime.now(UTC).isoformat())
        self.ids["trade"] = (await do("trades.create", ALICE, nft_ids=["4", "5"], requirements=WANTED))["trade_id"]
        private = {"nft_ids": ["6"], "requirements": WANTED, "receiver_id": BOB}
        self.ids["private"] = (await do("trades.create", ALICE, **private))["trade_id"]
        proposed = await do("trades.propose", BOB, trade_id=self.ids["trade"], nft_ids=["13", "14"])
        self.ids["proposal"] = proposed["proposal_id"]
        done = (await do("trades.create", ALICE, nft_ids=["7"], requirements=WANTED))["trade_id"]
        taken = (await do("trades.propose", BOB, trade_id=done, nft_ids=["15"]))["proposal_id"]
        self.ids["swap"] = (await do("trades.accept", ALICE, trade_id=done, proposal_id=taken))["deal_id"]
        self.ids["done"], self.ids["taken"] = done, taken

    async def _outside(self) -> None:
        """The account is inserted as it is after a sign-in: secrets would need a key."""
        self.ids["account"] = account_id = str(uuid4())
        async with self.api.engine.begin() as connection:
            await connection.execute(
                text(
                    "INSERT INTO telegram_accounts (id, user_id, phone, name, telegram_id, stars, premium, state,"
                    " connected_at, opened_at) VALUES (:id, :user_id, '+49151123456', 'main', 77, 5, true, 'connected',"
                    " now() - interval '2 days', now() - interval '2 days')"
                ),
                {"id": account_id, "user_id": ALICE},
            )
            await connection.execute(
                text("INSERT INTO account_gifts (account_id, gift_id, message_ref) VALUES (:id, 8, 'message')"),
                {"id": account_id},
            )
            await connection.execute(
                text("INSERT INTO account_channels (account_id, channel_id, title) VALUES (:id, 9, 'Nine')"),
                {"id": account_id},
            )
        for channel_id, price in ((CHANNEL, 30 * TON), (UNLISTED_CHANNEL, None)):
            check = await self.do("channels.add", ALICE, channel_id=channel_id, account_id=account_id)
            inside = [{"gift": gift(201, collection="Toy Bear"), "quantity": 2}, {"gift": gift(202), "quantity": 1}]
            facts = {"title": "Gifts", "username": "gifts", "is_creator": True, "gifts": inside, "gifts_hash": "hash"}
            await self.do("channels.add_confirm", channel_id=channel_id, check_id=check["check_id"], **facts)
            if price is not None:
                await self.do("channels.set_price", ALICE, channel_id=channel_id, price_nano=price)

    async def sell_channel(self) -> str:
        bought = await self.do("channels.buy", BOB, channel_id=CHANNEL, price_nano=30 * TON)
        purchase_id: str = bought["purchase_id"]
        return purchase_id

    async def _money(self) -> None:
        do = self.do
        withdrawn = await do("market.withdraw", BOB, amount_nano=2 * TON, address=ADDRESS)
        self.ids["withdrawal"] = withdrawn["withdrawal_id"]
        self.ids["return"] = (await do("nft.return", CAROL, nft_id=21))["return_id"]
        lost = {"wallet": "souk-wallet", "logical_time": 99, "hash": f"{99:064x}", "memo": "?", "amount_nano": TON}
        self.ids["unclaimed"] = (await do("market.deposit", **lost))["deposit_id"]
