"""Couriers: they take requests to the gateway and bring the answers into the journal, whichever worker looks first.

A **trip** is for one pair of outside accounts (who acts, and the channel acted on, if any): it holds their locks and
makes the calls that are due for them, one after the other, in the order that workers/services/turns.py tells. Without
the locks, so without Redis too, no call is made and no attempt counted. A call carries a fencing token, by which a
courier that sleeps past its locks is refused. What it hears is written in one transaction with the command that it
becomes.

A definite answer ends the request. Without one it stays, and with it what its document holds: lookups go on, ever more
slowly, and an attempt is repeated only when a lookup has not seen it, or there was no connection. When no attempts are
left, `never_seen` is a definite no as soon as the last one is too old to be performed any more.
"""

import asyncio
import functools
import logging
import random
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from pydantic_core import from_json, to_json

from commands.command import Invalid
from commands.requests import RequestState
from storage.gateway.bridge import Answer, Bridge, Call, Gateway, Outcome, command_of
from storage.gateway.sandbox import Sandbox
from storage.journal.answer import Heard, entry_of, hear
from storage.postgres.connection import Line, is_weather
from storage.postgres.group_commit import Gather
from storage.redis.locks import Held, LockLost, Locks, LockTimeout, LockUnavailable
from storage.sealing import NoSecretKey, Sealer
from storage.settings import Settings
from storage.tasks import end
from workers.services.turns import STATEMENT_SECONDS, Claim, Pair, Turns

logger = logging.getLogger(__name__)

CALLS_MAX = 16
"""Calls that one worker has under way at once, each for other accounts."""

_TURN_SECONDS = 0.25
_TRIP_SECONDS = 1.0
"""After it a trip makes no further call: what is due longer for other channels of the account comes first."""
_IN_VAIN_SECONDS = 0.5
"""How long a pair of accounts is left alone that somebody else has locked, or for which it is nothing's turn."""
_LOCKS_SECONDS_MIN = 1.0
_ERASE_SECONDS = 1.0
_LAST_SECONDS = 2.0
"""How long calls under way are waited for at the end: an answer heard saves a lookup."""

_NEVER_DONE = {"ton.pay": "never_broadcast"}
"""The reason of a request that was attempted as often as it may be and never seen; else it is `refused`."""


class Couriers:
    """Those of one worker; `accepted` is told the (partition, id) of the commands that answers became."""

    def __init__(
        self, settings: Settings, locks: Locks, accepted: Callable[[Collection[tuple[int, UUID]]], None]
    ) -> None:
        self._settings = settings
        self._locks = locks
        self._accepted = accepted
        self._sealer = Sealer(settings.secret_key)
        self._gateway: Gateway = Sandbox(settings)
        if settings.gateway_url is not None and settings.gateway_secret is not None:
            secret = settings.gateway_secret.get_secret_value()
            self._gateway = Bridge(settings.gateway_url, secret, settings.gateway_timeout_seconds)
        self._turns = Turns(settings)
        self._hearing = Line(settings, "couriers", timeout_seconds=STATEMENT_SECONDS, pinned_plans=True)
        self._hears: Gather[Heard, None] = Gather(self._hear, CALLS_MAX)
        self._trips: dict[Pair, asyncio.Task[None]] = {}
        self._in_vain: dict[Pair, float] = {}
        self._locked_out = False
        self._ending = False
        self._erased_at = float("-inf")

    async def run(self) -> None:
        """Carry until cancelled."""
        try:
            await self._carry()
        finally:
            self._ending = True
            trips = list(self._trips.values())
            if trips:
                await asyncio.wait(trips, timeout=_LAST_SECONDS)
            await end(trips)
            await self._hears.close()
            for each in (self._turns, self._hearing, self._gateway):
                await each.close()

    async def _carry(self) -> None:
        while True:
            pairs: list[Pair] = []
            room = CALLS_MAX - len(self._trips)
            try:
                pairs = await self._look(min(room, 1) if self._locked_out else room)
                await self._erase()
            except Exception as error:
                if not is_weather(error):
                    raise
                logger.warning("requests are not looked for: %r", error)
                self._turns.doubt(error)
            if self._locked_out and not pairs:
                await self._look_for_redis()
            for pair in pairs:
                self._trips[pair] = trip = asyncio.create_task(self._travel(pair))
                trip.add_done_callback(functools.partial(self._back, pair))
            if self._trips and not self._locked_out:  # quick trips make room for the next at once, slow ones do not
                await asyncio.wait(list(self._trips.values()), timeout=_TURN_SECONDS)  # keep it from others
            else:
                await asyncio.sleep(_TURN_SECONDS)

    async def _look(self, count: int) -> list[Pair]:
        """Accounts that something is due for, apart from each other and from those of the trips under way."""
        if not count:
            return []
        now = time.monotonic()
        self._in_vain = {pair: until for pair, until in self._in_vain.items() if until > now}
        busy = {account for pair in self._trips for account in pair.accounts}
        pairs: list[Pair] = []
        for pair in await self._turns.look(busy, self._in_vain):
            if busy.isdisjoint(pair.accounts) and len(pairs) < count:
                pairs.append(pair)
                busy.update(pair.accounts)
        return pairs

    async def _look_for_redis(self) -> None:
        """Notices that there are locks again when others have made all calls meanwhile."""
        with suppress(LockUnavailable):
            await self._locks.ping()
            self._tell(None)

    async def _erase(self) -> None:
        if time.monotonic() > self._erased_at + _ERASE_SECONDS:
            await self._turns.erase()
            self._erased_at = time.monotonic()

    async def _travel(self, pair: Pair) -> None:
        """Make the calls that are due for the accounts, one after the other, under their locks."""
        lock_seconds = max(self._settings.lock_seconds, _LOCKS_SECONDS_MIN)
        keys = [f"outside:{account}" for account in pair.accounts]
        self._in_vain[pair] = time.monotonic() + _IN_VAIN_SECONDS
        try:
            async with self._locks.hold(*keys, lease_seconds=lock_seconds, wait_seconds=0) as held:
                self._tell(None)
                until = time.monotonic() + _TRIP_SECONDS
                while time.monotonic() < until and not self._ending:
                    held.check()
                    claim = await self._turns.claim(pair)
                    if claim is None:
                        break
                    self._in_vain.pop(pair, None)
                    await self._call(claim, held)
        except LockUnavailable as error:
            self._tell(error)
        except (LockTimeout, LockLost):
            pass  # who has them makes the calls
        except Exception as error:
            if not is_weather(error):
                raise
            logger.warning("requests are not claimed: %r", error)
            self._turns.doubt(error)

    def _back(self, pair: Pair, trip: asyncio.Task[None]) -> None:
        del self._trips[pair]
        if not trip.cancelled() and trip.exception() is not None:
            logger.error("a trip to the gateway fails", exc_info=trip.exception())

    def _tell(self, error: LockUnavailable | None) -> None:
        """Logs when calls begin and cease to wait for Redis."""
        if (error is not None) != self._locked_out:
            self._locked_out = error is not None
            if error is not None:
                logger.warning("no request goes out, for want of locks: %s", error)
            else:
                logger.warning("requests go out again")

    async def _call(self, claim: Claim, held: Held) -> None:
        began = time.monotonic()
        answer = await self._ask(claim, held)
        heard = self._judge(claim, answer, int((time.monotonic() - began) * 1000))
        try:
            await self._hears.add([heard])
        except Exception as error:
            # The lease runs out, and the next courier looks it up.
            if not is_weather(error):
                logger.exception("an answer cannot be written")
            logger.warning("an answer is not written: %r", error)
            self._hearing.doubt(error)

    async def _ask(self, claim: Claim, held: Held) -> Answer:
        """The gateway's answer. Whatever goes wrong is `unknown`; only what was not even tried was never seen."""
        not_tried = Outcome.NEVER_SEEN if claim.attempt else Outcome.UNKNOWN
        call = Call(claim.reference, claim.op, claim.pair.accounts, claim.fencing_token)
        valid = timedelta(seconds=self._settings.gateway_valid_seconds)
        try:
            body = from_json(claim.body) | (self._sealer.open(claim.secrets) if claim.secrets else {})
            held.check()
        except NoSecretKey as error:
            logger.error("%s cannot be performed: %s", claim.op, error)  # noqa: TRY400 - an operator's fault
            return Answer(not_tried, "no_secret_key")
        except LockLost:
            return Answer(not_tried, "lock_lost")
        try:
            async with asyncio.timeout(self._settings.gateway_timeout_seconds):
                if claim.attempt:
                    return await self._gateway.perform(call, body, claim.attempted_at + valid)
                return await self._gateway.lookup(call)
        except TimeoutError:
            return Answer(Outcome.UNKNOWN, "timeout")
        except Exception as error:  # noqa: BLE001 - the effect may be there, whatever our bug is
            if is_weather(error):
                logger.warning("the gateway is not heard: %r", error)
            else:  # the frames without the message: it might quote what was sent
                frames = "".join(traceback.format_tb(error.__traceback__))
                logger.error("a call of the gateway fails with %s\n%s", type(error).__name__, frames)  # noqa: TRY400
            return Answer(Outcome.UNKNOWN, "error")

    def _judge(self, claim: Claim, answer: Answer, milliseconds: int) -> Heard:
        """What the answer makes of the request."""
        reason, entry = answer.reason, None
        settles = timedelta(seconds=2 * self._settings.gateway_valid_seconds)
        state = RequestState(answer.outcome)
        if answer.outcome is Outcome.NEVER_SEEN and not claim.attempt and claim.spent and claim.age >= settles:
            reason, state = _NEVER_DONE.get(claim.op, "refused"), RequestState.REFUSED
        if state in (RequestState.DONE, RequestState.REFUSED) and claim.answers is not None:
            try:
                said = answer._replace(outcome=Outcome(state), reason=reason)
                command = command_of(claim.answers, from_json(claim.names), said)
                entry = entry_of(claim.reference, command, self._settings.partitions)
            except Invalid as error:
                logger.error("the answer to %s %s makes no command: %s", claim.op, claim.reference, error)  # noqa: TRY400
                state, reason = RequestState.UNKNOWN, "unreadable"
        if state is RequestState.NEVER_SEEN:
            pause = self._pause(claim.attempts - 1)
            if claim.spent:
                pause = max(pause, (settles - claim.age).total_seconds())
        else:
            pause = self._pause(claim.lookups)
        return Heard(
            reference=claim.reference,
            number=claim.attempts + claim.lookups,
            state=state,
            final=state in (RequestState.DONE, RequestState.REFUSED),
            answer=to_json({"outcome": state, "reason": reason, "command_id": entry and entry.id}).decode(),
            pause=pause,
            outcome=answer.outcome,
            reason=reason,
            milliseconds=milliseconds,
            entry=entry,
        )

    def _pause(self, repeats: int) -> float:
        longest = min(
            self._settings.gateway_backoff_seconds * 2.0 ** min(repeats, 30), self._settings.gateway_backoff_max_seconds
        )
        return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter

    async def _hear(self, heard: list[Heard]) -> Sequence[None]:
        """Write what the calls brought, in one transaction."""
        self._accepted(await hear(await self._hearing.connected(), heard))
        return [None] * len(heard)
