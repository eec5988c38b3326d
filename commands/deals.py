"""Deals: the permanent record of a completed exchange, whatever mechanism made it."""

from typing import NamedTuple
from uuid import UUID

from commands.book import Book, record


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
