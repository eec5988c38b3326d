"""What the load goes to: a running installation, or a stack started for the purpose and stopped after it."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from souk_client import Client, Unreachable

READY_SECONDS = 90
STOP_SECONDS = 30
PROBE_SECONDS = 2.0
SOUK = (sys.executable, str(Path(__file__).parents[1] / "souk.py"))
"""The command line of the code beside this package, whatever folders there are in the current directory."""
SERVERS = ("SOUK_DATABASE_URL", "SOUK_REDIS_URL")


class StackFailed(Exception):
    """There is nothing to load: not reachable, not started, or no key for it."""


@dataclass(frozen=True)
class Target:
    """An installation. `environment` names its servers where they are known: `SOUK_DATABASE_URL`, `SOUK_REDIS_URL`."""

    url: str
    key: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What `souk audit` says. `held` is None when it could not be asked."""

    held: bool | None
    lines: tuple[str, ...] = ()


@asynccontextmanager
async def target(
    url: str | None, key: str | None, data_dir: Path, settings: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Target]:
    """The installation that is named or running on `data_dir`, else one of our own with these settings, unless the
    environment has others. Raises StackFailed."""
    known = _stack_file(data_dir)
    servers = {name: os.environ.get(name) or known.get(name, "") for name in SERVERS}
    servers = {name: value for name, value in servers.items() if value}
    found = url or known.get("SOUK_URL")
    if found:
        key_file = data_dir / "operator.key"
        key = key or (key_file.read_text().strip() if key_file.exists() else "")
        if await _reachable(found):
            if not key:
                message = f"no key for {found}: give --key or SOUK_API_KEY, or the --data-dir of its stack"
                raise StackFailed(message)
            yield Target(found, key, servers)
            return
        if url:
            message = f"nothing answers at {url}"
            raise StackFailed(message)
    async with own_stack(settings=settings) as stack:
        yield stack


@asynccontextmanager
async def own_stack(workers: int = 2, settings: Mapping[str, str] = MappingProxyType({})) -> AsyncIterator[Target]:
    """`souk up` with embedded servers in a directory of its own, both gone afterwards. Raises StackFailed."""
    with tempfile.TemporaryDirectory(prefix="souk-load-", ignore_cleanup_errors=True) as directory:
        data_dir = Path(directory)
        log = data_dir / "up.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(*SOUK, "up", "--data-dir", directory),
                *("--port", "0", "--workers", str(workers)),
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={**settings, **{name: os.environ[name] for name in os.environ.keys() - {*SERVERS, "SOUK_URL"}}},
            )
        drain: asyncio.Task[None] | None = None
        try:
            url = await _ready(process, log)
            drain = asyncio.create_task(_drain(process))
            servers = {name: value for name, value in _stack_file(data_dir).items() if name in SERVERS}
            yield Target(url, (data_dir / "operator.key").read_text().strip(), servers)
        finally:
            await _stop(process)
            if drain is not None:
                await drain


async def audit(environment: Mapping[str, str]) -> Verdict:
    """Runs `souk audit` on the installation's database; not at all when that is unknown."""
    if "SOUK_DATABASE_URL" not in environment:
        return Verdict(None, ("no SOUK_DATABASE_URL: the audit was not run",))
    process = await asyncio.create_subprocess_exec(
        *(*SOUK, "audit", "--table"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    output, _ = await process.communicate()
    return Verdict(process.returncode == 0, tuple(output.decode(errors="replace").splitlines()))


def _stack_file(data_dir: Path) -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads((data_dir / "stack.json").read_text())
    except (OSError, ValueError):
        return {}
    return known


async def _reachable(url: str) -> bool:
    try:
        async with Client(url, "") as client:
            answer = await client.request("GET", "/healthz", timeout_seconds=PROBE_SECONDS)
    except Unreachable:
        return False
    return answer.status == 200  # noqa: PLR2004


async def _ready(process: asyncio.subprocess.Process, log: Path) -> str:
    """The address in the line that says so."""
    assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
    try:
        async with asyncio.timeout(READY_SECONDS):
            async for line in process.stdout:
                if line.startswith(b"ready: "):
                    return line.removeprefix(b"ready: ").decode().strip()
            reason = f"it ended with status {await process.wait()}"
    except TimeoutError:
        reason = f"it was not ready after {READY_SECONDS} s"
    message = f"souk up did not start: {reason}\n{_tail(log)}"
    raise StackFailed(message)


async def _drain(process: asyncio.subprocess.Process) -> None:
    """What it still says must be read, or it stops at a full pipe."""
    assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
    while await process.stdout.read(65536):
        pass


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
