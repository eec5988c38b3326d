"""A worker that does not come back in time, once: `python -m tests.system.dozing HOW SECONDS`.

Between its last statement and its COMMIT it is stopped (`stopped`), as a machine under a debugger or a hypervisor is,
or its event loop does nothing for so long (`blocked`), as in a long collection of garbage.
"""

import os
import signal
import sys
import time

from storage.journal.unit_of_work import UnitOfWork
from storage.settings import load_settings
from workers.worker import SoukWorker

_commit = UnitOfWork.commit
_BUSY_COMMITS = 5


class _Doze:
    def __init__(self, how: str, seconds: float) -> None:
        self._how = how
        self._seconds = seconds
        self._commits = 0

    async def commit(self, work: UnitOfWork) -> None:
        self._commits += 1
        if self._commits == _BUSY_COMMITS:
            sys.stderr.write("dozing\n")
            sys.stderr.flush()
            if self._how == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            else:
                time.sleep(self._seconds)  # noqa: ASYNC251 - the point
        await _commit(work)


if __name__ == "__main__":
    doze = _Doze(sys.argv[1], float(sys.argv[2]))
    UnitOfWork.commit = lambda work: doze.commit(work)  # type: ignore[method-assign, assignment]  # noqa: PLW0108 - a method
    SoukWorker(load_settings()).run()
