"""The reference of commands and codes names what there is, all of it."""

import re
from pathlib import Path

from commands.command import KINDS
from commands.outcome import Code

PROJECT = Path(__file__).parents[2]
REFERENCE = (PROJECT / "docs" / "commands.md").read_text()


def test_every_kind_is_documented_with_its_fields() -> None:
    documented = dict(re.findall(r"^\| `([a-z_.]+)`[ ◇]*\| [a-z, ]+ \| ([^|]*) \|", REFERENCE, re.MULTILINE))
    ours = {kind: command for kind, command in KINDS.items() if not kind.startswith("test.")}
    assert documented.keys() == ours.keys()
    for kind, command in ours.items():
        fields = [f"{name}?" if not field.is_required() else name for name, field in command.model_fields.items()]
        assert documented[kind] == (", ".join(fields) or "\N{EN DASH}"), kind


def test_every_rejection_code_is_documented_in_its_order() -> None:
    assert re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", REFERENCE, re.MULTILINE) == [
        (code.name, code.value) for code in Code
    ]
