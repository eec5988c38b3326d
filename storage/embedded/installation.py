"""An installation as the command line finds it: brought up in a data directory, or known from there."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from storage.embedded import stack
from storage.keys import Role, create_key
from storage.postgres import schema
from storage.postgres.connection import engine as make_engine
from storage.settings import Settings, load_settings

_LEADING_THERE = ("database_url", "redis_url", "partitions")


@contextmanager
def brought_up(data_dir: Path, host: str, port: int, workers: int, partitions: int) -> Iterator[stack.Processes]:
    """The whole stack, ready: servers, schema, the operator's key, processes. Raises StackError, EmbeddedError."""
    port = stack.free_port(host, port)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.setdefault("SOUK_PARTITIONS", str(partitions))
    with stack.servers(data_dir.resolve()) as found:
        key_file = stack.operator_key_file(data_dir)
        key = found.outlast(lambda: asyncio.run(_prepare(found, with_key=not key_file.exists())))
        if key is not None:
            stack.write_private(key_file, key + "\n")
        with stack.Processes(data_dir, found, host, port, workers) as processes:
            yield processes


async def _prepare(found: stack.Servers, *, with_key: bool) -> str | None:
    """Migrates; a new operator's key, if there is to be one."""
    settings = load_settings(database_url=SecretStr(found.database_url), redis_url=SecretStr(found.redis_url))
    engine = make_engine(settings)
    try:
        await schema.migrate(engine, settings)
        return (await create_key(engine, Role.OPERATOR))[1] if with_key else None
    finally:
        await engine.dispose()


def settings_of(data_dir: Path) -> Settings:
    """The settings of the environment, else of the stack running in the data directory. Raises StackError, and
    SettingsError."""
    known = {name.removeprefix("SOUK_").lower(): value for name, value in stack.running(data_dir).items()}
    missing = {
        name: known[name] for name in _LEADING_THERE if name in known and f"SOUK_{name.upper()}" not in os.environ
    }
    if not missing and "SOUK_DATABASE_URL" not in os.environ and not Path(".env").exists():
        message = f"set SOUK_DATABASE_URL, or name the --data-dir of a running stack (none runs in {data_dir})"
        raise stack.StackError(message)
    return load_settings(**missing)
