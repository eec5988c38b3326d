"""A worker or an API whose clock is off: `python -m tests.system.off_clock SECONDS worker`, or `api --port N`.

Python is asked for the time by `time.time`; that nobody asks in another way is claimed by tests.workers.test_clocks.
"""

import sys
import time

_now, _now_ns = time.time, time.time_ns

if __name__ == "__main__":
    off = int(sys.argv.pop(1))
    time.time = lambda: _now() + off
    time.time_ns = lambda: _now_ns() + off * 1_000_000_000
    from souk import main

    main()
