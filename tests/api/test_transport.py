"""What is no request of ours at all: refused with its problem before anything is decided."""

import json

import httpx
import pytest

from tests.api.api import Api, assert_problem
from tests.market import register

ROUTES = {
    "/v1/commands": {"GET", "POST"},
    "/v1/commands/batch": {"GET", "POST", "DELETE"},  # to GET and DELETE, batch is an id like any other
    "/v1/commands/0197b0c4-0000-7000-8000-000000000000": {"GET", "DELETE"},
    "/v1/listings": {"GET"},
    "/v1/nfts/1": {"GET"},
    "/v1/users/me": {"GET"},
    "/v1/users/me/nfts": {"GET"},
    "/v1/users/me/deals": {"GET"},
}

NOT_JSON = {
    "empty": b"",
    "a word": b"hello",
    "cut off": b'{"kind": "users.register", "payload": {"user_id": 1}',
    "two values": b'{"kind": "users.register", "payload": {"user_id": 1}} {}',
    "single quotes": b"{'kind': 'users.register', 'payload': {'user_id': 1}}",
    "a trailing comma": b'{"kind": "users.register", "payload": {"user_id": 1},}',
    "NaN": b'{"kind": "users.register", "payload": {"user_id": NaN}}',
    "Infinity": b'{"kind": "users.register", "payload": {"user_id": Infinity}}',
    "-Infinity": b'{"kind": "users.register", "payload": {"user_id": -Infinity}}',
    "not UTF-8": b'{"kind": "users.register\xff", "payload": {"user_id": 1}}',
    "UTF-16": json.dumps(register(1)).encode("utf-16"),
    "a NUL byte": b'{"kind": "users.register", "payload": {"user_id": 1}}\0',
    "a raw control character": b'{"kind": "users.register", "payload": {"user_id": 1, "language": "e\x01"}}',
    "a lone surrogate": b'{"kind": "users.register", "payload": {"user_id": 1, "language": "\\ud800"}}',
    "a surrogate pair reversed": b'{"kind": "users.register", "payload": {"user_id": 1, "language": "\\udc00\\ud800"}}',
    "a deep list": b"[" * 100_000,
    "a deep list, closed": b"[" * 100_000 + b"]" * 100_000,
    "a deep object": b'{"payload":' * 50_000 + b"{}" + b"}" * 50_000,
    "a very long number": b'{"kind": "users.register", "payload": {"user_id": ' + b"9" * 100_000 + b"}}",
}


async def post(api: Api, body: bytes, content_type: str | None = "application/json", path: str = "") -> httpx.Response:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return await api.operator.post(f"/v1/commands{path}", content=body, headers=headers)


@pytest.mark.parametrize("path", ["", "/batch"])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_what_is_not_json_is_malformed(api: Api, body: bytes, path: str) -> None:
    async with api.unchanged():
        problem = assert_problem(await post(api, body, path=path), 400, "malformed")
    assert len(problem["detail"]) < 200


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/xml",
    ],
)
@pytest.mark.parametrize("path", ["", "/batch"])
async def test_another_content_type_is_refused(api: Api, content_type: str | None, path: str) -> None:
    async with api.unchanged():
        response = await post(api, json.dumps(register(1)).encode(), content_type, path)
        assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
async def test_the_content_type_may_have_parameters_and_any_case(api: Api, content_type: str) -> None:
    response = await post(api, json.dumps(register(1)).encode(), content_type)
    assert response.status_code == 202


@pytest.mark.parametrize("path", ["", "/batch"])
@pytest.mark.parametrize("size", [2**20 + 1, 2 * 2**20])
async def test_a_body_over_one_mebibyte_is_too_large(api: Api, path: str, size: int) -> None:
    body = json.dumps(register(1)).encode()
    async with api.unchanged():
        assert_problem(await post(api, body.ljust(size), path=path), 413, "too_large")


async def test_a_body_of_one_mebibyte_is_read(api: Api) -> None:
    assert (await post(api, json.dumps(register(1)).encode().ljust(2**20))).status_code == 202


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_another_method_is_not_allowed(api: Api, method: str, path: str) -> None:
    if method in ROUTES[path]:
        return
    async with api.unchanged():
        response = await api.operator.request(method, path)
        assert_problem(response, 405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) & ROUTES[path]


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/commands", "/v1/command", "/v1/nfts", "/v1/users/7", "/v1/nfts/1/2"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_route_is_not_found(api: Api, path: str, method: str) -> None:
    async with api.unchanged():
        assert_problem(await api.operator.request(method, path), 404, "not_found")


async def test_an_unknown_command_is_not_found(api: Api) -> None:
    response = await api.operator.get("/v1/commands/0197b0c4-0000-7000-8000-000000000000")
    assert_problem(response, 404, "not_found")


@pytest.mark.parametrize("name", ["7", "not-a-uuid", "0197b0c4-0000-7000-8000-00000000000", "%00", "batch", "🎁"])
async def test_what_is_no_id_is_not_found(api: Api, name: str) -> None:
    assert_problem(await api.operator.get(f"/v1/commands/{name}"), 404, "not_found")
