"""What arq's own command line takes: `arq workers.settings.WorkerSettings`, with `--check` for the health of this host.

Without `--check` it starts a worker of ours: arq makes a stock worker of these settings, whose hook at its start is the
whole life of a `SoukWorker`. `souk worker` is the same on a faster loop, and starts without Redis too.

The settings are made when they are asked for, so that to import this module reads and connects nothing; and nothing
that a check does not need is imported, for a container is checked again and again.
"""

import asyncio
import inspect
import signal
import socket
from typing import Any

from storage.redis.queue import WORKERS_KEY, arq_redis, deserialize, serialize
from storage.settings import load_settings
from workers.health import HEALTH_SECONDS, health_key


def __getattr__(name: str) -> Any:
    if name == "WorkerSettings":
        return worker_settings()
    raise AttributeError(name)


def worker_settings() -> dict[str, Any]:
    """As arq takes them, by the environment of this process. Raises SettingsError; and where sentinels or the nodes of
    a Cluster must be asked for the server with the health and none of them answers, what redis-py raises."""
    return {
        "functions": [execute],
        "queue_name": WORKERS_KEY,
        "redis_settings": asyncio.run(arq_redis(load_settings())),
        "job_serializer": serialize,
        "job_deserializer": deserialize,
        "health_check_interval": HEALTH_SECONDS,
        "health_check_key": health_key(socket.gethostname()),
        "on_startup": work,
    }


async def execute(ctx: dict[str, Any], command_id: str) -> str | None:
    """The job function, see `workers.worker.execute`."""
    from workers import worker  # noqa: PLC0415 - nothing for a check

    return await worker.execute(ctx, command_id)


async def work(ctx: dict[str, Any]) -> None:
    """The life of a worker of ours in the place of the stock one that calls this at its start, a burst if that is one:
    it ends when the stock one is cancelled, as signals do, and leaves it nothing to do. Raises SettingsError or
    SchemaError when the database is not for these settings."""
    from storage.postgres.connection import engine as make_engine  # noqa: PLC0415 - nothing for a check
    from storage.postgres.schema import check  # noqa: PLC0415
    from workers.worker import SoukWorker, refuse  # noqa: PLC0415

    stock = _caller()
    if stock.cron_jobs:
        refuse({"cron_jobs"})
    settings = load_settings()
    engine = make_engine(settings)
    try:
        await check(engine, settings)
    finally:
        await engine.dispose()
    ours = SoukWorker(settings, burst=stock.burst, handle_signals=False)
    stock.health_check_key = ours.health_check_key  # what the stock one deletes at its end
    running = asyncio.create_task(ours.main())
    cancelled = False
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            cancelled = True
            ours.handle_sig_wait_for_completion(signal.SIGTERM)
    await ours.close()
    running.result()
    stock.jobs_complete, stock.jobs_failed, stock.jobs_retried = ours.jobs_complete, ours.jobs_failed, ours.jobs_retried
    if cancelled:
        raise asyncio.CancelledError


def _caller() -> Any:
    """The stock worker whose `main` is the present task: arq tells its hooks nothing of it, not even whether it is a
    burst."""
    task = asyncio.current_task()
    main: Any = task and task.get_coro()
    return inspect.getcoroutinelocals(main)["self"]
