"""Acknowledged is committed."""

import asyncio

from tests.api.api import running
from tests.commits import commits_held
from tests.installation import Installer
from tests.market import register

PATIENCE_SECONDS = 0.5
"""Less than accepting may take."""


async def test_nothing_is_acknowledged_before_it_is_committed(installer: Installer) -> None:
    async with running(await installer.install()) as api:
        for number, many in enumerate((False, True)):
            path, body = "/v1/commands", register(number + 1)
            async with commits_held(api.settings, "INSERT") as until_held:
                asking = asyncio.create_task(
                    api.operator.post(f"{path}/batch", json={"commands": [body]})
                    if many
                    else api.operator.post(path, json=body)
                )
                await until_held()
                answered, _ = await asyncio.wait([asking], timeout=PATIENCE_SECONDS)
                assert not answered, "acknowledged, and not committed"
            assert (await asking).status_code == 202
            assert await api.count() == number + 1
