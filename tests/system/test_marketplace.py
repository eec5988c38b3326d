"""The whole marketplace at work on real servers: every story's outcomes are foreseen, and tables and audit agree."""

import io
from collections.abc import AsyncIterator

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from rich.console import Console

from loadtest.mix import Mix, weights
from loadtest.run import Plan, RunResult, run
from loadtest.stack import Target
from loadtest.tables import MODULES
from loadtest.terms import BRISK
from tests.installation import Installer, as_environment
from tests.system.site import Site, site_of

SECONDS = 6.0


@pytest.fixture(scope="module")
async def brisk_site(installer: Installer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    terms = {name.removeprefix("SOUK_").lower(): int(value) for name, value in BRISK.items()}
    secret_key = SecretStr(Fernet.generate_key().decode())
    settings = await installer.install(partitions=8, secret_key=secret_key, **terms)
    async with site_of(settings, tmp_path_factory.mktemp("marketplace") / "logs") as site:
        for _ in range(2):
            site.start_worker()
        await site.start_api()
        yield site


async def played(site: Site, plan: Plan) -> RunResult:
    """What came of the plan; what it printed, when it was not good."""
    said = io.StringIO()
    target = Target(str(site.client.base_url).rstrip("/"), site.key, as_environment(site.settings))
    result = await run(target, plan, Console(file=said, width=120))
    assert result.good, said.getvalue()
    return result


async def test_everything_at_once_ends_as_foreseen(brisk_site: Site) -> None:
    plan = Plan(Mix.EVERYTHING, users=60, items=200, seconds=SECONDS, concurrency=32)
    result = await played(brisk_site, plan)
    assert result.figures["audit"]["held"] is True
    assert result.figures["unforeseen"] == {}
    assert result.figures["stories"]["off_script"] == []
    assert len(result.figures["stories"]["told"]) > len(weights(Mix.EVERYTHING)) / 2
    came = result.figures["tables"]["came"]
    assert set(came) == set(MODULES)
    for module in ("sales", "offers", "swaps", "presales", "withdrawals", "telegram accounts"):
        assert came[module][MODULES[module]][0] > 0, came
    kinds = result.figures["kinds"]
    assert sum(sum(outcomes.values()) for outcomes in kinds.values()) == result.figures["submitted"]


@pytest.mark.parametrize("mix", [Mix.BUY, Mix.AUCTION, Mix.OFFER, Mix.SWAP])
async def test_every_other_mix_ends_as_foreseen_too(brisk_site: Site, mix: Mix) -> None:
    """In bodies, so that the commands of one moment meet in one batch."""
    await played(brisk_site, Plan(mix, seed=2, users=60, items=400, commands=150, concurrency=4, batch=25))
