"""Schemathesis, a stranger that knows the description alone, finds nothing to complain about."""

import asyncio
import os
import sys
from pathlib import Path

from cryptography.fernet import Fernet
from pydantic import SecretStr

from storage.keys import Role
from tests.api.bazaar import ALICE, Bazaar
from tests.api.sockets import served
from tests.installation import Installer

HERE = Path(__file__).parent
PROGRAM = Path(sys.executable).parent / "schemathesis"
SECONDS_MAX = 300
"""Far more than it takes on a machine that is not busy."""


async def test_schemathesis_finds_nothing(installer: Installer) -> None:
    """No worker runs, so nobody waits long; and what is asked of the outside is asked of nobody."""
    secret_key = SecretStr(Fernet.generate_key().decode())
    settings = await installer.install(secret_key=secret_key, wait_max_seconds=0.05)
    async with served(settings, send_buffer=None) as server:
        await Bazaar(server.api).open()
        _, user_key = await server.key_of(Role.USER, ALICE)
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *("--config-file", HERE / "schemathesis.toml", "run", "--no-color", f"{server.base_url}/openapi.json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {"SOUK_TEST_OPERATOR_KEY": server.key, "SOUK_TEST_USER_KEY": user_key},
            cwd=HERE.parents[1],
        )
        try:
            async with asyncio.timeout(SECONDS_MAX):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, output.decode()
        assert b"Coverage (in" in output
