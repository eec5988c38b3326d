"""A job before, during and after its execution, as arq's own client tells of it; with results kept and without."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus, ResultNotFound, SerializationError
from cryptography.fernet import Fernet
from pydantic import SecretStr

from storage.redis.queue import connect_redis
from tests.deadline import eventually
from tests.installation import Installer
from tests.market import buy, fund, receive, register, set_price
from tests.system.site import STOP_SECONDS, Site, account_locked, end, site_of, until_waiting

SELLER, BUYER, POOR, DOOMED = 1, 2, 3, 666
RESULTS_SECONDS = 60
SECRET = "correct horse battery staple"
BUGS = f"""
    CREATE FUNCTION bug() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'a bug of ours' USING ERRCODE = '23514'; END $$;
    CREATE TRIGGER bug BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.id = {DOOMED}) EXECUTE FUNCTION bug();
"""


@pytest.fixture(scope="module", params=[None, RESULTS_SECONDS], ids=["nothing kept", "results kept"])
async def site(
    request: pytest.FixtureRequest, installer: Installer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """An API, three users and an item; workers are of the tests."""
    kept: dict[str, Any] = {} if request.param is None else {"arq_results_seconds": request.param}
    key = SecretStr(Fernet.generate_key().decode())
    settings = await installer.install(partitions=8, secret_key=key, **kept)
    async with site_of(settings, tmp_path_factory.mktemp("arq")) as site:
        await site.start_api()
        worker = site.start_worker()
        await site.succeed([register(user) for user in (SELLER, BUYER, POOR)])
        await site.succeed([fund(BUYER), receive(17, SELLER), receive(18, SELLER)])
        end(worker, signal.SIGTERM)
        yield site


@pytest.fixture
async def arq(site: Site) -> AsyncIterator[ArqRedis]:
    redis = connect_redis(site.settings)
    await redis.flushdb()
    yield redis
    await redis.aclose()


def job_of(arq: ArqRedis, receipt: dict[str, Any]) -> Job:
    tag = f"{{p{receipt['partition']:03d}}}"
    return Job(f"{tag}:{receipt['id']}", arq, _queue_name=f"arq:queue:{tag}", _deserializer=json.loads)


async def listed(arq: ArqRedis, receipt: dict[str, Any]) -> bool:
    """Whether it is among the queued jobs of its partition."""
    jobs = await arq.queued_jobs(queue_name=f"arq:queue:{{p{receipt['partition']:03d}}}")
    return receipt["id"] in [job.args[0] for job in jobs]


async def until(job: Job, *statuses: JobStatus) -> None:
    async def has() -> bool:
        return await job.status() in statuses

    await eventually(has, STOP_SECONDS, f"the job is never {statuses}")


async def test_a_job_is_queued_then_in_progress_then_done(site: Site, arq: ArqRedis) -> None:
    [receipt] = await site.submit([set_price(SELLER, 17)])
    [sale] = await site.submit([buy(BUYER, 17)])
    job = job_of(arq, sale)
    await until(job, JobStatus.queued)
    before = await job.info()
    assert before is not None
    assert (before.function, list(before.args), before.kwargs) == ("execute", [sale["id"]], {})
    assert before.score is not None
    assert await listed(arq, sale)

    async with account_locked(site, BUYER):
        worker = site.start_worker()
        await until_waiting(site)
        await until(job, JobStatus.in_progress)
        assert await listed(arq, sale)
        assert (await job.info()) == before
        await asyncio.sleep(3)  # longer than it is said for
        assert await job.status() is JobStatus.in_progress, "it is said once, and forgotten while the batch goes on"
    kept = site.settings.arq_results_seconds is not None
    await until(job, JobStatus.complete if kept else JobStatus.not_found)
    assert not await listed(arq, sale)
    final = (await site.client.get(f"/v1/commands/{sale['id']}")).json()
    assert final["status"] == "succeeded"
    if kept:
        assert await job.result(timeout=1) == {name: final[name] for name in ("status", "result", "rejection")}
        info = await job.result_info()
        assert info is not None
        assert (info.success, info.score) == (True, None)
        assert info.enqueue_time <= info.start_time < info.finish_time
        assert {one.args[0] for one in await arq.all_job_results()} == {receipt["id"], sale["id"]}
    else:
        assert await job.info() is None
        with pytest.raises(ResultNotFound):
            await job.result(timeout=1)
    assert await arq.keys("arq:in-progress:*") == []
    end(worker, signal.SIGTERM)


async def test_who_waits_for_a_result_gets_the_outcome_where_it_is_kept(site: Site, arq: ArqRedis) -> None:
    [doomed] = await site.submit([register(DOOMED)])
    [refused] = await site.submit([buy(POOR, 18)])
    [priced] = await site.submit([set_price(SELLER, 18)])
    jobs = [job_of(arq, receipt) for receipt in (refused, priced, doomed)]
    for job in jobs:
        await until(job, JobStatus.queued)
    waiting = [asyncio.create_task(job.result(timeout=STOP_SECONDS, poll_delay=0.05)) for job in jobs]
    await site.value("SELECT 1")
    assert site._connection is not None
    await site._connection.execute(BUGS)
    try:
        worker = site.start_worker()
        refusal, price, failure = await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        await site._connection.execute("DROP FUNCTION bug CASCADE")
    end(worker, signal.SIGTERM)
    assert site.output("redrive", doomed["id"])
    if site.settings.arq_results_seconds is None:
        assert [type(one) for one in (refusal, price, failure)] == [ResultNotFound] * 3
        return
    assert isinstance(refusal, dict)
    assert (refusal["status"], refusal["result"], refusal["rejection"]["code"]) == ("rejected", None, "NFT_NOT_ON_SALE")
    assert isinstance(price, dict)
    assert price["status"] == "succeeded"
    assert isinstance(failure, SerializationError)
    assert f"the command {doomed['id']} is set aside as failed" in str(failure)
    info = await jobs[2].result_info()
    assert info is not None
    assert (info.success, "a bug of ours" in info.result) == (False, False)
    worker = site.start_worker()

    async def succeeded() -> bool:
        info = await jobs[2].result_info()
        return info is not None and info.success

    await eventually(succeeded, STOP_SECONDS, "the result of its first failure stays")
    end(worker, signal.SIGTERM)


async def test_a_cancelled_command_leaves_no_job(site: Site, arq: ArqRedis) -> None:
    [receipt] = await site.submit([register(50)])
    job = job_of(arq, receipt)
    await until(job, JobStatus.queued)
    assert (await site.client.delete(f"/v1/commands/{receipt['id']}")).status_code == 200
    if site.settings.arq_results_seconds is None:
        await until(job, JobStatus.not_found)
    else:
        await until(job, JobStatus.complete)
        assert await job.result(timeout=1) == {"status": "cancelled", "result": None, "rejection": None}
    assert not await listed(arq, receipt)


async def test_a_command_for_later_has_a_job_when_it_is_due(site: Site, arq: ArqRedis) -> None:
    [later] = await site.submit([register(51) | {"run_at": "2099-01-01T00:00:00Z"}])
    [soon] = await site.submit([register(51)])
    await until(job_of(arq, soon), JobStatus.queued)
    assert await job_of(arq, later).status() is JobStatus.not_found
    assert not await listed(arq, later)
    async with account_locked(site, 51):
        worker = site.start_worker()
        await site.rows(f"UPDATE commands SET run_at = now() WHERE id = '{UUID(later['id'])}'")
        done = JobStatus.not_found if site.settings.arq_results_seconds is None else JobStatus.complete
        await until(job_of(arq, soon), done)
        await eventually(site.all_are_finished)
        await until(job_of(arq, later), done)
    end(worker, signal.SIGTERM)


async def test_neither_a_job_nor_a_result_tells_a_secret(site: Site, arq: ArqRedis) -> None:
    """A password that Redis has is one for all who may look at the queues."""
    worker = site.start_worker()
    connect = {"kind": "accounts.connect", "actor": SELLER, "payload": {"phone": "+15550100"}}
    [connected] = await site.submit([connect], wait=30)
    told = {"account_id": connected["id"], "code": "13579", "password": SECRET, "name": "main"}
    [approved] = await site.submit([{"kind": "accounts.approve", "actor": SELLER, "payload": told}], wait=30)
    assert approved["status"] in {"succeeded", "rejected"}
    kept = [await arq.get(key) for key in await arq.keys("arq:*:{*}:*")]
    assert site.settings.arq_results_seconds is None or any(approved["id"].encode() in value for value in kept)
    assert not any(SECRET.encode() in value for value in kept)
    end(worker, signal.SIGTERM)
