"""What a marketplace is busy with: how often each story is told, mix by mix.

`buy` is no mix of stories: it is the plain stream of `Marketplace.commands`, which needs no answers to go on.
"""

from enum import StrEnum
from typing import NamedTuple

from loadtest.stories import auctions, offers, people, presales, sales, telegram, trades
from loadtest.stories.stage import Plot


class Mix(StrEnum):
    BUY = "buy"
    AUCTION = "auction"
    OFFER = "offer"
    SWAP = "swap"
    EVERYTHING = "everything"


class Share(NamedTuple):
    """Of a story, in each mix."""

    plot: Plot
    auction: int
    offer: int
    swap: int
    everything: int


SHARES = (
    #     the story                    auction  offer  swap  everything
    Share(sales.trade,                      20,    20,   20,  40),
    Share(sales.rush,                        1,     1,    1,   4),
    Share(sales.arrival,                     1,     1,    1,   4),
    Share(sales.returned,                    0,     0,    0,   2),
    Share(offers.accepted,                   0,    20,    0,   5),
    Share(offers.countered,                  0,    20,    0,   4),
    Share(offers.refused,                    0,    10,    0,   2),
    Share(offers.withdrawn,                  0,    10,    0,   2),
    Share(offers.closed_by_a_sale,           0,    10,    0,   2),
    Share(auctions.contested,               30,     0,    0,   6),
    Share(auctions.unwanted,                 2,     0,    0,   1),
    Share(auctions.cancelled,                4,     0,    0,   1),
    Share(trades.swapped,                    0,     0,   20,   5),
    Share(trades.declined,                   0,     0,    6,   2),
    Share(trades.left_open,                  0,     0,    2,   1),
    Share(trades.closed_by_a_gift,           0,     0,    4,   1),
    Share(presales.delivered,                0,     0,    0,   4),
    Share(presales.never_delivered,          0,     0,    0,   1),
    Share(presales.delivered_unsold,         0,     0,    0,   1),
    Share(presales.deleted,                  0,     0,    0,   1),
    Share(telegram.connected,                0,     0,    0,   1),
    Share(telegram.gift_sent,                0,     0,    0,   1),
    Share(telegram.disconnected,             0,     0,    0,   1),
    Share(telegram.channel_sold,             0,     0,    0,   3),
    Share(telegram.channel_deleted,          0,     0,    0,   1),
    Share(people.newcomer,                   0,     0,    0,   1),
    Share(people.lost_deposit,               0,     0,    0,   1),
    Share(people.reported_twice,             0,     0,    0,   1),
    Share(people.withdrawal,                 0,     0,    0,   4),
    Share(people.blocked,                    0,     0,    0,   1),
    Share(people.floor,                      0,     0,    4,   3),
)  # fmt: skip


def weights(mix: Mix) -> dict[Plot, int]:
    """How often each story of the mix is told, in relation to the others."""
    return {share.plot: weight for share in SHARES if (weight := int(getattr(share, mix)))}
