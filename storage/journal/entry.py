"""The entry: a command as the journal keeps it, made in one way whoever writes it.

Clients submit commands, commands write others (follow-ups and timers), and answers of the gateway become commands. Each
of them says what it knows in `Facts`, and `Entry.of` does the rest.
"""

import os
import time
import zlib
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, Self
from uuid import UUID

from commands.command import Command, secret_fields
from commands.outcome import Status


def new_id() -> UUID:
    """A UUIDv7: time-ordered, so that new rows lie together in the index."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def partition_of(asset: str, partitions: int) -> int:
    """The partition of an asset: stable across processes, versions and machines."""
    return zlib.crc32(asset.encode()) % partitions


def fingerprint_of(kind: str, payload: str) -> bytes:
    """What a repeated idempotency key is compared by; the payload in the normal form of its command."""
    return sha256(f"{kind}\n{payload}".encode()).digest()[:16]


class Facts(NamedTuple):
    """What is known of a command beside itself. `key_id` is the credential that sends it, which with `notify` is told
    of its end by an event."""

    id: UUID
    actor: int | None = None
    idempotency_key: str | None = None
    run_at: datetime | None = None
    not_after: datetime | None = None
    key_id: str | None = None
    notify: bool = False


class Content(NamedTuple):
    """What is stored of a command itself. `payload` is JSON; `secrets` are its secret fields, sealed, for which the
    payload shows a word only."""

    payload: str
    fingerprint: bytes
    secrets: bytes | None = None

    @classmethod
    def of(cls, command: Command) -> Self:
        """Returns the content of a command without secrets. Raises ValueError when its kind has secret fields, which
        only `Sealer.seal` may store."""
        if secret_fields(type(command)):
            message = f"the secrets of {command.kind} must be sealed"
            raise ValueError(message)
        payload = command.model_dump_json()
        return cls(payload, fingerprint_of(command.kind, payload))


class Entry(NamedTuple):
    """A command that is to be written into the journal; its fields are columns of the table."""

    id: UUID
    kind: str
    asset: str
    partition: int
    actor: int | None
    payload: str
    idempotency_key: str | None
    fingerprint: bytes
    run_at: datetime | None
    not_after: datetime | None
    secrets: bytes | None
    key_id: str | None
    notify: bool

    @classmethod
    def of(cls, command: Command, facts: Facts, partitions: int, content: Content | None = None) -> Self:
        """Returns the entry of a command in a journal of so many partitions. `content` is needed where the kind has
        secret fields: without it, such a command raises ValueError."""
        content = content or Content.of(command)
        asset = command.asset(facts.id, facts.actor)
        return cls(
            id=facts.id,
            kind=command.kind,
            asset=asset,
            partition=partition_of(asset, partitions),
            actor=facts.actor,
            payload=content.payload,
            idempotency_key=facts.idempotency_key,
            fingerprint=content.fingerprint,
            run_at=facts.run_at,
            not_after=facts.not_after,
            secrets=content.secrets,
            key_id=facts.key_id,
            notify=facts.notify,
        )

    def status_at(self, now: datetime) -> Status:
        """Returns what the entry begins as when it is written at `now`."""
        return Status.SCHEDULED if self.run_at is not None and self.run_at > now else Status.ACCEPTED
