"""The reference of commands and codes names what there is, all of it."""

import re
from pathlib import Path

from commands.command import KINDS, rejection_codes
from commands.outcome import Code

PROJECT = Path(__file__).parents[2]
REFERENCE = (PROJECT / "docs" / "commands.md").read_text()


def test_every_kind_is_documented_with_its_fields_and_its_rejections() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)`[ ◇]*\| [a-z, ]+ \| ([^|]*) \| [^|]* \| ([^|]*) \|$", REFERENCE, re.MULTILINE)
    documented = {kind: (fields, codes) for kind, fields, codes in rows}
    ours = {kind: command for kind, command in KINDS.items() if not kind.startswith("test.")}
    assert documented.keys() == ours.keys()
    for kind, command in ours.items():
        fields = [f"{name}?" if not field.is_required() else name for name, field in command.model_fields.items()]
        codes = [code.name for code in rejection_codes(command)]
        assert documented[kind] == tuple(", ".join(words) or "\N{EN DASH}" for words in (fields, codes)), kind


def test_every_rejection_code_is_documented_in_its_order() -> None:
    assert re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", REFERENCE, re.MULTILINE) == [
        (code.name, code.value) for code in Code
    ]
