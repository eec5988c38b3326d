"""Random histories: money and items are conserved, a refusal leaves nothing, and batches do not matter."""

from hypothesis import given, settings
from hypothesis import strategies as st

from commands.deals import Deal
from commands.items import Nft, NftState
from commands.outcome import Status
from commands.terms import TON
from tests.commands.world import Sent, World, buy, deposit, receive, register, set_price, transfer

USERS = st.integers(1, 4)
ITEMS = st.integers(1, 3)
PRICES = st.sampled_from([TON, 2 * TON, 3 * TON + 1])

ACTIONS: st.SearchStrategy[Sent] = st.one_of(
    st.tuples(st.builds(register, USERS), st.none()),
    st.tuples(st.builds(deposit, USERS, st.integers(1, 5 * TON)), st.none()),
    st.tuples(st.builds(receive, ITEMS, USERS), st.none()),
    st.tuples(st.builds(set_price, ITEMS, st.one_of(st.none(), PRICES)), USERS),
    st.tuples(st.builds(buy, ITEMS, PRICES), USERS),
    st.tuples(st.builds(transfer, ITEMS, USERS), USERS),
)
HISTORIES = st.lists(ACTIONS, max_size=30)


def begun() -> World:
    world = World()
    for user_id in (1, 2, 3):
        world.user(user_id, ton=5)
        world.item(user_id, user_id)
    return world


@given(HISTORIES)
@settings(max_examples=150)
def test_money_and_items_are_conserved(history: list[Sent]) -> None:
    world = begun()
    for sent in history:
        before = world.snapshot()
        owners = {nft_id: nft[2] for (kind, nft_id), nft in before[0].items() if kind is Nft}
        deals = len(world.of(Deal))
        [outcome] = world.run(sent)
        assert outcome.status in (Status.SUCCEEDED, Status.REJECTED)
        if outcome.status is Status.REJECTED:
            assert world.snapshot() == before
        world.check()
        for nft_id, owner_id in owners.items():
            nft = world.get(Nft, nft_id)
            assert (nft.price_nano is not None) == (nft.state == NftState.LISTED)
            if nft.owner_id != owner_id:
                moved = sent[0].kind
                assert moved == "nft.transfer" or (moved == "nft.buy" and len(world.of(Deal)) == deals + 1)


@given(HISTORIES, st.integers(1, 10))
@settings(max_examples=150)
def test_a_batch_is_worth_as_many_batches_of_one(history: list[Sent], size: int) -> None:
    singly, batched = begun(), begun()
    outcomes_singly = [world_outcome for sent in history for world_outcome in singly.run(sent)]
    outcomes_batched = []
    for start in range(0, len(history), size):
        outcomes_batched += batched.run(*history[start : start + size])
    assert [(one.status, one.result, one.rejection) for one in outcomes_singly] == [
        (one.status, one.result, one.rejection) for one in outcomes_batched
    ]
    assert _without_times(singly) == _without_times(batched)


def _without_times(world: World) -> object:
    """Owners, states and balances: the world but for its moments."""
    nfts = {key: row[1:9] for (kind, key), row in world.rows.items() if kind is Nft}
    return nfts, {user_id: world.balance(user_id) for user_id in range(1, 5)}
