"""Souk in a process whose clock is wrong: `python -m tests.system.skewed worker -3600`."""

import datetime as dt
import sys
import time

_OFF = dt.timedelta(seconds=float(sys.argv.pop()))
_time, _time_ns = time.time, time.time_ns


class _Skewed(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> "_Skewed":
        return super().now(tz) + _OFF


def _skewed_time() -> float:
    return _time() + _OFF.total_seconds()


def _skewed_time_ns() -> int:
    return _time_ns() + int(_OFF.total_seconds()) * 1_000_000_000


# Before anything else is imported, so that all who ask for the time are told wrong.
dt.datetime = _Skewed  # type: ignore[misc]
time.time, time.time_ns = _skewed_time, _skewed_time_ns

if __name__ == "__main__":
    import souk

    souk.main()
