"""Requests that nobody sends by mistake: valid ones, spoilt in every way that a seed leads to; and a client that takes
any answer, however the request was framed."""

import asyncio
import copy
import json
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes
from uuid import UUID

from tests.api.wire import OF_USERS, VALID

ANSWER_SECONDS = 30
_MARK = "@@here@@"
_NUMBERS = [b"0", b"-0", b"-1", b"1.0", b"1e3", b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity", b"0x1", b"01"]
_NUMBERS += [str(edge + step).encode() for edge in (2**31, 2**53, 2**63, 2**64) for step in (-1, 0, 1)]
_NUMBERS += [b"9" * 5_000, b"-" + b"9" * 400, b"0." + b"3" * 2_000, b"1" + b"0" * 400]
_TEXTS = [b'""', b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff\xfe"', b'"\xc0\x80"', b'"\xed\xa0\x80"']
_TEXTS += [b'"\\x"', b'"\n"', b'"' + b"x" * 100_000 + b'"', b'"' + b"\xce\xb1" * 300 + b'"', b'"%s%n{0}\' OR 1=1 --"']
_SHAPES = [b"null", b"true", b"[]", b"{}", b"[[]]", b'{"":{}}', b"[" * 100, b"", b",", b"}", b"nul", b"\xef\xbb\xbf1"]
_SHAPES += [b"[" * 20_000 + b"]" * 20_000, b'{"a":' * 20_000 + b"1" + b"}" * 20_000, b"[" + b"0," * 5_000 + b"0]"]
LITERALS = [*_NUMBERS, *_TEXTS, *_SHAPES]
_VALUES = [b"", b"\0", b"%", b"%00", b"%ff", b"%ed%a0%80", b"\xff\xfe", b"..", b"../..", b"-1", b"1e400", b"NaN"]
_VALUES += [b"9" * 400, b"x" * 5_000, b"true", b"null", b"[]", b"' OR 1=1 --", b"01 OR 1", b"\xd9\xa1", b"0001-01-01"]
_VALUES += [b"2030-01-01T00:00:00Z"]
_VALUES += [str(edge).encode() for edge in (0, 1, 17, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63))]
_HEADERS = [b"Accept", b"Accept-Encoding", b"Authorization", b"Connection", b"Content-Encoding", b"Content-Type"]
_HEADERS += [b"Cookie", b"Expect", b"Idempotency-Key", b"If-None-Match", b"Last-Event-ID", b"Origin", b"Prefer"]
_HEADERS += [b"Range", b"X-Forwarded-For", b"X"]
_METHODS = [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"QUERY", b"PROPFIND", b"LINK"]


class Request(NamedTuple):
    """What is written to the socket; `framed` when its end is where its head says."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    framed: bool = True

    def as_bytes(self) -> bytes:
        lines = b"".join(b"%b: %b\r\n" % header for header in self.headers)
        return b"%b %b HTTP/1.1\r\nHost: souk\r\n%b\r\n%b" % (self.method, self.target, lines, self.body)


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Fuzz:
    """`document` names the routes; `ids` are those of things that are there."""

    def __init__(self, rng: Random, document: Mapping[str, Any], key: str, ids: list[str]) -> None:
        self._rng = rng
        self._key = key.encode()
        self._ids = [*(each.encode() for each in ids), b"1", b"17", str(UUID(int=0)).encode()]
        self._operations = [
            (path, method, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if path not in ("/v1/ws", "/v1/commands", "/v1/commands/batch")
        ]
        self._parameters = sorted(
            {
                parameter["name"].encode()
                for _, _, operation in self._operations
                for parameter in operation["parameters"]
                if parameter["in"] == "query"
            }
        )

    def framed(self) -> Request:
        """A request whose end can be told, however wrong it is."""
        request = self._rng.choice([self._command, self._command, self._batch, self._asked])()
        for _ in range(self._rng.choice([0, 0, 1, 1, 2])):
            request = self._rng.choice([self._other_header, self._other_method, self._other_query])(request)
        return self._measured(request)

    def broken(self) -> Request:
        """One that lies about its length, or is no HTTP at all."""
        request = self.framed()
        if self._rng.random() < 0.5:
            lengths = [b"-1", b"x", b"", b"1, 2", b"9" * 30, b"0", str(len(request.body) + 7).encode()]
            lies = [(b"Content-Length", self._rng.choice(lengths)), (b"Transfer-Encoding", b"chunked")]
            lie = self._rng.choice([*lies, (b"Upgrade", b"websocket")])
            kept = tuple(header for header in request.headers if header[0] != b"Content-Length")
            return request._replace(headers=(*kept, lie), framed=False)
        raw = self._bytes(request.as_bytes()[:4_000])
        method, _, rest = raw.partition(b" ")
        target, _, more = rest.partition(b" ")
        return Request(method, target, (), more, framed=False)

    # -- valid ones

    def _command(self) -> Request:
        return self._post(b"/v1/commands", self._spoilt(self._whole()))

    def _batch(self) -> Request:
        items = [self._whole() for _ in range(self._rng.randint(1, 4))]
        return self._post(b"/v1/commands/batch", self._spoilt({"commands": items}))

    def _whole(self) -> dict[str, Any]:
        rng = self._rng
        kind = rng.choice(sorted(VALID))
        whole: dict[str, Any] = {"kind": kind, "payload": VALID[kind]}
        whole |= {"actor": rng.randint(1, 300)} if kind in OF_USERS else {}
        whole |= {"idempotency_key": f"{rng.getrandbits(60)}"} if rng.random() < 0.8 else {}
        whole |= {"not_after": "2030-01-01T00:00:00Z"} if rng.random() < 0.2 else {}
        return whole

    def _asked(self) -> Request:
        path, method, _ = self._rng.choice(self._operations)
        for name in ("{id}", "{nft_id}", "{gift_id}", "{delivery_id}", "{name}"):
            value = self._rng.choice(self._ids) if self._rng.random() < 0.7 else self._value()
            path = path.replace(name, quote_from_bytes(value, safe="%"))
        headers = (*self._known(), (b"Accept", b"application/json"), (b"Content-Type", b"application/json"))
        body = self._spoilt({"url": "https://example.com", "topics": ["market"]}) if method == "post" else b""
        return Request(method.upper().encode(), path.encode(), headers, body)

    def _post(self, target: bytes, body: bytes) -> Request:
        return Request(b"POST", target, (*self._known(), (b"Content-Type", b"application/json")), body)

    def _known(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"Authorization", b"Bearer " + self._key),)

    # -- what spoils them

    def _spoilt(self, whole: Any) -> bytes:
        rng = self._rng
        match rng.randint(0, 5):
            case 0:
                return json.dumps(whole).encode()
            case 1:
                return self._bytes(json.dumps(whole).encode())
            case 2:
                name = rng.choice([b"kind", b"payload", b"actor", b"", b"surprise"])
                return b'{"%b":%b,%b' % (name, rng.choice(LITERALS), json.dumps(whole).encode()[1:])
            case 3:
                return json.dumps(whole).encode(rng.choice(["utf-16", "utf-32", "utf-8-sig"]))
        marked = copy.deepcopy(whole)
        places = list(_places(marked))
        parent, name = rng.choice(places)
        parent[name] = _MARK
        return json.dumps(marked).encode().replace(json.dumps(_MARK).encode(), rng.choice(LITERALS))

    def _bytes(self, text: bytes) -> bytes:
        """Some bytes other, more or less."""
        rng, changed = self._rng, bytearray(text)
        for _ in range(rng.randint(1, 6)):
            place = rng.randint(0, len(changed))
            match rng.randint(0, 3):
                case 0:
                    changed[place : place + 1] = bytes([rng.randint(0, 255)])
                case 1:
                    changed[place:place] = rng.randbytes(rng.randint(1, 8))
                case 2:
                    del changed[place : place + rng.randint(1, 20)]
                case 3:
                    changed[place:place] = changed[rng.randint(0, len(changed)) :][:50]
        return bytes(changed)

    def _other_header(self, request: Request) -> Request:
        name = self._rng.choice(_HEADERS)
        value = bytes(byte for byte in self._value() if byte not in b"\0\r\n")
        kept = tuple(header for header in request.headers if header[0] != name or self._rng.random() < 0.2)
        return request._replace(headers=(*kept, (name, value)))

    def _other_method(self, request: Request) -> Request:
        return request._replace(method=self._rng.choice(_METHODS))

    def _other_query(self, request: Request) -> Request:
        rng = self._rng
        pairs = []
        for _ in range(rng.randint(1, 4)):
            value = self._value()
            safe = (
                quote_from_bytes(value, safe="%") if rng.random() < 0.8 else value.decode("latin-1").replace(" ", "+")
            )
            pairs.append(rng.choice(self._parameters) + b"=" + safe.encode("latin-1"))
        query = bytes(byte for byte in b"&".join(pairs) if byte > 0x20 and byte != 0x7F)
        return request._replace(target=request.target + b"?" + query.replace(b"#", b"%23"))

    def _measured(self, request: Request) -> Request:
        kept = tuple(header for header in request.headers if header[0] not in (b"Expect", b"Connection"))
        length = ((b"Content-Length", str(len(request.body)).encode()),) if request.body else ()
        return request._replace(headers=(*kept, *length))

    def _value(self) -> bytes:
        return self._bytes(self._rng.choice(self._ids)) if self._rng.random() < 0.2 else self._rng.choice(_VALUES)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Everywhere in the value, as what holds it and its name there."""
    named = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for name, part in list(named):
        found += [(value, name), *_places(part)]
    return found


class Client:
    """One connection that is kept as long as the server keeps it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: Request) -> Answer:
        """The answer to a framed request. Raises TimeoutError when none comes."""
        async with asyncio.timeout(ANSWER_SECONDS):
            if self._writer is None or self._writer.is_closing():
                self._reader, self._writer = await asyncio.open_connection(*self._address)
            assert self._reader is not None
            self._writer.write(request.as_bytes())
            answer = await self._read(self._reader, request.method)
        if answer.headers.get("connection") == "close" or "text/event-stream" in answer.headers.get("content-type", ""):
            self.close()
        return answer

    async def say(self, request: Request) -> bytes:
        """All that comes back for something that is no request, until the server hangs up."""
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(*self._address)
            try:
                writer.write(request.as_bytes())
                writer.write_eof()
                return await reader.read()
            except ConnectionError:
                return b""
            finally:
                writer.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    async def _read(self, reader: asyncio.StreamReader, method: bytes) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        if "text/event-stream" in headers.get("content-type", "") or status in (101, 204, 304) or method == b"HEAD":
            return Answer(status, headers, b"")
        if "content-length" in headers:
            return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return Answer(status, headers, body)
