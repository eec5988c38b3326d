"""A stand-in for Redis where there is none: fakeredis's TCP server.

It is run as `python -P fake_redis.py PORT_FILE` and keeps nothing on disk. PORT_FILE holds the port, so
that clients find it again after a restart.
"""

import signal
import sys
import threading
from pathlib import Path

from fakeredis import TcpFakeServer


def main() -> None:
    port_file = Path(sys.argv[1])
    wanted = int(port_file.read_text()) if port_file.exists() else 0
    try:
        server = TcpFakeServer(("127.0.0.1", wanted), server_version=(6, 2))
    except OSError:  # taken meanwhile
        server = TcpFakeServer(("127.0.0.1", 0), server_version=(6, 2))
    server.daemon_threads = True
    fresh = port_file.with_suffix(".new")
    fresh.write_text(str(server.server_address[1]))
    fresh.replace(port_file)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
