"""Becomes a server process that outlives nobody: `launch.py PARENT_PID UID GID ORPHAN_SIGNAL COMMAND…`.

A program of its own, run with `python -I -S`, because code between fork and exec is unsafe in a process with threads,
and because the order matters: changing the uid clears the parent-death signal, so it is set last.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, uid, gid, orphan_signal = map(int, sys.argv[1:5])
    if os.geteuid() != uid:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, orphan_signal)
        if os.getppid() != parent:  # it died before it could be watched
            sys.exit(1)
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
