"""The Kubernetes API, as little of it as the operator needs: the only module that imports the client library.

Every call is one request with a time limit. Failures are a `ClusterError` of a kind that says what helps: reading
again (Conflict), nothing (Gone, Refused), or trying later (Unavailable). Objects are the API server's JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from rackwright import fence
from rackwright.api import GROUP, VERSION

JSON: TypeAlias = dict[str, Any]
Body: TypeAlias = Mapping[str, Any]

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
FIELD_OWNER = "rackwright"
WITHOUT_CONTENT = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""An object's metadata alone: of a Secret that is watched nothing is sent that nobody asks for."""
EVENTS = "events.k8s.io", "v1"
REQUEST_SECONDS = 30.0
EVENT_SECONDS = 3.0
"""For an Event, which is written in the middle of a pass and may be lost."""
SILENCE_SECONDS = 70.0
"""After which a watch is begun anew: API servers send a bookmark each minute, however quiet the cluster is."""
LEASE_CONNECTIONS = 4
PAGE = 100
"""Objects per page of a listing: one takes 50 KiB while it is read, so that larger pages would be a fleet's peak."""


class ClusterError(Exception):
    """The API server did not do what it was asked; the message is free of object contents."""


class Conflict(ClusterError):
    """Somebody else wrote first, or it exists already: read again."""


class Gone(ClusterError):
    """The object isn't there."""


class Refused(ClusterError):
    """The API server doesn't allow it, or finds it invalid: trying again doesn't help."""


class Unavailable(ClusterError):
    """No answer, or none that helps: try later."""


class Unidentified(Unavailable):
    """The API server doesn't know who asks: the token is no longer valid, or another cluster's."""


class Unconfigured(ClusterError):
    """Nothing says which API server to ask, or as whom: a person has to."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret as read once; never shown by repr."""

    version: str
    data: Mapping[str, bytes] = field(repr=False)


class Cluster:
    """One API server, as one ServiceAccount."""

    def __init__(self, api: client.ApiClient, *, watching: client.ApiClient, leading: client.ApiClient) -> None:
        """Watches and Leases have connections of their own: neither may wait for the other's, or for a worker's."""
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._watched = client.CoreV1Api(watching)
        self._watched_leases = client.CoordinationV1Api(watching)
        self._leases = client.CoordinationV1Api(leading)

    # --- our own kinds -----------------------------------------------------------------------------------------

    async def listed(self, plural: str) -> AsyncGenerator[JSON]:
        """Yield every object of one of our kinds, in all namespaces; no more than a page of them is in memory."""
        following: str | None = None
        while True:
            page = await _object(
                f"list {plural}",
                self._custom.list_cluster_custom_object(
                    GROUP, VERSION, plural, limit=PAGE, _continue=following, _request_timeout=REQUEST_SECONDS
                ),
            )
            for item in page.get("items") or ():
                yield item
            following = page["metadata"].get("continue")
            if not following:
                return

    async def patch_status(self, plural: str, namespace: str, name: str, body: Body) -> JSON:
        """Merge-patch an object's status; returns the object. The body's resourceVersion guards it."""
        fence.check()
        return await _object(
            f"patch the status of {namespace}/{name}",
            self._custom.patch_namespaced_custom_object_status(
                GROUP,
                VERSION,
                namespace,
                plural,
                name,
                body,
                _content_type=MERGE,
                _request_timeout=REQUEST_SECONDS,
            ),
        )

    async def patch_metadata(self, plural: str, namespace: str, name: str, metadata: Body) -> JSON:
        """Merge-patch an object's metadata; returns the object."""
        fence.check()
        return await _object(
            f"patch {namespace}/{name}",
            self._custom.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                namespace,
                plural,
                name,
                {"metadata": dict(metadata)},
                _content_type=MERGE,
                _request_timeout=REQUEST_SECONDS,
            ),
        )

    async def create(self, plural: str, namespace: str, body: Body) -> JSON:
        """Create an object; returns it. Conflict if there is one of its name."""
        fence.check()
        return await _object(
            f"create {namespace}/{body['metadata']['name']}",
            self._custom.create_namespaced_custom_object(
                GROUP, VERSION, namespace, plural, body, _request_timeout=REQUEST_SECONDS
            ),
        )

    async def apply(self, plural: str, namespace: str, name: str, body: Body) -> None:
        """Server-side apply an object as a whole."""
        fence.check()
        await _asked(
            f"apply {namespace}/{name}",
            self._custom.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                namespace,
                plural,
                name,
                body,
                field_manager=FIELD_OWNER,
                force=True,
                _content_type=APPLY,
                _request_timeout=REQUEST_SECONDS,
            ),
        )

    async def get(self, plural: str, namespace: str, name: str) -> JSON | None:
        """One object of our kinds, None if it isn't there."""
        try:
            return await _object(
                f"read {namespace}/{name}",
                self._custom.get_namespaced_custom_object(
                    GROUP, VERSION, namespace, plural, name, _request_timeout=REQUEST_SECONDS
                ),
            )
        except Gone:
            return None

    # --- Secrets -----------------------------------------------------------------------------------------------

    async def secret(self, namespace: str, name: str) -> Secret | None:
        """A Secret, None if it isn't there."""
        try:
            found = await _asked(
                f"read the Secret {namespace}/{name}",
                self._core.read_namespaced_secret(name, namespace, _request_timeout=REQUEST_SECONDS),
            )
        except Gone:
            return None
        data = {key: base64.b64decode(value) for key, value in (found.data or {}).items()}
        return Secret(str(found.metadata.resource_version), data)

    async def create_secret(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """Create a Secret; Conflict if there is one."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": FIELD_OWNER}},
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }
        await _asked(
            f"create the Secret {namespace}/{name}",
            self._core.create_namespaced_secret(namespace, body, _request_timeout=REQUEST_SECONDS),
        )

    async def secret_changes(self, namespace: str, name: str, *, seconds: int) -> AsyncGenerator[str | None]:
        """Yield one Secret's resourceVersion, the present one if it is there and each new one, for so many seconds.

        None is yielded when it is deleted. A watch that falls silent is Unavailable: there are bookmarks to be heard.
        """
        call = self._watched.list_namespaced_secret_without_preload_content(
            namespace,
            field_selector=f"metadata.name={name}",
            watch=True,
            timeout_seconds=seconds,
            allow_watch_bookmarks=True,
            _request_timeout=seconds + REQUEST_SECONDS,
            _headers={"Accept": WITHOUT_CONTENT},
        )
        async with aclosing(_events(f"watch the Secret {namespace}/{name}", call)) as events:
            async for kind, secret in events:
                yield None if kind == "DELETED" else str(secret["metadata"]["resourceVersion"])

    # --- Events and the Leases ---------------------------------------------------------------------------------

    async def create_event(self, namespace: str, body: Body) -> str:
        """Create an Event; returns its name."""
        fence.check()
        created = await _object(
            "create an Event",
            self._custom.create_namespaced_custom_object(
                *EVENTS, namespace, "events", body, _request_timeout=EVENT_SECONDS
            ),
        )
        return str(created["metadata"]["name"])

    async def patch_event(self, namespace: str, name: str, body: Body) -> None:
        """Merge-patch an Event."""
        fence.check()
        await _asked(
            "patch an Event",
            self._custom.patch_namespaced_custom_object(
                *EVENTS, namespace, "events", name, body, _content_type=MERGE, _request_timeout=EVENT_SECONDS
            ),
        )

    async def lease(self, namespace: str, name: str, *, seconds: float) -> JSON | None:
        """A Lease, None if it isn't there."""
        try:
            found = await _asked(
                f"read the Lease {namespace}/{name}",
                self._leases.read_namespaced_lease(name, namespace, _request_timeout=seconds),
            )
        except Gone:
            return None
        return self._plain(found)

    async def put_lease(self, namespace: str, name: str, body: Body, *, seconds: float) -> JSON:
        """Create a Lease, or replace the one whose resourceVersion the body holds."""
        if "resourceVersion" in body["metadata"]:
            call = self._leases.replace_namespaced_lease(name, namespace, body, _request_timeout=seconds)
        else:
            call = self._leases.create_namespaced_lease(namespace, body, _request_timeout=seconds)
        return self._plain(await _asked(f"write the Lease {namespace}/{name}", call))

    async def leases(self, namespace: str, *, seconds: float) -> list[JSON]:
        """Every Lease in a namespace, as it is now."""
        call = self._leases.list_namespaced_lease(namespace, _request_timeout=seconds)
        found = await _asked(f"list the Leases in {namespace}", call)
        return [self._plain(item) for item in found.items]

    async def lease_changes(self, namespace: str, *, seconds: int) -> AsyncGenerator[JSON]:
        """Yield every Lease in a namespace, as it is at first and whenever it has changed, for so many seconds.

        That one is deleted isn't told: its holder writes it anew. A watch that falls silent is Unavailable.
        """
        call = self._watched_leases.list_namespaced_lease_without_preload_content(
            namespace,
            watch=True,
            timeout_seconds=seconds,
            allow_watch_bookmarks=True,
            _request_timeout=seconds + REQUEST_SECONDS,
        )
        async with aclosing(_events(f"watch the Leases in {namespace}", call)) as events:
            async for kind, lease in events:
                if kind != "DELETED":
                    yield lease

    def _plain(self, model: Any) -> JSON:
        """A model of the client library as the API's JSON."""
        return dict(self._leases.api_client.sanitize_for_serialization(model))


@asynccontextmanager
async def connected(*, connections: int = 64, trace: aiohttp.TraceConfig | None = None) -> AsyncIterator[Cluster]:
    """The cluster that KUBECONFIG or the pod's ServiceAccount names, through a bounded pool of connections.

    `trace` is told of each request.

    Raises:
        Unconfigured: neither of them does.
    """
    unbounded = 0
    async with AsyncExitStack() as stack:
        apis = []
        try:
            settings = await _settings()
            settings.trace_configs = [trace] if trace is not None else None
            for limit in (connections, unbounded, LEASE_CONNECTIONS):
                settings.connection_pool_maxsize = limit
                apis.append(api := await stack.enter_async_context(client.ApiClient(settings)))
                api.user_agent = FIELD_OWNER  # as which the API server notes whose fields are whose
        except Exception as error:  # noqa: BLE001 (whatever the library stumbles over is in what a person wrote)
            raise Unconfigured(_unusable(error)) from None
        ours, watching, leading = apis
        yield Cluster(ours, watching=watching, leading=leading)


async def _settings() -> client.Configuration:
    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=settings)
    settings.client_side_validation = False
    settings.proxy = settings.proxy or _proxy(settings.host)
    settings.client_session_kwargs = {"trust_env": False}  # which reads files at each request, in a thread
    return settings


def _proxy(url: str) -> str | None:
    """What the environment names for it, as kubectl takes it."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _unusable(error: Exception) -> str:
    """Why there is no cluster, in a sentence; the library's own may quote the file, tokens and all."""
    files = os.environ.get("KUBECONFIG") or "~/.kube/config"
    if not any(Path(file).expanduser().exists() for file in files.split(os.pathsep) if file):
        why = "isn't there"
    elif isinstance(error, OSError) and error.errno:
        why = f"can't be read ({os.strerror(error.errno)})"
    else:
        why = "is no kubeconfig that names a cluster and a user"
    return f"no cluster: this isn't a pod with a ServiceAccount, and {files} {why}; set KUBECONFIG to one that is"


async def _events(what: str, call: Awaitable[Any]) -> AsyncGenerator[tuple[str, JSON]]:
    """What a watch tells, as type and object, but for bookmarks, which have a resourceVersion that is no object's.

    The answer is read here line by line: the library's own Watch makes a client for each, which reads the system's
    certificates, 20 ms and 0.8 MiB, and converts what it tells twice.
    """
    answer = None
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            answer = await call
        while line := await _line(answer):
            kind, told = _event(line)
            if kind != "BOOKMARK":
                yield kind, told
    except (ApiException, aiohttp.ClientError, OSError, TimeoutError, ValueError, TypeError, KeyError) as error:
        raise _kind(what, error) from None
    finally:
        if answer is not None:
            answer.close()


async def _line(answer: aiohttp.ClientResponse) -> bytes:
    """The next line of a watch, empty once the API server has ended it."""
    if answer.status != HTTPStatus.OK:
        raise ApiException(status=answer.status, reason=answer.reason)
    async with asyncio.timeout(SILENCE_SECONDS):
        return await answer.content.readline()


def _event(line: bytes) -> tuple[str, JSON]:
    """A line of a watch; an ApiException where it says that the watch has failed, like one of what is long past."""
    event = json.loads(line)
    told = event["object"]
    if event["type"] == "ERROR":
        raise ApiException(status=told["code"], reason=told.get("reason"))
    return event["type"], dict(told)


async def _object(what: str, call: Awaitable[Any]) -> JSON:
    """The object that one request answers with."""
    answer = await _asked(what, call)
    if not isinstance(answer, dict):  # a proxy's page, for one
        raise Unavailable(f"could not {what}: the answer isn't an object")
    return answer


async def _asked(what: str, call: Awaitable[Any]) -> Any:
    """The answer to one request; ClusterError of the kind that helps."""
    try:
        return await call
    except (ApiException, aiohttp.ClientError, OSError, TimeoutError, ValueError, TypeError) as error:
        raise _kind(what, error) from None  # an ApiException shows request and response bodies


def _kind(what: str, error: Exception) -> ClusterError:
    if not isinstance(error, ApiException):
        return Unavailable(f"could not {what}: {type(error).__name__}")
    match error.status:
        case 404 | 410:
            return Gone(f"could not {what}: it isn't there")
        case 409:
            return Conflict(f"could not {what}: somebody else wrote first")
        case 401:
            return Unidentified(f"could not {what}: 401 {error.reason}")
        case 400 | 403 | 422:
            return Refused(f"could not {what}: {error.status} {error.reason}")
        case status:
            return Unavailable(f"could not {what}: {status} {error.reason}")
