"""The operator as a process: leads by a Lease, then watches, works and serves until it is told to stop.

A standby serves too, so that its probes answer, but it is not ready: machines that ask it what to boot are told to
ask again. Where the fleet is divided into shards nobody stands by: every operator watches and serves, and acts on the
machines of the shards that it holds.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import secrets as random_secrets
import signal
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from rackwright import handlers, server
from rackwright.agent.api import AgentAPI
from rackwright.agent.sessions import Sessions
from rackwright.agent.tokens import KEY_BYTES, Tokens
from rackwright.api.image import OperatingSystemImageSpec
from rackwright.api.machine import Phase
from rackwright.assignment import Plan
from rackwright.bmcs import BMCs, at_rarest
from rackwright.cache import Cache
from rackwright.census import EXPECTED, Census
from rackwright.directions import Directions
from rackwright.enlist import Enlister, EnlistmentSettings
from rackwright.events import Events
from rackwright.execute import MACHINES, Executor, Means
from rackwright.fence import fenced
from rackwright.install import phone_home
from rackwright.install.phone_home import PhoneHome
from rackwright.installs import UNLIMITED, Capacity
from rackwright.kube import SILENCE_SECONDS, Cluster, ClusterError, Conflict, Refused, Unidentified, connected
from rackwright.lease import Terms
from rackwright.lifecycle.world import Policy
from rackwright.metrics import Metrics
from rackwright.metrics.requests import traced
from rackwright.netboot.api import BootScripts
from rackwright.netboot.files import Files
from rackwright.netboot.script import RamdiskSettings
from rackwright.observe import Observer, over_the_network
from rackwright.power.address import SIMULATED
from rackwright.power.connect import DRIVERS, Connections, Factory
from rackwright.power.metered import metered
from rackwright.power.port import DEFAULT_LIMITS, Limits
from rackwright.queue import WorkQueue
from rackwright.reconcile import PROGRESS_SECONDS, Reconciler
from rackwright.record import Key, Machine
from rackwright.recorded import FirstBoots, Recorded
from rackwright.secrets import Secrets
from rackwright.shards import Shards
from rackwright.simulated.machine import Network
from rackwright.simulated.simulation import Simulation

IMAGES = "operatingsystemimages"
TOKENS_SECRET = "rackwright-tokens"  # noqa: S105 (a name)
TOKENS_KEY = "key"
RESYNC_SECONDS = 300.0
RETRY_SECONDS = 2.0
"""After which the API server is asked again for what nothing goes on without."""
WORKERS, BMC_CONCURRENCY = 64, 32
GARBAGE = 50_000, 20, 50
"""New objects before a collection, and collections before a greater one. Nearly nothing of ours is a cycle, and what
lives, lives long: Python's own numbers are for smaller programs, and took a sixth of the time of a busy operator."""
HANDOVER_SECONDS = 1.0
"""How long another operator is kept waiting for BMCs to answer, and for our sessions with them to end."""
SPARED_SECONDS = Terms().duration
"""How long another operator leaves a BMC alone that had not answered by then: as long as after we were killed."""
LEAVE_SECONDS = 10.0
"""How long what is being done to the machines of a shard that goes to another operator may go on."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How this operator was started."""

    base_url: str
    http_host: str
    http_port: int
    namespace: str
    ramdisk: RamdiskSettings
    folders: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """URL path → folders whose files the HTTP server offers there."""
    workers: int = WORKERS
    bmc_concurrency: int = BMC_CONCURRENCY
    bmc_calls_per_second: float | None = None
    """None: as many as can go on at once."""
    grace: float = 60.0
    capacity: Capacity = UNLIMITED
    """How many machines may install at once."""
    policy: Policy = field(default_factory=Policy)
    enlistment: EnlistmentSettings | None = None
    """None: machines that nobody declared are left alone."""
    limits: Limits = DEFAULT_LIMITS
    progress: float = PROGRESS_SECONDS
    """Seconds for which progress within a step needn't be shown."""
    silence: float = SILENCE_SECONDS
    """Seconds of silence after which a watch is begun anew."""
    plan: Plan = field(default_factory=Plan)
    """The shards of the fleet, and which of them are this operator's to take."""
    own_url: str | None = None
    """Where machines reach this very operator; None: at `base_url`."""
    resync: float = RESYNC_SECONDS
    """Seconds between two listings of everything, for watches that say something, but not all."""
    allow_simulated: bool = False
    """Whether `simulated://` machines are spoken to."""
    expected: Mapping[Phase, timedelta] = field(default_factory=lambda: EXPECTED)
    """How long a machine is expected to be in a phase."""


class Operator:
    """Everything that one process runs, wired together."""

    def __init__(self, cluster: Cluster, tokens: Tokens, settings: Settings, shards: Shards, metrics: Metrics) -> None:
        self._cluster = cluster
        self._settings = settings
        self._shards = shards
        self._synced = False
        self._listed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._metrics = metrics
        self._cache = Cache(settings.capacity, Census(settings.expected))
        if not shards.alone:
            self._cache.installs.divide(settings.plan.shards, shards.of, shards.held)
        self._queue: WorkQueue[Key] = WorkQueue(lane=self._cache.lane, under_way=self._cache.under_way)
        self._sessions = Sessions()
        rarest = at_rarest(settings.policy.poll).total_seconds()
        self._secrets = Secrets(cluster, self._secret_changed, at_rarest=rarest)
        self._simulation = Simulation(self._cache.with_uid, tokens) if settings.allow_simulated else None
        self._connections = Connections(
            concurrency=settings.bmc_concurrency,
            per_second=settings.bmc_calls_per_second,
            limits=settings.limits,
            drivers=metered(_drivers(self._simulation), metrics.bmc_call),
        )
        self._bmcs = BMCs(self._connections, self._secrets)
        self._observer = Observer(
            cluster=cluster,
            cache=self._cache,
            bmcs=self._bmcs,
            secrets=self._secrets,
            sessions=self._sessions,
            tokens=tokens,
            policy=settings.policy,
            agents=self._simulation.agent if self._simulation is not None else over_the_network,
        )
        executor = Executor(
            cluster=cluster,
            bmcs=self._bmcs,
            sessions=self._sessions,
            tokens=tokens,
            observer=self._observer,
            means=Means(settings.base_url, settings.grace),
        )
        events = Events(cluster, socket.gethostname())
        self._reconciler = Reconciler(
            cluster=cluster,
            cache=self._cache,
            queue=self._queue,
            observer=self._observer,
            executor=executor,
            events=events,
            jurisdiction=shards.jurisdiction,
            shared=not shards.alone,
            progress_seconds=settings.progress,
            metrics=metrics,
        )
        self._first_boots = FirstBoots(self._cache, tokens, self._reported)
        metrics.shows(
            census=self._cache.census,
            new_machines=self._cache.new_machines,
            installations=self._cache.installs.counts,
            exchanges=self._connections.exchanges,
            queued=lambda: len(self._queue),
            waiting=self._reconciler.waiting,
            workers=settings.workers,
            shards=settings.plan.shards,
            held=lambda: len(shards.held()),
        )
        self._enlister = None
        if settings.enlistment is not None:
            self._enlister = Enlister(
                settings=settings.enlistment,
                cluster=cluster,
                cache=self._cache,
                observer=self._observer,
                events=events,
                metrics=self._metrics,
                seen=self._reconciler.seen,
                wake=self._reconciler.wake,
                may_act=shards.holds,
            )
        self._directions = Directions(
            shards=shards,
            cache=self._cache,
            cluster=cluster,
            reconciler=self._reconciler,
            url=settings.own_url or settings.base_url,
        )
        self._agents = AgentAPI(
            boots=self._cache,
            sessions=self._sessions,
            tokens=tokens,
            wake=self._reconciler.wake,
            persisted=Recorded(self._cache).inspection,
            strangers=self._enlister,
            guide=self._directions.guide,
        )
        self._scripts = BootScripts(
            boots=self._cache,
            settings=settings.ramdisk,
            unready=self._unready,
            strangers=self._enlister,
            fresh=self._directions.fresh,
        )
        if self._simulation is not None:
            self._simulation.plug_into(Network(self._scripts, self._agents, self._first_boots))

    async def run(self, stop: asyncio.Event) -> None:
        """Serve, stand by, lead; return when told to stop or when leadership was lost."""
        async with server.listening(self._web(), self._settings.http_host, self._settings.http_port):
            try:
                await _first(stop.wait(), self._shards.stand_by())
                if not stop.is_set():
                    with fenced(self._shards.holds_any):
                        await self._lead(stop)
            finally:
                with fenced(self._shards.holds_any):
                    unanswered = await self._connections.close(within=HANDOVER_SECONDS)
                if unanswered:
                    _log.warning("left unanswered by %s", ", ".join(sorted(unanswered)))
                await self._shards.release(unanswered)
                if self._simulation is not None:
                    self._simulation.close()
                await self._secrets.close()
                if self._watching is not None:
                    await asyncio.gather(self._watching, return_exceptions=True)

    async def _lead(self, stop: asyncio.Event) -> None:
        """Act until told to stop or until something fails; nothing acts any more by then.

        The watches may take a while longer to end. They do nothing, and another operator needn't wait for them.
        """
        stop_watching = asyncio.Event()
        self._watching = asyncio.create_task(self._watch(stop, stop_watching))
        acting = [
            asyncio.create_task(task)
            for task in (
                stop.wait(),
                self._shards.keep(self._taken, self._leave),
                self._resync(),
                self._queue.run_timers(),
                *([self._enlister.tell()] if self._enlister is not None else []),
            )
        ]
        tasks = [*acting, self._watching]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                ended = (t.exception() for t in tasks if t.done() and not t.cancelled())
                failed = next((error for error in ended if error is not None), None)
                _log.error("stopping: %s", _innermost(failed) or "leadership was lost, or the watches ended")
                _log.debug("stopping", exc_info=failed)
        finally:
            self._shards.withdraw(*self._shards.held())  # nothing more is asked, also by threads that can't be ended
            stop_watching.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*acting, return_exceptions=True)

    def _taken(self, shard: int) -> None:
        """Look at every machine of a shard that is ours now, and at those that install with its part of the slots."""
        self._connections.spare(self._shards.unfinished(shard), SPARED_SECONDS)
        for key in {machine.key for machine in self._machines_of(shard)} | self._cache.installs.called():
            self._queue.wake(key)

    async def _leave(self, shard: int) -> Collection[str]:
        """Let what is being done to a shard's machines come to an end, and leave them to another operator.

        The BMCs that have not answered by then.
        """
        machines = self._machines_of(shard)
        keys = [machine.key for machine in machines]
        if not await self._reconciler.quiet(keys, within=LEAVE_SECONDS):
            self._shards.withdraw(shard)
            await self._reconciler.quiet(keys, within=HANDOVER_SECONDS)
        unanswered = self._bmcs.busy(machines)
        with fenced(self._shards.mandate(shard)):
            for machine in machines:
                self._reconciler.leave(machine)
            await self._connections.closed(within=HANDOVER_SECONDS)
        return unanswered

    def _machines_of(self, shard: int) -> list[Machine]:
        known = (self._cache.get(key) for key in self._cache)
        return [machine for machine in known if machine is not None and self._shards.of(machine) == shard]

    async def _watch(self, stop: asyncio.Event, stop_watching: asyncio.Event) -> None:
        """Watch, from the first listing on: kopf looks once for the kinds that it is to watch."""
        await self._listed.wait()
        await handlers.watch(
            machine=self._machine,
            image=self._image,
            stop=stop_watching,
            started=partial(_catch_signals, stop),
            silence=self._settings.silence,
        )

    async def _resync(self) -> None:
        """List everything at the start and every few minutes: watches may leave something out without a word."""
        async with asyncio.TaskGroup() as workers:
            while True:
                try:
                    await self._list()
                except ClusterError as error:
                    _log.warning("%s; listing again in a moment", error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                if not self._synced:
                    self._synced = True
                    self._observer.listens()
                    self._listed.set()
                    _log.info("ready: %d machines", sum(1 for _ in self._cache))
                    for _ in range(self._settings.workers):
                        workers.create_task(self._reconciler.work())
                await asyncio.sleep(self._settings.resync)

    async def _list(self) -> None:
        known, images = self._cache.memory(), self._cache.image_names()
        async for item in self._cluster.listed(IMAGES):
            name = item["metadata"]["name"]
            self._image(item, deleted=False, known=known.images.get(name))
            images.discard(name)
        for name in images:  # known before, and not listed now
            self._image({"metadata": {"name": name}}, deleted=True, known=known.images.get(name))
        there: set[str] = set()
        async for item in self._cluster.listed(MACHINES):
            uid = item["metadata"]["uid"]
            if uid in known.deleted:
                self._cache.undelete(uid)
            self._metrics.told(item, listed=True)
            self._reconciler.seen_after(known.machines.get(Key.of(item["metadata"])), item, listed=True)
            there.add(uid)
        gone = {revision.uid for revision in known.machines.values()} - there  # one that came meanwhile isn't
        for key in self._cache:
            machine = self._cache.get(key)
            if machine is not None and machine.uid in gone:
                self._reconciler.gone(machine)
            else:
                self._queue.rouse(key)

    def _reported(self, uid: str, report: PhoneHome) -> None:
        self._observer.reported(uid, report)
        self._reconciler.wake(uid)

    def _secret_changed(self, uid: str) -> None:
        self._reconciler.hurry(uid)

    def _machine(self, item: Mapping[str, Any], deleted: bool) -> None:
        self._metrics.told(item, listed=False)
        self._reconciler.seen(item, deleted=deleted)

    def _image(self, item: Mapping[str, Any], deleted: bool, known: int | None = None) -> None:
        name = item["metadata"]["name"]
        try:
            image = None if deleted else OperatingSystemImageSpec.model_validate(item.get("spec") or {})
        except ValueError:
            _log.error("the OperatingSystemImage %s can't be read and is left out", name)
            image = None
        version = item["metadata"].get("resourceVersion")
        for key in self._cache.put_image(name, image, None if version is None else int(version), known):
            self._reconciler.image_changed(key)

    def _unready(self) -> str | None:
        if self._shards.alone and not self._shards.holds():
            return "standing by: another operator leads"
        return None if self._synced else "starting: machines are being listed"

    def _web(self) -> Any:
        return server.build(
            agent=self._agents,
            scripts=self._scripts,
            files=Files(self._settings.folders),
            unready=self._unready,
            guide=self._directions.guide,
            extra=[phone_home.route(self._first_boots), *self._metrics.routes()],
        )


def _drivers(simulation: Simulation | None) -> Mapping[str, Factory]:
    """The driver for each scheme."""
    return DRIVERS if simulation is None else {**DRIVERS, SIMULATED: simulation.driver}


async def run(settings: Settings) -> int:
    """The whole life of the process; its exit code."""
    gc.set_threshold(*GARBAGE)
    have_all_descriptors()
    stop = asyncio.Event()
    _catch_signals(stop)
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        cluster = await stack.enter_async_context(connected(trace=traced(metrics.request)))
        tokens = Tokens(await _token_key(cluster, settings, stop))
        identity = f"{socket.gethostname()}-{os.getpid()}-{random_secrets.token_hex(4)}"
        url = settings.own_url or settings.base_url
        shards = Shards(cluster, settings.namespace, identity, settings.plan, url)
        await Operator(cluster, tokens, settings, shards, metrics).run(stop)
    return 0 if stop.is_set() else 1


def have_all_descriptors() -> None:
    """Raise the limit of open files as far as that is allowed.

    Its usual value, 1,024, is for programs that wait by `select`. Where hundreds of BMCs hang, each with a connection,
    those that answer would get none.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _catch_signals(stop: asyncio.Event) -> None:
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)


async def _token_key(cluster: Cluster, settings: Settings, stop: asyncio.Event) -> bytes:
    """The key that tokens are derived from, as soon as it can be had.

    Probes are answered meanwhile: the kubelet would end a process for nothing that this one can help, and begin it
    again ever more rarely.
    """
    async with AsyncExitStack() as waiting:
        listens = False
        while True:
            try:
                return await _stored_key(cluster, settings.namespace)
            except ClusterError as error:
                _log.warning("%s%s; again in %g s", error, _remedy(error, settings.namespace), RETRY_SECONDS)
            if not listens:
                web = server.waiting("starting: the key that tokens are derived from can't be read yet")
                await waiting.enter_async_context(server.listening(web, settings.http_host, settings.http_port))
                listens = True
            await _first(stop.wait(), asyncio.sleep(RETRY_SECONDS))
            if stop.is_set():
                raise SystemExit(0)


async def _stored_key(cluster: Cluster, namespace: str) -> bytes:
    """The key as the cluster has it, made by the first operator that ever runs here."""
    while (secret := await cluster.secret(namespace, TOKENS_SECRET)) is None:
        with suppress(Conflict):  # another made it
            await cluster.create_secret(namespace, TOKENS_SECRET, {TOKENS_KEY: random_secrets.token_bytes(KEY_BYTES)})
    if TOKENS_KEY not in secret.data:
        raise ValueError(
            f"the Secret {namespace}/{TOKENS_SECRET} has no {TOKENS_KEY!r}: delete it, and a new one is made"
        )
    return secret.data[TOKENS_KEY]


def _remedy(error: ClusterError, namespace: str) -> str:
    """What a person has to do about it, to follow the error in a sentence; empty where it may end by itself."""
    match error:
        case Refused():
            return (
                f": the operator's ServiceAccount lacks the Role rackwright-operator in the namespace {namespace}"
                " (get the Secret rackwright-tokens, create Secrets): apply manifests/base/rbac.yaml there"
            )
        case Unidentified():
            return (
                ": the API server doesn't know who asks: the Pod needs a token of its ServiceAccount, mounted as in"
                " manifests/base/deployment.yaml, or KUBECONFIG one that is valid"
            )
        case _:
            return ""


def _innermost(error: BaseException | None) -> str:
    """What has really failed, in a line; empty for nothing."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if error is not None else ""


async def _first(*awaitables: Any) -> None:
    """Return when one of them is done, or raise what it raised; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
