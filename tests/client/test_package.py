"""The client is a distribution of its own: typed, documented, and light."""

import ast
import inspect
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import souk_client
from commands.command import KINDS
from souk_client import Client, SoukError, SyncClient
from tests.system.processes import PROJECT
from tests.system.upstack import put_packages_in_the_way

CLIENT = PROJECT / "client"
DISTRIBUTIONS = {
    "httpx": "httpx",
    "httpx_sse": "httpx-sse",
    "pydantic_core": "pydantic-core",
    "tenacity": "tenacity",
}
"""By the package that each brings."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for builds leave files beside what they build."""
    directory = tmp_path_factory.mktemp("wheel")
    shutil.copytree(CLIENT, directory / "client", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", *options)
    subprocess.run([*pip, "--wheel-dir", str(directory), str(directory / "client")], check=True, timeout=120)
    [built] = directory.glob("souk_client-*.whl")
    return built


def test_its_dependencies_are_what_it_imports() -> None:
    imported: set[str] = set()
    for path in (CLIENT / "souk_client").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"souk_client"}
    declared = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {DISTRIBUTIONS[name] for name in packages} == {each.partition(">=")[0] for each in declared}


def test_the_wheel_holds_its_modules_and_the_mark_that_they_are_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {f"souk_client/{path.name}" for path in (CLIENT / "souk_client").glob("*.py")}
    assert names == modules | {"souk_client/py.typed"}


def test_a_program_among_packages_named_like_the_servers_imports_it(wheel: Path, tmp_path: Path) -> None:
    put_packages_in_the_way(tmp_path)
    program = "from souk_client import Client, NoConnection, Problem, Receipt, SyncClient; print(SyncClient.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("souk_client.sync\n", "")


def test_every_error_and_every_type_of_a_signature_is_exported() -> None:
    def kinds_of(error: type[SoukError]) -> set[str]:
        return {error.__name__}.union(*(kinds_of(each) for each in error.__subclasses__()))

    exported = set(souk_client.__all__)
    assert all(hasattr(souk_client, name) for name in exported)
    assert exported >= kinds_of(SoukError)
    assert exported >= {"Answer", "Event", "Outcome", "Receipt", "Rejection", "Status", "Submission", "Transport"}


def test_every_public_method_says_what_it_does_and_the_twins_say_the_same() -> None:
    for face in (Client, SyncClient):
        for name, method in inspect.getmembers(face, inspect.isfunction):
            if not name.startswith("_"):
                assert method.__doc__, f"{face.__name__}.{name}"
                assert method.__doc__ == getattr(Client, name, method).__doc__, name


def test_no_kind_has_a_field_that_submit_takes_for_an_option() -> None:
    options = inspect.signature(Client.submit).parameters.keys()
    assert {kind: fields for kind, it in KINDS.items() if (fields := options & it.model_fields.keys())} == {}
    assert len(KINDS) > 50
