"""The Python client of Souk. It needs nothing of the server, only four small libraries.

    async with Client("http://127.0.0.1:8000", key) as souk:
        receipt = await souk.submit("users.register", user_id=42, wait=5)

SyncClient has the same methods without `await`.
"""

from souk_client.answers import FINAL, Answer, Event, Receipt, Rejection, Status
from souk_client.client import Client, Outcome, Submission
from souk_client.errors import NoConnection, Problem, SoukError, Unreachable, Unsuccessful
from souk_client.sync import SyncClient
from souk_client.transport import HttpxTransport, Transport

__all__ = [
    "FINAL",
    "Answer",
    "Client",
    "Event",
    "HttpxTransport",
    "NoConnection",
    "Outcome",
    "Problem",
    "Receipt",
    "Rejection",
    "SoukError",
    "Status",
    "Submission",
    "SyncClient",
    "Transport",
    "Unreachable",
    "Unsuccessful",
]
