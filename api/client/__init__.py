"""The Python client. It stands alone: nothing else of the project is imported here.

    async with Client("http://127.0.0.1:8000", key) as souk:
        receipt = await souk.submit("users.register", user_id=42, wait=5)

`SyncClient` has the same methods without await. docs/results.md tells the rest.
"""

from api.client.answers import FINAL, Answer, Event, Receipt, Rejection
from api.client.client import Client, Outcome, Submission
from api.client.errors import Problem, SoukError, Unreachable, Unsuccessful
from api.client.sync import SyncClient
from api.client.transport import HttpxTransport, Transport

__all__ = [
    "FINAL",
    "Answer",
    "Client",
    "Event",
    "HttpxTransport",
    "Outcome",
    "Problem",
    "Receipt",
    "Rejection",
    "SoukError",
    "Submission",
    "SyncClient",
    "Transport",
    "Unreachable",
    "Unsuccessful",
]
