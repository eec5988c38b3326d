"""The command line: exit status 0 fine, 1 refused or failed, 2 wrong usage; a sentence on stderr for what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from storage.settings import Settings
from tests.api.api import running
from tests.installation import PASSWORD, Installer, as_environment
from tests.market import TON, register
from tests.system.command_line import Done, Run, assert_one_sentence
from tests.system.processes import PROJECT
from tests.system.upstack import Up, clean_environment

COMMANDS = [
    *("up", "demo", "api", "worker", "migrate", "submit", "get", "cancel", "watch"),
    *("queues", "failed", "redrive", "repartition", "audit", "config", "keys"),
]
UNKNOWN = "0197b0c4-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
async def installed(installer: Installer) -> Settings:
    return await installer.install(partitions=8)


# -- submit and get


def test_a_command_that_succeeds_is_printed_with_status_0(on: Run) -> None:
    done = on("submit", "users.register", "user_id=9001")
    assert done.status == 0
    assert (done.json["status"], done.json["result"]["user_id"]) == ("succeeded", 9001)
    again = on("get", done.json["id"])
    assert (again.status, again.json) == (0, done.json)


def test_a_command_that_the_rules_refuse_is_printed_with_status_1(on: Run) -> None:
    done = on("submit", "nft.buy", "nft_id=404", f"price_nano={TON}", "--actor", "404")
    assert done.status == 1
    assert (done.json["status"], done.json["rejection"]["code"]) == ("rejected", "USER_NOT_FOUND")


def test_a_key_sent_twice_is_one_command(on: Run) -> None:
    first, second = (on("submit", "users.register", "user_id=9002", "--key", "once", "--wait", "0") for _ in range(2))
    assert first.json["id"] == second.json["id"]


def test_values_are_json_where_they_read_as_such_and_else_text(on: Run) -> None:
    done = on("submit", "nft.set_price", "nft_id=404", "price_nano=null", "--actor", "9003", "--wait", "0")
    assert done.status == 0
    text = on("submit", "users.register", "user_id=9004", "language=uk", "--wait", "0")
    assert text.status == 0
    quoted = on("submit", "users.register", 'user_id="9004"', "--wait", "0")
    assert_one_sentence(quoted, "invalid", "payload.user_id")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nft.burn"], ["invalid", "kind"]),
        (["nft.buy", "nft_id=1"], ["invalid", "actor"]),
        (["users.register", "user_id=1.5"], ["invalid", "payload.user_id"]),
        (["users.register", "user_id=1", "surprise=1"], ["invalid", "payload.surprise"]),
        (["nft.buy", "nft_id=1", "price_nano=1", "--actor", "1"], ["invalid", "payload.price_nano"]),
        (["users.register", "user_id=1", "--key", ""], ["invalid", "idempotency_key"]),
    ],
)
def test_a_command_that_is_not_valid_is_refused_with_its_paths(on: Run, arguments: list[str], words: list[str]) -> None:
    assert_one_sentence(on("submit", *arguments), *words)


@pytest.mark.parametrize("command_id", [UNKNOWN, "7", "not-an-id"])
def test_an_unknown_command_is_not_found(on: Run, command_id: str) -> None:
    assert_one_sentence(on("get", command_id), "not_found")


def test_without_a_stack_the_clients_say_what_is_missing(run: Run, tmp_path: Path) -> None:
    assert_one_sentence(run("submit", "users.register", "user_id=1"), "SOUK_API_KEY", ".souk")
    away = run("get", UNKNOWN, SOUK_URL="http://127.0.0.1:9", SOUK_API_KEY="souk_x_y")
    assert_one_sentence(away, "http://127.0.0.1:9")
    assert "souk_x_y" not in away.err


def test_a_wrong_key_is_refused_and_not_repeated(on: Run, stack: Up) -> None:
    done = on("get", UNKNOWN, SOUK_API_KEY="souk_secret")
    assert_one_sentence(done, "unauthenticated")
    assert "souk_secret" not in done.err


# -- the operator's


def test_the_queues_are_told_one_by_one(on: Run) -> None:
    table, rows = on("queues", "--table"), on("queues")
    assert (table.status, rows.status) == (0, 0)
    assert [row["partition"] for row in rows.json] == [0, 1, 2, 3]
    assert all(row.keys() == {"partition", "depth", "oldest_seconds", "owner", "fence"} for row in rows.json)
    assert len({row["owner"] for row in rows.json}) == 1
    assert all(row["fence"] >= 1 for row in rows.json)
    assert rows.json[0]["owner"] in table.out


@pytest.fixture(scope="module")
async def waiting(installer: Installer) -> tuple[Settings, int]:
    """An installation in which a command waits, and its partition."""
    settings = await installer.install(partitions=8)
    async with running(settings) as api:
        receipt = await api.send(register(1))
    return settings, receipt["partition"]


def test_the_queues_tell_what_waits(run: Run, waiting: tuple[Settings, int]) -> None:
    settings, partition = waiting
    rows = run("queues", "--json", **as_environment(settings)).json
    assert [row["depth"] for row in rows] == [int(number == partition) for number in range(8)]
    assert [row["oldest_seconds"] > 0 for row in rows] == [number == partition for number in range(8)]


def test_the_audit_is_told_with_a_figure_for_each_invariant(on: Run) -> None:
    table, findings = on("audit", "--table"), on("audit")
    assert (table.status, findings.status) == (0, 0)
    assert {finding["name"] for finding in findings.json} >= {"V1", "V2", "V27"}
    assert all(finding["broken"] == [] and finding["figure"] >= 0 for finding in findings.json)
    assert table.out.count("holds") >= len(findings.json)


def test_the_configuration_is_told_without_its_secrets(run: Run, stack: Up) -> None:
    redis = "redis://:canary-of-redis@127.0.0.1:1/0"
    database = f"postgresql://souk:{PASSWORD}@127.0.0.1:1/souk"
    done = run(
        "config", "--table", SOUK_DATABASE_URL=database, SOUK_REDIS_URL=redis, SOUK_LANES="3", SOUK_BATCH_MAX="77"
    )
    assert done.status == 0
    assert PASSWORD not in done.out
    assert "canary" not in done.out
    lines = {line.split("│")[1].strip(): line for line in done.out.splitlines() if "│ SOUK_" in line}
    assert lines.keys() == {f"SOUK_{name.upper()}" for name in Settings.model_fields}
    assert "***" in lines["SOUK_DATABASE_URL"]
    assert "3" in lines["SOUK_LANES"]
    assert "environment" in lines["SOUK_LANES"]
    assert "default" in lines["SOUK_PARTITIONS"]
    running = run("config", "--table", "--data-dir", str(stack.data_dir))
    assert "running stack" in running.out
    assert str(stack.data_dir) not in running.out


def test_settings_are_read_from_a_file_too_and_the_environment_goes_before(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "SOUK_DATABASE_URL=postgresql://x/y\nSOUK_REDIS_URL=redis://x\nSOUK_LANES=3\nSOUK_BATCH_MAX=77\n"
    )
    done = run("config", "--table", SOUK_LANES="4")
    lines = {line.split("│")[1].strip(): line for line in done.out.splitlines() if "│ SOUK_" in line}
    assert (" 4 " in lines["SOUK_LANES"], "environment" in lines["SOUK_LANES"]) == (True, True)
    assert (" 77 " in lines["SOUK_BATCH_MAX"], ".env" in lines["SOUK_BATCH_MAX"]) == (True, True)


@pytest.mark.parametrize("command", ["config", "migrate", "api", "worker", "up", "demo"])
def test_a_variable_that_is_no_setting_is_named_at_the_start_without_its_value(run: Run, command: str) -> None:
    """Here nothing else begins: the settings are wrong, too."""
    wrong = {"SOUK_DATABASE_URL": "mysql://x", "SOUK_REDIS_URL": "redis://x", "SOUK_LANES": "0"}
    done = run(command, SOUK_LEASE_SECOND="canary", **wrong)
    warning, error = done.err.strip().splitlines()
    assert warning == (
        "souk: warning: ignored, since there is no such setting: SOUK_LEASE_SECOND (is SOUK_LEASE_SECONDS meant?)"
    )
    assert "SOUK_LANES" in error


def test_a_key_works_until_it_is_revoked(on: Run) -> None:
    created = on("keys", "create", "--role", "user", "--user", "9005")
    assert created.status == 0
    key, key_id = created.json["key"], created.json["id"]
    sent = on("submit", "users.register", "user_id=9005", SOUK_API_KEY=key)
    assert (sent.status, sent.json["actor"]) == (0, 9005)
    assert_one_sentence(on("submit", "users.register", "user_id=9006", SOUK_API_KEY=key), "forbidden")
    listed = on("keys", "list")
    assert key not in listed.out
    assert key.rpartition("_")[2] not in listed.out
    [row] = [row for row in listed.json if row["id"] == key_id]
    assert (row["role"], row["user_id"], row["revoked_at"]) == ("user", 9005, None)
    assert on("keys", "revoke", key_id).status == 0
    assert_one_sentence(on("keys", "revoke", key_id), key_id)
    assert [row["revoked_at"] is not None for row in on("keys", "list").json if row["id"] == key_id] == [True]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["--nothing"],
        ["submit"],
        ["submit", "users.register", "user_id"],
        ["submit", "users.register", "=1"],
        ["submit", "users.register", "--wait", "31"],
        ["submit", "users.register", "--wait", "-1"],
        ["submit", "users.register", "--actor", "x"],
        ["get"],
        ["get", "1", "2"],
        ["up", "--port", "65536"],
        ["up", "--partitions", "0"],
        ["up", "--workers", "-1"],
        ["up", "--workers", "x"],
        ["demo", "--seconds", "0"],
        ["keys", "create"],
        ["keys", "create", "--role", "king"],
        ["keys", "create", "--role", "user"],
        ["keys", "create", "--role", "service", "--user", "1"],
        ["keys", "create", "--role", "user", "--user", "0"],
        ["keys", "revoke"],
    ],
)
def test_wrong_usage_has_status_2(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.status, done.out) == (2, ""), done
    assert "Usage" in done.err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["keys", "create"], ["keys", "revoke"]])
def test_help_is_everywhere(run: Run, command: list[str]) -> None:
    done = run(*command, "--help")
    assert (done.status, done.err) == (0, "")
    assert "Usage" in done.out
    if not command:
        assert all(name in done.out for name in COMMANDS)


# -- settings

WRONG = {
    "SOUK_DATABASE_URL": ["mysql://x/y", "postgresql+asyncpg://x/y", "localhost", ""],
    "SOUK_REDIS_URL": ["http://x", "localhost:6379", ""],
    "SOUK_PARTITIONS": ["0", "-1", "1000", "abc", "1.5", ""],
    "SOUK_BATCH_MAX": ["0", "5001", "many"],
    "SOUK_LANES": ["0", "17", "two"],
    "SOUK_LEASE_SECONDS": ["0", "0.4", "301", "nan", "inf", "soon"],
    "SOUK_BACKLOG_MAX": ["0", "x"],
    "SOUK_ACTOR_UNFINISHED_MAX": ["0", "x"],
    "SOUK_BODY_MAX_BYTES": ["1023", "1MiB"],
    "SOUK_SUBMISSION_BATCH_MAX": ["0", "10001"],
    "SOUK_WAIT_MAX_SECONDS": ["-1", "301"],
    "SOUK_WALLET": ["", "x" * 129],
    "SOUK_TON_NETWORK": ["", "ton"],
    "SOUK_MARKET_FEE_BP": ["10000", "-1", "1.5", "1%"],
    "SOUK_PRICE_MIN_NANO": ["0", "-1", "x"],
    "SOUK_PRICE_MAX_NANO": [str(2**53), "1e9"],
    "SOUK_DEPOSIT_MIN_NANO": ["0"],
    "SOUK_DEPOSIT_MAX_NANO": [str(2**53)],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_setting_stops_at_start_with_a_sentence_that_names_it(
    run: Run, installed: Settings, name: str, value: str
) -> None:
    assert_one_sentence(run("migrate", **as_environment(installed) | {name: value}), name)


@pytest.mark.parametrize("what", ["PRICE", "DEPOSIT"])
def test_bounds_the_wrong_way_round_stop_at_start(run: Run, installed: Settings, what: str) -> None:
    bounds = {f"SOUK_{what}_MIN_NANO": str(2 * TON), f"SOUK_{what}_MAX_NANO": str(TON)}
    assert_one_sentence(run("migrate", **as_environment(installed) | bounds), *bounds)


@pytest.mark.parametrize("missing", ["SOUK_DATABASE_URL", "SOUK_REDIS_URL"])
def test_a_missing_setting_stops_at_start(run: Run, installed: Settings, missing: str) -> None:
    environment = {name: value for name, value in as_environment(installed).items() if name != missing}
    assert_one_sentence(run("migrate", **environment), missing)


def test_other_partitions_than_installed_stop_at_start(run: Run, installed: Settings) -> None:
    done = run("migrate", **as_environment(installed) | {"SOUK_PARTITIONS": "16"})
    assert_one_sentence(done, "SOUK_PARTITIONS is 16", "SOUK_PARTITIONS=8")


def test_a_server_that_is_away_is_said_without_its_password(run: Run, installed: Settings) -> None:
    url = f"postgresql://souk:{PASSWORD}@127.0.0.1:9/souk"
    for command in ("migrate", "audit", "queues"):
        done = run(command, **as_environment(installed) | {"SOUK_DATABASE_URL": url})
        assert_one_sentence(done, "reached")
        assert PASSWORD not in done.err


def start(command: str, settings: Settings, **wrong: str) -> Done:
    """Run a process as a service manager would."""
    process = subprocess.run(
        [Path(sys.executable).with_name("souk"), command],
        cwd=PROJECT,
        env=clean_environment(**as_environment(settings) | wrong),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Done(process.returncode, process.stdout, process.stderr)


@pytest.mark.parametrize("command", ["api", "worker"])
def test_no_process_starts_with_wrong_settings(installed: Settings, command: str) -> None:
    assert_one_sentence(start(command, installed, SOUK_PARTITIONS="16"), "SOUK_PARTITIONS")


@pytest.fixture(scope="module")
async def empty(installer: Installer) -> Settings:
    return await installer.empty()


@pytest.mark.parametrize("command", ["api", "worker"])
def test_no_process_starts_on_a_database_that_was_not_migrated(empty: Settings, command: str) -> None:
    assert_one_sentence(start(command, empty), "souk migrate")
