"""The language and the rules of the marketplace: pure; no I/O, no clock, no await, no randomness.

Start with command.py (what a command is), then book.py (what a rule may read and change) and any mechanism, say nft.py.
"""

from importlib import import_module
from pkgutil import walk_packages

# Declaring a command class makes its kind known, so every module of the language is read.
for _module in walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)
