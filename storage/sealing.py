"""Secret fields at rest: login codes and passwords, encrypted from their acceptance until nothing waits for them.

The fields a command marks with SECRET never reach its stored payload, which shows a word in their place, nor anything
made from it: requests, receipts, events, tracebacks. They are encrypted in `commands.secrets`, read by the courier just
before the call that needs them, and erased when the request they feed, or the command itself, has ended.
"""

import hmac
from hashlib import sha256

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr
from pydantic_core import from_json, to_json

from commands.command import SEALED, Command, secret_fields
from storage.journal.entry import Content

_ANOTHER = "SOUK_SECRET_KEY is not the one that this was sealed under"


class NoSecretKey(Exception):
    """SOUK_SECRET_KEY is not set, or not the one that this was sealed under."""


class Sealer:
    """Seals and opens under the key of the installation."""

    def __init__(self, key: SecretStr | None) -> None:
        self._key = key

    def seal(self, command: Command) -> Content:
        """Returns what is stored of the command. Raises NoSecretKey when it has secrets and there is no key."""
        names = secret_fields(type(command))
        if not names:
            return Content.of(command)
        payload = command.model_dump_json()
        secrets = {name: value for name in names if (value := getattr(command, name)) is not None}
        # Whoever reads the journal could find a short code by trying all, were the key not part of its fingerprint.
        fingerprint = hmac.digest(self._secret_key(), f"{command.kind}\n{payload}".encode(), sha256)[:16]
        shown = command.model_copy(update=dict.fromkeys(secrets, SEALED)).model_dump_json()
        return Content(shown, fingerprint, Fernet(self._secret_key()).encrypt(to_json(secrets)))

    def open(self, secrets: bytes) -> dict[str, str]:
        """The secret fields by name. Raises NoSecretKey."""
        try:
            fields: dict[str, str] = from_json(Fernet(self._secret_key()).decrypt(secrets))
        except InvalidToken:
            raise NoSecretKey(_ANOTHER) from None
        return fields

    def seal_text(self, text: str) -> bytes:
        """Raises NoSecretKey."""
        return Fernet(self._secret_key()).encrypt(text.encode())

    def open_text(self, sealed: bytes) -> str:
        """Raises NoSecretKey."""
        try:
            return Fernet(self._secret_key()).decrypt(sealed).decode()
        except InvalidToken:
            raise NoSecretKey(_ANOTHER) from None

    def _secret_key(self) -> bytes:
        if self._key is None:
            raise NoSecretKey("SOUK_SECRET_KEY is not set")
        return self._key.get_secret_value().encode()
