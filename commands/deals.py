"""Deals: the permanent record of a completed exchange, whatever mechanism made it."""

from typing import Literal, NamedTuple
from uuid import UUID

from commands.book import Book, available, held
from commands.document import record
from commands.nft.items import Nft, hand_over, public_topics


@record("deals", moment="made_at")
class Deal(NamedTuple):
    """Money and items that changed hands. `price_nano` and `seller_nano` are null only for a trade of items."""

    id: UUID
    source: str
    seller_id: int
    buyer_id: int
    price_nano: int | None
    fee_bp: int
    fee_nano: int
    seller_nano: int | None


@record("deal_items")
class DealItem(NamedTuple):
    """An item of a deal; `to_seller` occurs in trades only."""

    deal_id: UUID
    nft_id: int | None
    gift_id: int
    quantity: int
    direction: str


def record_deal(book: Book, deal: Deal, items: list[DealItem]) -> None:
    """Store the deal, and tell each party of it."""
    book.add(deal)
    for item in items:
        book.add(item)
    nft_ids = [str(item.nft_id) for item in items if item.nft_id is not None]
    for role, user_id in (("seller", deal.seller_id), ("buyer", deal.buyer_id)):
        book.emit(
            "deal.made",
            f"user:{user_id}",
            deal_id=str(deal.id),
            source=deal.source,
            role=role,
            nft_ids=nft_ids,
            price_nano=deal.price_nano,
            fee_nano=deal.fee_nano,
        )


def sell_item(
    book: Book,
    nft: Nft,
    buyer_id: int,
    source: Literal["sale", "offer", "auction"],
    price_nano: int,
    fee_bp: int,
    held_by: tuple[str, UUID] | None = None,
) -> int:
    """The item to the buyer, its price to the owner, and the deal of both under the command's id. Returns the fee.

    The buyer pays from what the document `held_by` holds, (kind, id), or else from what is available, to which the
    sale adds what the buyer held for offers on the item.
    """
    assert nft.owner_id is not None  # noqa: S101 - found in custody
    deal_id, seller_id = book.command_id, nft.owner_id
    payer, document = (held(buyer_id), held_by) if held_by else (available(buyer_id), ("deal", deal_id))
    hand_over(book, nft, buyer_id, "sold")
    fee = book.settle(payer, seller_id, price_nano, fee_bp, *document)
    book.emit(
        "nft.sold",
        *public_topics(nft),
        nft_id=str(nft.id),
        gift_id=str(nft.gift_id),
        price_nano=price_nano,
        source=source,
        deal_id=str(deal_id),
    )
    deal = Deal(deal_id, source, seller_id, buyer_id, price_nano, fee_bp, fee, price_nano - fee)
    record_deal(book, deal, [DealItem(deal_id, nft.id, nft.gift_id, 1, "to_buyer")])
    return fee
