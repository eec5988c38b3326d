"""The language and the rules of the marketplace: pure; no I/O, no clock, no await, no randomness.

Start with command.py (what a command is), then book.py (what a rule may read and change) and any mechanism, say nft.py.
"""

from importlib import import_module
from pkgutil import iter_modules

# Declaring a command class makes its kind known, so every module of the language is read.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
