"""Floors: the lowest price of a collection or model on each market, as the floor feed sees it. Key
`collection:<collection>`. Fees on swaps are taken from them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from commands.book import Book
from commands.command import SYSTEM, Command, Envelope, Invalid, Moment, Name, PriceNano
from commands.document import Need, Scope, document, record
from commands.outcome import Code, Rejection
from commands.terms import Terms

OWN_MARKET = "souk"
CLOCK_SKEW_SECONDS = 60
"""How far a feed's clock may be ahead of the database's."""


@document("floors", key=("market", "collection", "model"), locked=False, indexes={"collection": Scope.ALL})
class Floor(NamedTuple):
    """Changed only by commands of the collection's key, read by all. `model` is '' for the whole collection."""

    market: str
    collection: str
    model: str
    price_nano: int
    recorded_at: datetime


@record("floor_points")
class FloorPoint(NamedTuple):
    """A point of the charts: a floor that was once recorded."""

    market: str
    collection: str
    model: str
    price_nano: int
    recorded_at: datetime


def touch_floor(collection: str) -> Iterator[Need]:
    yield Need(Floor, collection, "collection")


def floor_nano(book: Book, collection: str, model: str) -> int:
    """The lowest fresh floor of the model over all markets; if there is none that of the collection; if none, 0."""
    oldest = book.now - timedelta(seconds=book.terms.floor_fresh_seconds)
    fresh = [floor for floor in book.find(Floor, "collection", collection) if floor.recorded_at >= oldest]
    for wanted in (model, ""):
        prices = [floor.price_nano for floor in fresh if floor.model == wanted]
        if prices:
            return min(prices)
    return 0


class RecordFloor(Command, kind="market.record_floor", sent_by=SYSTEM, rejects=(Code.FLOOR_OUT_OF_DATE,)):
    """The floor feed saw the lowest price of a collection, or of one of its models, on a market."""

    market: str
    collection: Name
    model: Name | None = None
    price_nano: PriceNano
    observed_at: Moment

    def check(self, terms: Terms) -> None:
        known = [OWN_MARKET, *(integration.id for integration in terms.integrations)]
        if self.market not in known:
            raise Invalid(("payload.market", f"must be one of {', '.join(known)}"))

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"collection:{self.collection}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Floor, self._key())

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        floor = book.get(Floor, self._key())
        is_newer = floor is None or self.observed_at > floor.recorded_at
        if not is_newer or self.observed_at > envelope.accepted_at + timedelta(seconds=CLOCK_SKEW_SECONDS):
            raise Rejection(Code.FLOOR_OUT_OF_DATE)

        book.put(Floor(*self._key(), self.price_nano, self.observed_at))
        book.add(FloorPoint(*self._key(), self.price_nano, self.observed_at))
        book.emit(
            "floor.recorded",
            f"collection:{self.collection}",
            market=self.market,
            collection=self.collection,
            model=self.model,
            price_nano=self.price_nano,
        )
        return {}

    def _key(self) -> tuple[str, str, str]:
        return self.market, self.collection, self.model or ""
