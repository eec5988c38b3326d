"""The mutants fit the code as it is now, so that the table of them cannot rot. `make mutants` runs them."""

import ast
from pathlib import Path

import pytest

from tests.mutants.mutants import MUTANTS, Mutant

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_can_be_made_of_the_code(mutant: Mutant, tmp_path: Path) -> None:
    for name in {patch.file for patch in mutant.patches}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((PROJECT / name).read_text())
    for patch in mutant.patches:
        patch.apply(tmp_path)
        ast.parse((tmp_path / patch.file).read_text())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_checks_of_a_mutant_exist(mutant: Mutant) -> None:
    for check in mutant.checks:
        file, _, name = check.partition("::")
        tree = ast.parse((PROJECT / file).read_text())
        tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert not name or name in tests


def test_there_are_the_fifteen_of_the_catalogue() -> None:
    assert {f"M{number}" for number in range(1, 16)} <= {mutant.name for mutant in MUTANTS}
