"""Trades: what meets their requirements, and whom private ones exist for."""

from itertools import permutations

from tests.market import TON
from tests.system.hard import ROUNDS
from tests.system.marketplace import ANY, Marketplace, command


async def test_requirements_are_met_in_any_order(marketplace: Marketplace) -> None:
    """H30."""
    owner, author = await marketplace.people(2)
    required = [{"collection": "Plush Pepe", "backdrop": None}, {"collection": "Plush Pepe", "backdrop": "Red"}]
    for _ in range(ROUNDS // 4):
        for requirements in permutations(required):
            for first_is_red in (True, False):
                red = await marketplace.item(author, backdrop="Red")
                blue, bluer = await marketplace.items([author] * 2, backdrop="Blue")
                trade = await marketplace.trade(owner, [await marketplace.item(owner)], requirements=list(requirements))
                rejection = await marketplace.refused(
                    "TRADE_REQUIREMENTS_NOT_MET", "trades.propose", author, **trade, nft_ids=[blue, bluer]
                )
                assert rejection["unmatched"]
                items = [red, blue] if first_is_red else [blue, red]
                proposed = await marketplace.proposal(author, trade, items)
                await marketplace.do("trades.accept", owner, **proposed)
                for item in items:
                    assert await marketplace.nft(item) == (owner, "held")


async def test_a_private_trade_exists_for_its_parties_only(marketplace: Marketplace) -> None:
    """H31."""
    for _ in range(ROUNDS):
        owner, receiver, stranger = await marketplace.people(3)
        trade = await marketplace.trade(owner, [await marketplace.item(owner)], receiver_id=receiver)
        path = f"/trades/{trade['trade_id']}"
        answer = await marketplace.ask(stranger, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        item = await marketplace.item(stranger)
        await marketplace.refused("TRADE_NOT_FOUND", "trades.propose", stranger, **trade, nft_ids=[item])
        await marketplace.refused("TRADE_NOT_FOUND", "trades.delete", stranger, **trade)
        for party in (owner, receiver):
            assert (await marketplace.read(party, path))["trade_id"] == trade["trade_id"]
        await marketplace.do("trades.delete", receiver, **trade)
        assert await marketplace.document("trades", trade["trade_id"], "state") == ("deleted",)


async def test_a_trade_is_accepted_once_and_its_fee_paid_once(marketplace: Marketplace) -> None:
    """Two proposals accepted at once, the fee known from a floor: one exchange, one fee, the rest closed."""
    collection = "Hard Trades"
    observed = await marketplace.site.value("SELECT clock_timestamp()")
    await marketplace.do(
        "market.record_floor",
        market="souk",
        collection=collection,
        price_nano=TON,
        observed_at=observed.isoformat(),
    )
    for _ in range(ROUNDS):
        owner, *authors = await marketplace.people(3)
        mine = await marketplace.item(owner)
        trade = await marketplace.trade(owner, [mine], requirements=[{**ANY[0], "collection": collection}])
        theirs = await marketplace.items(authors, collection=collection)
        proposals = [
            await marketplace.proposal(author, trade, [item]) for author, item in zip(authors, theirs, strict=True)
        ]
        await marketplace.refused("FEE_TOO_HIGH", "trades.accept", owner, **proposals[0], fee_max_nano=1)
        receipts = await marketplace.race([command("trades.accept", owner, **proposal) for proposal in proposals])
        [won] = [place for place, receipt in enumerate(receipts) if receipt["status"] == "succeeded"]
        await marketplace.assert_refused(receipts[1 - won], "TRADE_NOT_OPEN")
        assert await marketplace.balance(owner) == (10 * TON - 20_000_000, 0)
        assert await marketplace.nft(mine) == (authors[won], "held")
        assert await marketplace.nft(theirs[won]) == (owner, "held")
        assert await marketplace.nft(theirs[1 - won]) == (authors[1 - won], "held")
        lost = proposals[1 - won]["proposal_id"]
        assert await marketplace.document("proposals", lost, "state") == ("closed",)
