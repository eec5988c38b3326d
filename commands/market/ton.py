"""Addresses of the TON blockchain, in their user-friendly form.

That is base64 of a tag, the workchain, the account's hash and a checksum (TEP 2, "TON Smart Contract Address").
"""

import re
from base64 import urlsafe_b64decode
from binascii import crc_hqx
from typing import NamedTuple

_FORM = re.compile(r"[A-Za-z0-9_-]{48}|[A-Za-z0-9+/]{48}")
_TESTNET_ONLY = 0x80
_TAGS = (0x11, 0x51)  # bounceable, not bounceable
_WORKCHAINS = (0x00, 0xFF)  # the basic one and the masterchain


class TonAddress(NamedTuple):
    """Who is paid, whatever the form of the address; and whether it is marked as one of the test network."""

    workchain: int
    account: bytes
    testnet: bool


def read_address(text: str) -> TonAddress | None:
    """The address in its 48 characters, or None when they are not one."""
    if not _FORM.fullmatch(text):
        return None
    packed = urlsafe_b64decode(text.replace("+", "-").replace("/", "_"))
    body, checksum = packed[:34], packed[34:]
    tag, workchain = body[0], body[1]
    if crc_hqx(body, 0).to_bytes(2) != checksum or tag & ~_TESTNET_ONLY not in _TAGS or workchain not in _WORKCHAINS:
        return None
    return TonAddress(workchain, body[2:], testnet=bool(tag & _TESTNET_ONLY))


def same_account(one: str, other: str) -> bool:
    """Whether two addresses are forms of one account's."""
    first, second = read_address(one), read_address(other)
    return first is not None and second is not None and first[:2] == second[:2]
