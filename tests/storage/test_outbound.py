"""Requests to addresses that users name: none reaches what only we can reach, and no receiver can harm us."""

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from storage.webhooks.safe_http import Outbound, Resolve, Unacceptable, Unanswered, is_public
from tests.deadline import eventually
from tests.receiver import OK, Receiver, Seen, a_receiver, answer, says

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "192.0.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("192.88.99.1", "168.63.129.16", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    *("2002:7f00:1::", "2001::1", "2001:db8::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0"),
    *("fec0::1", "ff02::1", "100::1", "5f00::1", "4000::1", "localhost", "", "0x7f.1"),
]
PUBLIC = ["8.8.8.8", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1"]


def leads_to(*addresses: str) -> Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_of_the_public_internet_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_not_refused(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses())
def test_nothing_passes_that_the_registry_knows_as_special(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    special = not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback
    assert not (special and is_public(str(ip)))


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://example.com/", "ftp://example.com/", "//example.com/", "example.com", ""),
        *("https://user@example.com/", "https://user:password@example.com/", "https://@example.com/", "https:///x"),
        *("https://127.0.0.1\\@example.com/", "https://example.com/#there", "https://example.com:0/"),
        *("https://example.com:65536/", "https://[::1/", "https://exa mple.com/", "https://exam\nple.com/"),
        *("https://[fe80::1%25eth0]/", "https://①②⑦.⓪.⓪.①/", "https://example.com/" + "x" * 2_048, "javascript:1"),
        "\0https://example.com/",
    ],
)
async def test_a_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(Unacceptable):
        Outbound(private=False, timeout_seconds=1).read(url)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "0", "0x0.0", "localhost"),
        *("[::1]", "[::ffff:10.0.0.1]", "[::ffff:a00:1]", "[64:ff9b::a00:1]", "[2002:a00:1::]", "169.254.169.254"),
        *("10.0.0.1", "[fd00:ec2::254]", "[::]"),
    ],
)
async def test_a_private_address_is_refused_however_it_is_written(host: str) -> None:
    """The resolver is the system's own."""
    async with a_receiver() as receiver:
        out = Outbound(private=False, timeout_seconds=5)
        with pytest.raises(Unacceptable):
            await out.check(f"https://{host}:{receiver.port}/")
        with pytest.raises(Unanswered, match=r"forbidden|unresolvable"):
            await out.post(f"https://{host}:{receiver.port}/", {}, b"{}")
        await out.close()
        assert receiver.connections == 0


async def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    out = Outbound(private=False, timeout_seconds=5, resolve=leads_to("93.184.215.14", "10.0.0.1"))
    with pytest.raises(Unacceptable):
        await out.check("https://example.com/")
    with pytest.raises(Unanswered, match="forbidden_address"):
        await out.post("https://example.com/", {}, b"{}")
    await out.close()


async def test_a_name_that_leads_nowhere_yet_may_be_named() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError

    out = Outbound(private=False, timeout_seconds=5, resolve=resolve)
    await out.check("https://example.com/")
    with pytest.raises(Unanswered, match="unresolvable"):
        await out.post("https://example.com/", {}, b"{}")
    await out.close()


def changing(*told: str) -> Resolve:
    """A name that leads elsewhere each time it is asked for."""
    addresses = iter(told)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return [next(addresses)]

    return resolve


async def test_a_name_that_was_good_once_is_looked_at_again_at_each_request() -> None:
    async with a_receiver() as receiver:
        out = Outbound(private=False, timeout_seconds=5, resolve=changing("93.184.215.14", "127.0.0.1"))
        url = f"https://rebound.test:{receiver.port}/"
        await out.check(url)
        with pytest.raises(Unanswered, match="forbidden_address"):
            await out.post(url, {}, b"{}")
        assert receiver.connections == 0
        await out.close()


async def test_the_connection_goes_to_the_address_that_was_looked_at() -> None:
    """Nobody resolves the name again, which would lead elsewhere."""
    async with a_receiver() as receiver:
        out = Outbound(private=True, timeout_seconds=5, resolve=changing("127.0.0.1", "127.0.0.2"))
        assert await out.post(f"http://rebound.test:{receiver.port}/hook?a=b", {}, b"{}") == 200
        [seen] = receiver.seen
        assert (seen.target, seen.headers["host"]) == ("/hook?a=b", f"rebound.test:{receiver.port}")
        await out.close()


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS of a server that is receiver.test, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("receiver.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "both.pem"
    file.write_bytes(pem + private)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file)
    client = ssl.create_default_context(cadata=pem.decode())
    return server, client


async def test_tls_verifies_the_name_and_not_the_address(certified: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = certified
    asked: list[str | None] = []
    server.sni_callback = lambda _, name, __: asked.append(name)
    async with a_receiver(server) as receiver:
        out = Outbound(private=True, timeout_seconds=5, resolve=leads_to("127.0.0.1"), verify=client)
        assert await out.post(f"https://receiver.test:{receiver.port}/", {}, b"{}") == 200
        assert asked == ["receiver.test"]
        with pytest.raises(Unanswered, match="tls"):
            await out.post(f"https://another.test:{receiver.port}/", {}, b"{}")
        await out.close()
        stranger = Outbound(private=True, timeout_seconds=5, resolve=leads_to("127.0.0.1"))
        with pytest.raises(Unanswered, match="tls"):
            await stranger.post(f"https://receiver.test:{receiver.port}/", {}, b"{}")
        await stranger.close()
        assert len(receiver.seen) == 1


async def test_the_next_address_is_tried_when_one_takes_no_connection() -> None:
    async with a_receiver() as receiver:
        out = Outbound(private=True, timeout_seconds=5, resolve=leads_to("127.0.0.2", "127.0.0.1"))
        assert await out.post(f"http://receiver.test:{receiver.port}/", {}, b"{}") == 200
        await out.close()


# -- receivers that mean no good


async def ask(receiver: Receiver, timeout_seconds: float = 5) -> int:
    out = Outbound(private=True, timeout_seconds=timeout_seconds)
    try:
        return await out.post(receiver.url, {"webhook-id": "1"}, b"{}")
    finally:
        await out.close()


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async with a_receiver() as receiver, a_receiver() as inner:
        receiver.respond = says(answer(302, f"location: {inner.url}"))
        assert await ask(receiver) == 302
        assert inner.connections == 0


async def test_a_long_answer_is_not_listened_to() -> None:
    sent = 0

    async def respond(_: Seen, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 30000000\r\n\r\n")
        while sent < 30_000_000:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    async with a_receiver() as receiver:
        receiver.respond = respond
        assert await ask(receiver) == 200

        async def left() -> bool:
            return receiver.under_way == 0

        await eventually(left)
        assert sent < 15_000_000


async def test_an_answer_that_drips_ends_with_the_time_there_is() -> None:
    async def respond(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(10_000):
            writer.write(f"x-{number}: y\r\n".encode())
            await writer.drain()
            await asyncio.sleep(0.01)

    async with a_receiver() as receiver:
        receiver.respond = respond
        began = time.monotonic()
        with pytest.raises(Unanswered, match="timeout"):
            await ask(receiver, timeout_seconds=0.5)
        assert time.monotonic() - began < 3


async def test_a_body_that_drips_does_not_matter() -> None:
    async def respond(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for number in range(1_000):
            writer.write(str(number % 10).encode())
            await writer.drain()
            await asyncio.sleep(0.05)

    async with a_receiver() as receiver:
        receiver.respond = respond
        assert await ask(receiver) == 200


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "broken_off"), (b"HTTP/1.1 2", "broken_off"), (b"SSH-2.0-OpenSSH\r\n", "broken_off")],
)
async def test_what_is_no_answer_is_told_in_a_word(content: bytes, word: str) -> None:
    async with a_receiver() as receiver:
        receiver.respond = says(content)
        with pytest.raises(Unanswered, match=word):
            await ask(receiver)


async def test_who_takes_no_connection_is_told_in_a_word() -> None:
    async with a_receiver() as receiver:
        pass
    with pytest.raises(Unanswered, match="not_connected"):
        await ask(receiver)


async def test_no_cookie_and_no_connection_is_kept() -> None:
    async with a_receiver() as receiver:
        receiver.respond = says(OK.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b\r\n\r\n"))
        out = Outbound(private=True, timeout_seconds=5)
        for _ in range(2):
            assert await out.post(receiver.url, {}, b"{}") == 200
        await out.close()
        assert receiver.connections == 2
        assert all("cookie" not in seen.headers for seen in receiver.seen)
