"""`python -m tests.mutants.run [M3 M7 …]`: which check notices each mutant; status 1 when one survives.

Works on a copy of the working tree, with this interpreter and its packages. Every check is run on the copy as it is
first: one that fails there proves nothing about a mutant. `--campaign` runs the campaigns of faults too.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from tests.mutants.mutants import MUTANTS, Mutant

PROJECT = Path(__file__).parents[2]
CHECKS_SECONDS = 600
CAMPAIGN_SEED = 8
PACKAGES = ("commands", "storage", "workers", "api", "loadtest", "souk", "souk_client", "tests")

_WHERE = f"import sys, importlib; print(*(importlib.import_module(name).__file__ for name in {PACKAGES}), sep='\\n')"
_FAILED = re.compile(r"^(?:FAILED|ERROR) \S*::(.*)$", re.MULTILINE)
"""The name of a test and why it failed."""
_COMPLAINTS = (
    *("lost", "failed", "told", "doubled", "out of order", "not linear", "fences", "two writers"),
    *("recovery", "the audit"),
)
"""How a campaign's problems begin."""
_ALL_PASSED, _SOME_FAILED = 0, 1
"""Statuses of pytest; all others say that it could not do its work."""


class Verdict(NamedTuple):
    """What found the mutant; nothing when it survived. `void` is why the checks prove nothing, if they do not."""

    caught_by: Sequence[str] = ()
    void: str = ""


class Copy:
    """A copy of the project, in which a mutant can be applied and taken back."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        names = subprocess.run(listing, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            if (PROJECT / name).is_file():
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, directory / name)
        # Bytecode is kept by time and size, which a patch may leave as they were.
        self._environment = os.environ | {
            "PYTHONPATH": f"{directory}{os.pathsep}{directory / 'client'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "160",
        }
        self._environment.pop("PYTEST_ADDOPTS", None)

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        originals = {patch.file: (self.directory / patch.file).read_text() for patch in mutant.patches}
        try:
            for patch in mutant.patches:
                patch.apply(self.directory)
            yield
        finally:
            for name, text in originals.items():
                (self.directory / name).write_text(text)

    def python(self, *arguments: str, seconds: float) -> tuple[int, str]:
        """The status and output of Python in the copy, with all that it started ended."""
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.directory,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                status = -1
                os.killpg(process.pid, signal.SIGINT)  # pytest then ends its servers
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
            output.seek(0)
            return status, output.read().decode(errors="replace")

    def prove_that_it_is_what_runs(self) -> None:
        status, said = self.python("-c", _WHERE, seconds=60)
        strangers = [line for line in said.split() if not Path(line).is_relative_to(self.directory)]
        if status or strangers:
            sys.exit(f"The copy is not what would be tested:\n{said}")

    def pytest(self, checks: Sequence[str]) -> tuple[int, str]:
        options = ("-q", "-p", "no:cacheprovider", "--tb=line", "--no-header")
        return self.python("-m", "pytest", *options, *checks, seconds=CHECKS_SECONDS)

    def campaign(self, seconds: int) -> tuple[int, str]:
        options = ("--seconds", str(seconds), "--seed", str(CAMPAIGN_SEED))
        return self.python("-m", "loadtest", "faults", *options, seconds=seconds + CHECKS_SECONDS)


def judge(copy: Copy, mutant: Mutant, *, campaign: bool) -> Verdict:
    """Which of the mutant's checks find it."""
    with copy.mutated(mutant):
        status, said = copy.pytest(mutant.checks)
        caught_by = list(dict.fromkeys(_FAILED.findall(said)))
        if status not in (_ALL_PASSED, _SOME_FAILED) or (status and not caught_by):
            return Verdict(void=f"pytest ended with status {status}:\n{said[-2_000:]}")
        if campaign and mutant.seconds:
            status, said = copy.campaign(mutant.seconds)
            complaint = next((line for line in said.splitlines() if line.startswith(_COMPLAINTS)), "it ended early")
            if status:
                caught_by.append(f"the campaign: {complaint.strip()}")
    return Verdict(caught_by)


def main() -> int:
    """Judge the mutants named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__)
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument("mutants", nargs="*", metavar="M1", help=f"of {', '.join(names)}; all when none is named")
    parser.add_argument("--campaign", action="store_true", help="run the campaigns of faults too")
    options = parser.parse_args()
    if unknown := set(options.mutants) - set(names):
        parser.error(f"no such mutants: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not options.mutants or mutant.name in options.mutants]
    survived = 0
    with tempfile.TemporaryDirectory(prefix="souk-mutants-") as directory:
        copy = Copy(Path(directory))
        copy.prove_that_it_is_what_runs()
        status, said = copy.pytest(list(dict.fromkeys(check for mutant in chosen for check in mutant.checks)))
        if options.campaign and not status and (seconds := max(mutant.seconds or 0 for mutant in chosen)):
            status, said = copy.campaign(seconds)
        if status:
            sys.exit(f"The checks fail without any mutant:\n{said[-4_000:]}")
        for mutant in chosen:
            began = monotonic()
            verdict = judge(copy, mutant, campaign=options.campaign)
            survived += not verdict.caught_by
            found = "\n      ".join(verdict.caught_by) or verdict.void or "SURVIVED"
            sys.stdout.write(
                f"{mutant.name:5} without {mutant.without}\n      {found}  ({monotonic() - began:.0f} s)\n"
            )
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - survived} of {len(chosen)} mutants are caught.\n")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
