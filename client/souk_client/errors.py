"""What the client raises.

SoukError
├── Problem        the API says no: status, code, detail, errors
├── Unreachable    no whole answer came in time; whether the request took effect is unknown
│   └── NoConnection   no connection could be made
└── Unsuccessful   a command did not succeed; raised by Receipt.raise_for_outcome alone: a refusal is an outcome
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from souk_client.answers import Receipt

LATER = frozenset({429, 502, 503, 504})
"""Statuses of problems that pass by themselves."""


class SoukError(Exception):
    """Any error of this client."""


class Unreachable(SoukError):
    """No whole answer came: the connection was reset, cut short or out of time. The text says why.

    Whether the request took effect is unknown; a command that is sent again with its idempotency key happens once.
    """


class NoConnection(Unreachable):
    """No connection could be made. The text names the address and says why."""


class Problem(SoukError):
    """The API refused a request (RFC 9457), or whoever answered is no Souk.

    `status` is the HTTP status, `code` is stable and for programs, `detail` is for people, `raw` is the whole object.
    """

    def __init__(self, status: int, raw: Mapping[str, Any], retry_after: float = 0.0) -> None:
        self.status = status
        self.raw = raw
        self.code = str(raw.get("code", f"http_{status}"))
        self.detail = str(raw.get("detail", f"status {status}"))
        self.errors: Sequence[Mapping[str, str]] = raw.get("errors", ())
        """The `path` and `message` of each fault in a request that is not valid."""
        self.retry_after = retry_after
        """Seconds after which to try again; 0.0 when the API does not say."""
        super().__init__(status, raw, retry_after)

    def __str__(self) -> str:
        return " ".join(
            (f"{self.code}: {self.detail}", *(f"{each['path']}: {each['message']}" for each in self.errors))
        )

    @property
    def passes(self) -> bool:
        """Whether the same request may well be answered a little later."""
        return self.status in LATER


class Unsuccessful(SoukError):
    """A command is final and has not succeeded, or is not final yet. `receipt` is its Receipt."""

    def __init__(self, receipt: "Receipt") -> None:
        super().__init__(receipt)
        self.receipt = receipt

    def __str__(self) -> str:
        rejection = self.receipt.rejection
        why = f": {rejection.code} {rejection.detail}" if rejection else ""
        return f"{self.receipt.kind} {self.receipt.id} is {self.receipt.status}{why}"
