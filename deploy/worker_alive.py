"""Exit status 0 if a worker of this host is alive by its own record in PostgreSQL: what the health check of a container
asks where `arq --check` says no, which it also does while Redis is away."""

import asyncio
import os
import socket
import sys

import asyncpg

ALIVE = "SELECT EXISTS (SELECT 1 FROM workers WHERE split_part(id, ':', 1) = $1 AND alive_until > clock_timestamp())"
TIMEOUT_SECONDS = 5


async def alive() -> bool:
    connection = await asyncpg.connect(os.environ["SOUK_DATABASE_URL"], timeout=TIMEOUT_SECONDS)
    try:
        return bool(await connection.fetchval(ALIVE, socket.gethostname(), timeout=TIMEOUT_SECONDS))
    finally:
        await connection.close()


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(alive()) else 1)
