"""The load test's own stack."""

from pathlib import Path

import pytest

from loadtest.stack import audit, own_stack
from tests.system.upstack import put_packages_in_the_way


async def test_it_starts_and_is_audited_whatever_packages_are_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_packages_in_the_way(tmp_path)
    monkeypatch.chdir(tmp_path)
    async with own_stack(workers=1) as target:
        assert (await audit(target.environment)).held
