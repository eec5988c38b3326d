"""The examples of docs/arq.md do what it says, to the letter."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.deadline import eventually
from tests.installation import Installer, as_environment
from tests.market import register
from tests.system.processes import PROJECT
from tests.system.site import Site, end, site_of

LOOK, WORK = re.findall(r"^```python\n(.*?)^```$", (PROJECT / "docs" / "arq.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
async def site(installer: Installer, tmp_path: Path) -> AsyncIterator[Site]:
    settings = await installer.install(partitions=8, arq_results_seconds=60)
    async with site_of(settings, tmp_path / "logs") as site:
        await site.start_api()
        yield site


async def output(site: Site, program: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-", *arguments),
        cwd=PROJECT,
        env=os.environ | as_environment(site.settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate(program.encode())
    assert process.returncode == 0
    return told.decode()


async def test_the_client_of_the_example_sees_the_queue_and_the_result(site: Site) -> None:
    [receipt] = await site.submit([register(1)])
    place = str(receipt["partition"]), receipt["id"]
    looking = asyncio.create_task(output(site, LOOK.replace("timeout=5", "timeout=60"), *place))
    await asyncio.sleep(0)
    worker = site.start_worker()
    told = (await looking).splitlines()
    assert told[0].startswith("waiting: [")
    assert told[-1].startswith("{'status': 'succeeded', 'result': {'user_id': 1,")
    waiting, status, result = (await output(site, LOOK, *place)).splitlines()
    assert waiting == "waiting: []"
    assert status.startswith("complete JobResult(function='execute', ")
    assert result == told[-1]
    end(worker, signal.SIGTERM)


async def test_the_stock_worker_of_the_example_works_beside_ours(site: Site) -> None:
    [receipt] = await site.submit([register(2)])

    async def final() -> dict[str, Any]:
        found: dict[str, Any] = (await site.client.get(f"/v1/commands/{receipt['id']}")).json()
        return found

    async def worked() -> bool:
        await output(site, WORK, str(receipt["partition"]))
        return bool((await final())["status"] == "succeeded")

    await eventually(worked, 60)
