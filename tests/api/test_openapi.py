"""The description says what there is: every route, kind and code, and what answers look like; and /docs shows it."""

import ast
import re
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import jsonschema_rs
import pytest

from api.openapi.document import build, operations
from api.openapi.operation import operation_of
from api.problems import PROBLEMS
from api.views import READS
from api.views.reads import Audience
from commands.command import KINDS, Sender
from commands.outcome import Code
from commands.terms import Integration
from storage.settings import load_settings
from tests.api.api import Api, running
from tests.api.bazaar import ALICE, BOB, CAROL, CHANNEL, UNLISTED_CHANNEL, Bazaar
from tests.api.wire import VALID
from tests.deploy.test_docs import PROJECT
from tests.installation import Installer
from tests.market import TON

Document = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
async def document(api: Api) -> Document:
    response = await api.anonymous.get("/openapi.json")
    assert response.status_code == 200
    described: Document = response.json()
    return described


@pytest.fixture(scope="module")
async def sold(installer: Installer) -> AsyncIterator[Bazaar]:
    """A bazaar in which a channel is sold too, and another market is known."""
    other = Integration(id="tonnel", title="Tonnel", logo="tonnel.svg")
    async with running(await installer.install(integrations=(other,))) as api:
        bazaar = Bazaar(api)
        await bazaar.open()
        purchase_id = await bazaar.sell_channel()
        await bazaar.do("channels.buy_confirm", channel_id=CHANNEL, purchase_id=purchase_id)
        await bazaar.do("channels.set_price", ALICE, channel_id=UNLISTED_CHANNEL, price_nano=TON)
        yield bazaar


def schema_of(document: Document, schema: Any) -> jsonschema_rs.Draft202012Validator:
    """Of a part of the document, which may refer to its components."""
    return jsonschema_rs.Draft202012Validator(
        {"$ref": "#/wanted", "wanted": schema, "components": document["components"]}, validate_formats=True
    )


def answered(document: Document, path: str, status: int = 200, method: str = "get") -> Any:
    [content] = document["paths"][path][method]["responses"][str(status)]["content"].values()
    return content["schema"]


def parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from parts(part)


# -- all that there is


async def test_every_route_is_described_and_what_is_described_exists(api: Api, document: Document) -> None:
    undescribed = [route for route in api.app.routes if operation_of(route) is None]
    assert undescribed == []
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == {(path, method) for path, method, _ in operations(api.app.routes)}
    assert all(operation.summary for _, _, operation in operations(api.app.routes))
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


async def test_every_kind_is_described_with_who_may_send_it(document: Document) -> None:
    schemas = document["components"]["schemas"]
    command = schemas["Command"]
    assert set(command["discriminator"]["mapping"]) == set(KINDS)
    for kind, reference in command["discriminator"]["mapping"].items():
        assert {"$ref": reference} in command["oneOf"]
        body = schemas[kind]
        assert body["properties"]["kind"] == {"const": kind}
        assert ("user" in body["x-roles"]) == (Sender.USER in KINDS[kind].sent_by), kind
        assert body["description"]


@pytest.mark.parametrize("kind", VALID)
async def test_a_valid_payload_is_valid_by_its_schema(document: Document, kind: str) -> None:
    whole = schema_of(document, {"$ref": "#/components/schemas/Command"})
    assert list(whole.iter_errors({"kind": kind, "payload": VALID[kind]})) == []
    assert not whole.is_valid({"kind": kind, "payload": VALID[kind] | {"surprise": 1}})
    assert not whole.is_valid({"kind": kind})
    assert not whole.is_valid({"kind": kind, "payload": VALID[kind], "actor": 0})


async def test_prices_are_bounded_by_the_terms(document: Document) -> None:
    price = document["components"]["schemas"]["nft.buy"]["properties"]["payload"]["properties"]["price_nano"]
    assert (price["type"], price["format"]) == ("integer", "int64")
    assert (price["minimum"], price["maximum"]) == (TON // 100, 100_000 * TON)


async def test_every_code_is_there_with_what_it_says(document: Document) -> None:
    rejection, problem = (document["components"]["schemas"][name] for name in ("RejectionCode", "ProblemCode"))
    assert rejection["enum"] == [code.name for code in Code]
    assert all(code.value in rejection["description"] for code in Code)
    assert problem["enum"] == list(PROBLEMS)


async def test_problems_are_those_that_are_raised() -> None:
    raised = set()
    for path in (PROJECT / "api").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                status, code = (part.value if isinstance(part, ast.Constant) else None for part in node.args[:2])
                if isinstance(code, str) and isinstance(status, int):
                    raised.add((code, status))
    assert raised == {(code, status) for code, (status, _) in PROBLEMS.items() if code != "method_not_allowed"}


# -- what answers look like


PATHS = {
    "/nfts/{nft_id}": {"nft_id": "3"},
    "/gifts/{gift_id}": {"gift_id": "1"},
    "/gifts/{gift_id}/deals": {"gift_id": "7"},
    "/accounts/{id}": {"id": "account"},
    "/accounts/{id}/channels": {"id": "account"},
    "/offers/{id}": {"id": "offer"},
    "/presales/{id}": {"id": "presale"},
    "/auctions/{id}": {"id": "auction"},
    "/auctions/{id}/bids": {"id": "auction"},
    "/trades/{id}": {"id": "trade"},
    "/channels/{id}": {"id": str(UNLISTED_CHANNEL)},
}
QUERIES: dict[str, list[dict[str, Any]]] = {
    "/floor": [{"collection": "Swiss Watch", "model": "Gold"}, {"collection": "Swiss Watch"}, {"collection": "X"}],
    "/charts": [{"collection": "Swiss Watch", "model": "Gold"}, {"collection": "X", "days": 30}],
    "/users/me/topup": [{}, {"amount_nano": TON}],
    "/offers": [{"state": ["open", "refused"]}],
    "/ops/deposits": [{"state": ["unclaimed", "credited"]}],
    "/trades/{id}": [{}, {"proposal_id": "proposal"}],
}


@pytest.mark.parametrize(("path", "audience"), [(path, audience) for path, audience, _ in READS])
async def test_what_a_read_answers_is_what_is_described(
    sold: Bazaar, document: Document, path: str, audience: Audience
) -> None:
    schema = schema_of(document, answered(document, f"/v1{path}"))
    ids = {name: sold.ids.get(value, value) for name, value in PATHS.get(path, {}).items()}
    seen = 0
    for user_id in (ALICE, BOB, CAROL) if audience is Audience.MINE else (ALICE, None):
        for query in QUERIES.get(path, [{}]):
            named = {name: sold.ids.get(str(value), value) for name, value in query.items()}
            actor = {} if user_id is None else {"actor": user_id}
            response = await sold.api.operator.get(f"/v1{path.format(**ids)}", params=named | actor)
            if response.status_code == 404 and audience is Audience.MINE:
                continue
            assert response.status_code == 200, response.text
            assert list(schema.iter_errors(response.json())) == [], path
            seen += len(response.json().get("items", [1]))
    assert seen or path == "/auctions/deals", "nothing was looked at"  # these are like those of channels


async def test_what_commands_are_answered_with_is_what_is_described(api: Api, document: Document) -> None:
    """Accepted, replayed, listed, final in each way that there is, and refused."""
    first = await api.operator.post("/v1/commands", json={"kind": "users.register", "payload": {"user_id": 77}})
    assert list(schema_of(document, answered(document, "/v1/commands", 202, "post")).iter_errors(first.json())) == []
    register = {"kind": "users.register", "payload": {"user_id": 78}}
    refused = {"kind": "nft.buy", "actor": 78, "payload": {"nft_id": "5", "price_nano": TON}}
    receipts = await api.settle([register, refused])
    assert [receipt["status"] for receipt in receipts] == ["succeeded", "rejected"]
    receipt = schema_of(document, answered(document, "/v1/commands/{id}"))
    assert [list(receipt.iter_errors(each)) for each in receipts] == [[], []]
    page = (await api.operator.get("/v1/commands", params={"actor": 78})).json()
    assert page["items"]
    assert list(schema_of(document, answered(document, "/v1/commands")).iter_errors(page)) == []
    batch = (await api.operator.post("/v1/commands/batch", json={"commands": [register, {}]})).json()
    assert list(schema_of(document, answered(document, "/v1/commands/batch", 202, "post")).iter_errors(batch)) == []


async def test_problems_are_what_is_described(api: Api, document: Document) -> None:
    command = "/v1/commands"
    answers = [
        await api.operator.post(command, json={}),
        await api.operator.post(command, content=b"{", headers={"Content-Type": "application/json"}),
        await api.operator.post(command, content=b"{}"),
        await api.anonymous.post(command, json={}),
    ]
    for answer in answers:
        described = document["paths"][command]["post"]["responses"][str(answer.status_code)]
        schema = described["content"]["application/problem+json"]["schema"]
        assert list(schema_of(document, schema).iter_errors(answer.json())) == []
        assert {name.lower() for name in described.get("headers", {})} <= answer.headers.keys()


async def test_every_example_is_valid(document: Document) -> None:
    looked_at = 0
    for part in parts(document["paths"]):
        if isinstance(part, dict) and "schema" in part and ("example" in part or "examples" in part):
            examples = [part["example"]] if "example" in part else [each["value"] for each in part["examples"].values()]
            for example in examples:
                looked_at += 1
                assert list(schema_of(document, part["schema"]).iter_errors(example)) == []
    for header in document["components"]["headers"].values():
        assert schema_of(document, header["schema"]).is_valid(header["example"])
    assert looked_at > 2 * len(KINDS)


async def test_the_document_is_one_of_openapi_3_1(document: Document) -> None:
    assert document["openapi"] == "3.1.0"
    assert [server["url"] for server in document["servers"]] == ["/"]
    references = {
        part["$ref"] for part in parts(document) if isinstance(part, dict) and isinstance(part.get("$ref"), str)
    }
    for reference in references:
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    used = {reference.rpartition("/")[2] for reference in references if "/schemas/" in reference}
    assert set(document["components"]["schemas"]) == used, "a component that nothing refers to"
    for path, methods in document["paths"].items():
        names = re.findall(r"{(\w+)}", path)
        for method, operation in methods.items():
            assert method in METHODS
            declared = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"]
            assert sorted(declared) == sorted(names), path
            assert operation["tags"][0] in {tag["name"] for tag in document["tags"]}


async def test_bounds_are_those_of_the_settings(api: Api) -> None:
    settings = load_settings(**dict(api.settings) | {"submission_batch_max": 7, "price_max_nano": 5 * TON})
    narrow = build(api.app.routes, settings)
    body = narrow["paths"]["/v1/commands/batch"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["commands"]["maxItems"] == 7
    payload = narrow["components"]["schemas"]["nft.buy"]["properties"]["payload"]
    assert payload["properties"]["price_nano"]["maximum"] == 5 * TON


# -- for people


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = ""
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "style")]
        assert not any(name.startswith("on") for name, _ in attrs)
        self._in_script = tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        self.inline += data.strip() if self._in_script else ""


async def test_the_page_refers_to_nothing_but_our_own_paths(api: Api) -> None:
    page = await api.anonymous.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    links = Links()
    links.feed(page.text)
    assert links.inline == ""
    assert links.found
    for link in links.found:
        assert re.fullmatch(r"docs/[\w.-]+", link), link
        found = await api.anonymous.get(f"/{link}")
        assert (found.status_code, len(found.content) > 0) == (200, True)
    start = (await api.anonymous.get("/docs/start.js")).text
    assert re.findall(r'url: "(.*)"', start) == ["openapi.json"]
    assert "//" not in start
    style = (await api.anonymous.get("/docs/swagger-ui.css")).text
    assert all(url.startswith("data:") for url in re.findall(r"url\([\"']?([^\"')]+)", style))


async def test_the_pages_policy_lets_no_other_origin_in(api: Api) -> None:
    for path in ("/docs", "/docs/start.js"):
        policy = (await api.anonymous.get(path)).headers["content-security-policy"]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        assert {source for sources in rules.values() for source in sources.split()} == {"'none'", "'self'", "data:"}


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/swagger-ui-bundle.js"])
async def test_what_a_reader_has_already_is_not_sent_again(api: Api, path: str) -> None:
    first = await api.anonymous.get(path)
    again = await api.anonymous.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert "cache-control" in again.headers


@pytest.mark.parametrize("name", ["LICENSE", "swagger-ui.js", "..%2f__init__.py", "index.html", "%00"])
async def test_no_other_file_is_served(api: Api, name: str) -> None:
    response: httpx.Response = await api.anonymous.get(f"/docs/{name}")
    assert response.status_code == 404
