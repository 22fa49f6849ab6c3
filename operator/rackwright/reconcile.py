"""The loop: observe, decide, then either record what is meant to be done or do it.

A pass writes status at most once, and never acts before the intent is in status: if the decision announces something
new, the pass writes it and ends, and the next one, which starts from what is observed again, acts. A crash anywhere
is a pass that didn't happen.

Each write has a reason, and a machine's way into the pool has six, two of which are Events:

- the finalizer, before anything is done to a machine that somebody may delete meanwhile (`TakeHold`);
- the attempt and its first step, before the BMC hears of it: a crash must not leave a boot that nobody asked for;
- the HardwareInventory, before the agent is thanked, who never sends its report again (`KeepInventory`);
- the end, and an Event for each phase that it came to.

That the ramdisk is done with goes along with the end: a crash in those seconds boots it once more (`Advance`). A
deployment has two more steps, and the annotation that a backup keeps (`RecordEvidence`). How an attempt gets on
within a step is no reason: it goes along with the next write, or has one of its own once it has been so for a while.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from time import monotonic
from typing import Any, assert_never

from rackwright import fence, journal
from rackwright.api import SHARDED_BY_ANNOTATION
from rackwright.api.machine import BareMetalMachineStatus
from rackwright.cache import Cache
from rackwright.events import Events
from rackwright.execute import MACHINES, AskedToShutDown, Executor, NotNow
from rackwright.fence import Fenced, fenced
from rackwright.kube import Cluster, ClusterError, Conflict, Gone
from rackwright.lanes import ON_BEHALF_OF
from rackwright.lifecycle.decide import Decision, after_asking, after_fault, after_refusal, decide
from rackwright.lifecycle.steps import Action, LetGo
from rackwright.lifecycle.world import Blame, Fault, World
from rackwright.logs import Line
from rackwright.metrics import Metrics, Result
from rackwright.observe import Observer
from rackwright.queue import WorkQueue
from rackwright.record import Key, Machine, Revision
from rackwright.shards import Jurisdiction, Ours, Theirs, ToBeMoved
from rackwright.status_patch import status_patch

CONFLICT_SECONDS = 0.2
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 60.0
FENCED_SECONDS = 1.0
PROGRESS_SECONDS = 30.0
"""How long progress within a step may go unrecorded: a boot into memory that takes less is never told of by itself."""
PATIENCE_SECONDS = 2.0
"""How long a worker stays with a pass: most take milliseconds, and an honest BMC's answer less than this."""
MOST_SLOW = 2048
"""Passes that go on without a worker: each costs some 40 KiB, and a fleet whose BMCs are all away has many."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Progress:
    """What status doesn't say yet."""

    since: float
    """By the monotonic clock."""
    status: BareMetalMachineStatus
    """As it would have been, had it been recorded then."""


class Reconciler:
    """Works through the queue with a bounded pool of workers.

    `jurisdiction` is asked before a pass whether the machine is ours at all; its mandate is the fence around the pass.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        cache: Cache,
        queue: WorkQueue[Key],
        observer: Observer,
        executor: Executor,
        events: Events,
        jurisdiction: Callable[[Machine], Jurisdiction],
        shared: bool = False,
        progress_seconds: float = PROGRESS_SECONDS,
        patience: float = PATIENCE_SECONDS,
        metrics: Metrics | None = None,
    ) -> None:
        """Without `metrics` nobody reads what is counted. `shared`: other operators act on machines known here."""
        self._cluster = cluster
        self._cache = cache
        self._queue = queue
        self._observer = observer
        self._executor = executor
        self._events = events
        self._jurisdiction = jurisdiction
        self._shared = shared
        self._progress_seconds = progress_seconds
        self._metrics = metrics if metrics is not None else Metrics()
        self._progress: dict[str, _Progress] = {}
        """What isn't recorded yet, by machine uid."""
        self._slow = 0
        """How many passes go on without a worker."""
        self._patience = patience
        self._writing: set[Key] = set()
        """Whose status is being written."""
        self._hurry: set[str] = set()
        self._failures: dict[Key, int] = {}
        self._under_way: dict[Key, asyncio.Event] = {}
        """Passes, and what is set when each has ended."""
        self._theirs: set[str] = set()
        """Machines that another operator acts on, by uid: what they told so far, they told that one."""
        self._caught_up_with: set[str] = set()
        """Machines, by uid, whose record is known to be as new as whatever another operator wrote of them."""

    # --- what wakes a machine ------------------------------------------------------------------------------------

    def seen(self, item: Mapping[str, Any], *, deleted: bool = False, listed: bool = False) -> None:
        """A watch or a listing brought a machine; one that was merely listed can wait for those that are heard of."""
        try:
            if not deleted and self._cache.has(item["metadata"]):
                return  # an echo of what was written, or a listing: most of what comes, and dear to read
            machine = Machine.read(item, self._cache.get(Key.of(item["metadata"])))
        except Exception as error:  # noqa: BLE001 (one record that can't be read must not stop the others)
            key = Key.of(item["metadata"])
            reason = error if isinstance(error, ValueError) else f"{key} can't be read: {type(error).__name__}"
            _log.error(Line(f"{reason}; it is left alone until it can be", machine=key))
            if (known := self._cache.get(key)) is not None:
                self.leave(known)  # to act upon what it was before would be to act upon the past
            machine = Machine.unread(item)  # its claims stay, or another record would act on its machine
        if deleted:
            self.gone(machine)
            return
        before, affected = self._cache.get(machine.key), self._cache.put(machine)
        if affected and machine.readable and not isinstance(self._jurisdiction(machine), Theirs):
            self._metrics.seen(before, machine)
        if before is not None and affected and before.uid != machine.uid:
            self._forget(before)  # it was made anew under its name, and the news of its end may never come
        for key in affected:
            self._queue.wake(key, can_wait=listed)

    def seen_after(self, known: Revision | None, item: Mapping[str, Any], *, listed: bool = False) -> None:
        """Take in what was asked for when `known` was known already.

        The API server answers with what it has by then. If that is older all the same, its store was restored from a
        backup: to hold on to what was known would be to write upon what isn't there, and to act upon it. All that is
        known of the machine is forgotten then, as by an operator that was started anew.
        """
        uid, version = item["metadata"]["uid"], int(item["metadata"]["resourceVersion"])
        machine = self._cache.get(Key.of(item["metadata"]))
        if known is not None and version < known.version and machine is not None and machine.revision == known:
            _log.warning(Line("its record is older than it was: the API server's store went back", machine=machine.key))
            self.gone(machine, deleted=False)
            self._cache.undelete(uid)
            self._observer.listens_to(uid)
        self.seen(item, listed=listed)

    def gone(self, machine: Machine, *, deleted: bool = True) -> None:
        """A machine's record has vanished; the news may come when another one has its name already.

        One that merely can't be read, and isn't deleted, may come back.
        """
        self._forget(machine)
        present = self._cache.get(machine.key)
        if present is None or present.uid == machine.uid:
            self._queue.forget(machine.key)
            self._failures.pop(machine.key, None)
        for key in self._cache.remove(machine.key, machine.uid, deleted=deleted):
            self._queue.wake(key)

    def wake(self, uid: str) -> None:
        """Something was heard of this machine."""
        machine = self._cache.with_uid(uid)
        if machine is not None:
            self._queue.wake(machine.key)

    def leave(self, machine: Machine) -> None:
        """Another operator acts on it from now on: all that is known of it beside its record is that one's business."""
        self._forget(machine)
        self._queue.forget(machine.key)
        self._failures.pop(machine.key, None)
        self._theirs.add(machine.uid)

    async def quiet(self, keys: Collection[Key], *, within: float) -> bool:
        """Return True when no pass is under way for these machines, False when one still is after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                for key in keys:
                    if (ended := self._under_way.get(key)) is not None:
                        await ended.wait()
        return not any(key in self._under_way for key in keys)

    def _forget(self, machine: Machine) -> None:
        self._theirs.discard(machine.uid)
        self._caught_up_with.discard(machine.uid)
        self._hurry.discard(machine.uid)
        self._progress.pop(machine.uid, None)
        self._metrics.forget(machine.uid)
        self._observer.forget(machine)

    def hurry(self, uid: str) -> None:
        """Something that this machine's next attempt waits for has changed."""
        if self._cache.with_uid(uid) is None:
            return
        self._hurry.add(uid)
        self._observer.doubt(uid)
        self.wake(uid)

    def image_changed(self, key: Key) -> None:
        """What this machine deploys has changed: an attempt that failed for its sake isn't waited for any longer."""
        machine = self._cache.get(key)
        failure = machine.status.last_failure if machine is not None else None
        if machine is not None and failure is not None and failure.failure_class == Blame.IMAGE:
            self.hurry(machine.uid)
        else:
            self._queue.wake(key)

    # --- the workers ---------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """One worker; runs until cancelled.

        A pass that waits for a machine to shut down, or for a BMC that doesn't answer, goes on without the worker:
        those are busy with what gets on. Its key stays busy until it ends, so nobody else acts on that machine. One
        that writes keeps its worker: if the API server is slow, more who ask it would make it slower.
        """
        async with asyncio.TaskGroup() as passes:
            while True:
                key = await self._queue.get()
                with self._metrics.busy():
                    one = passes.create_task(self._one(key))
                    await asyncio.wait({one}, timeout=self._patience)
                    while not one.done() and (key in self._writing or self._slow >= MOST_SLOW):
                        await asyncio.wait({one}, timeout=self._patience)
                if not one.done():
                    self._slow += 1
                    one.add_done_callback(self._caught_up)

    def waiting(self) -> int:
        """How many passes go on without a worker."""
        return self._slow

    async def _one(self, key: Key) -> None:
        ON_BEHALF_OF.set(self._cache.lane(key))
        try:
            with self._metrics.passing() as it:
                it.result = await self._guarded(key)
        finally:
            self._queue.done(key)

    def _caught_up(self, _pass: asyncio.Task[None]) -> None:
        self._slow -= 1

    async def _guarded(self, key: Key) -> Result:
        """One pass; whatever goes wrong is a sentence in the log and another pass later."""
        ended = self._under_way[key] = asyncio.Event()
        result = Result.DONE
        try:
            delay = await self._pass(key)
        except Fenced:
            delay = FENCED_SECONDS
            _log.info(Line("stopped in the middle: another operator acts on it, or will in a moment", machine=key))
        except (Conflict, Gone) as error:
            result, delay = Result.CONFLICT, await self._read_again(key, error)
        except ClusterError as error:
            result, delay = Result.CLUSTER_ERROR, self._later(key)
            _log.warning(Line(f"{error}; again in {delay:.0f} s", machine=key))
        except Exception as error:  # noqa: BLE001 (a defect in one machine's pass must not end the worker)
            result, delay = Result.INTERNAL_ERROR, self._later(key)
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} at {where.name}:{where.lineno or 0}"
            _log.error(Line(f"internal error: {what}; again in {delay:.0f} s", machine=key))
            _log.debug(Line(machine=key), exc_info=True)
        else:
            self._failures.pop(key, None)
        finally:
            del self._under_way[key]
            ended.set()
        if delay is not None:
            self._queue.wake_after(key, delay)
        return result

    async def _read_again(self, key: Key, error: ClusterError) -> float | None:
        """Somebody wrote in between: take in what it is now, without waiting for a watch that may have stopped."""
        before = self._cache.get(key)
        try:
            item = await self._cluster.get(MACHINES, *key)
        except ClusterError:
            return self._later(key)
        if item is None:
            if (known := self._cache.get(key)) is not None:
                self.gone(known)
            return None
        if isinstance(error, Gone):
            _log.warning(Line(f"{error}; again in a moment", machine=key))  # not the machine: what belongs to it
        self.seen_after(before.revision if before is not None else None, item)
        return self._later(key, CONFLICT_SECONDS if isinstance(error, Conflict) else FIRST_RETRY_SECONDS)

    def _later(self, key: Key, first: float = FIRST_RETRY_SECONDS) -> float:
        """Seconds until the next pass after one that failed, ever more until one doesn't."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(first * 2.0 ** min(count - 1, 10), LAST_RETRY_SECONDS)
        return delay * random.uniform(0.8, 1.2)  # noqa: S311 (spreads retries, guards nothing)

    async def _pass(self, key: Key) -> float | None:
        """Observe, decide, record or act; seconds until the next look, None if there is nobody to look at."""
        machine = self._cache.get(key)
        if machine is None or not machine.readable:
            return None
        match self._jurisdiction(machine):
            case Theirs():
                if machine.uid not in self._theirs:
                    self.leave(machine)
                return None
            case ToBeMoved(shard_key, mandate):
                with fenced(mandate):
                    return await self._move(machine, shard_key)
            case Ours(mandate):
                if machine.uid in self._theirs:
                    self._theirs.discard(machine.uid)
                    self._observer.listens_to(machine.uid)
                with fenced(mandate):
                    if self._shared and machine.uid not in self._caught_up_with:
                        return await self._catch_up(machine)
                    return await self._ours(machine)
            case never:
                assert_never(never)

    async def _move(self, machine: Machine, shard_key: str) -> float:
        """Write down what puts the machine into its shard; nothing is being done to it meanwhile."""
        _log.info(Line(f"sharded by {shard_key}, before by {machine.sharded_by or 'nothing'}", machine=machine.key))
        annotations = {SHARDED_BY_ANNOTATION: shard_key}
        guard = {"uid": machine.uid, "resourceVersion": str(machine.version)}
        self.seen(await self._cluster.patch_metadata(MACHINES, *machine.key, {"annotations": annotations, **guard}))
        self._caught_up_with.add(machine.uid)
        return 0.0

    async def _catch_up(self, machine: Machine) -> float | None:
        """Read what the operator wrote last that acted on it until now: the watch may not have told of it yet.

        To act on less would be to act on what was: to switch off, as idle, a machine that is installed by now.
        """
        item = await self._cluster.get(MACHINES, *machine.key)
        fence.check()
        if item is None:
            self.gone(machine)
            return None
        self._caught_up_with.add(item["metadata"]["uid"])
        self.seen(item)
        return 0.0

    async def _ours(self, machine: Machine) -> float | None:
        hurry = machine.uid in self._hurry
        self._hurry.discard(machine.uid)
        try:
            return await self._observed(machine, hurry=hurry)
        except BaseException:
            if hurry:
                self._hurry.add(machine.uid)  # what it hurries for is still to be tried
            raise
        finally:
            if self._cache.with_uid(machine.uid) is None:  # meanwhile: nothing that this pass learnt or took may stay
                self._forget(machine)
                for key in self._cache.installs.forget(machine.uid):
                    self._queue.wake(key)

    async def _observed(self, machine: Machine, *, hurry: bool) -> float | None:
        world = await self._observer.world(machine, hurry=hurry)
        decision = decide(world)
        if not fence.open_now():
            raise Fenced  # the Lease may only be late; if another leads by now, this process ends
        if decision.announces(machine.status):
            await self._record(machine, decision)
            return 0.0
        if isinstance(decision.step, Action):
            return await self._act(machine, world, decision, decision.step)
        return await self._pause(machine, decision)

    async def _act(self, machine: Machine, world: World, decision: Decision, action: Action) -> float | None:
        _log.info(journal.begun(machine, decision, action))
        begun = monotonic()
        outcome = await self._executor.carry_out(action, machine)
        if isinstance(outcome, Fault | NotNow):
            if not fence.open_now():
                return 0.0
            # Minutes, where a BMC was waited for: the pause before the next attempt is not to be over by then.
            world = replace(world, now=world.now + timedelta(seconds=int(monotonic() - begun)))
            world = world.with_status(decision.status)  # with what wasn't worth a write of its own
            decision = after_fault(world, outcome) if isinstance(outcome, Fault) else after_refusal(world)
            return await self._pause(machine, decision)
        if isinstance(outcome, AskedToShutDown):
            await self._record(machine, after_asking(world, outcome.at))
            return 0.0
        self._metrics.acted(machine)
        await self._events.acted(machine, decision)
        if isinstance(action, LetGo):
            return None  # the watch says what becomes of it, and may have said so before this answer came
        if outcome is not None:
            self._metrics.wrote(outcome)
            self.seen(outcome)
        return 0.0

    async def _pause(self, machine: Machine, decision: Decision) -> float:
        """Record what there is to be seen meanwhile; seconds until the next look.

        Progress alone is recorded when it has been so for a while: most of it is superseded before anybody reads it.
        """
        again, before = decision.look_again.total_seconds(), machine.status
        if decision.status != before and decision.is_progress(before):
            progress = self._progress.setdefault(machine.uid, _Progress(monotonic(), decision.status))
            if (left := progress.since + self._progress_seconds - monotonic()) > 0:
                return min(again, left)
        await self._record(machine, decision)
        return again

    async def _record(self, machine: Machine, decision: Decision) -> None:
        """Write status if it differs, with the Events that tell of it."""
        progress = self._progress.pop(machine.uid, None)
        status = decision.status
        if progress is not None and progress.status.power is status.power is not machine.status.power:
            status = status.model_copy(update={"powered_at": progress.status.powered_at})  # seen then, told now
        if status == machine.status or not (changes := status_patch(machine.status, status)):
            return
        body = {"metadata": {"resourceVersion": str(machine.version), "uid": machine.uid}, "status": changes}
        self._writing.add(machine.key)
        try:
            written = await self._cluster.patch_status(MACHINES, *machine.key, body)
            if written["metadata"]["resourceVersion"] == str(machine.version):
                raise ClusterError(f"status keeps no {', '.join(changes)}: apply the CRDs of this version, crds/")
            recorded = replace(decision, status=status)
            self._metrics.recorded(machine, recorded)
            self._metrics.wrote(written)
            _log.log(*journal.recorded(machine, recorded))
            self.seen(written)
        finally:
            self._writing.discard(machine.key)
        await self._events.tell(machine, decision)
