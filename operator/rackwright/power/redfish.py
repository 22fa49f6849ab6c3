"""Redfish (DMTF DSP0266), through sushy: the protocol of nearly every server BMC made since 2016.

sushy is the library that OpenStack Ironic drives its machines with, so it knows the quirks of real BMCs. It blocks,
retries for minutes by default and raises what it meets; here it runs in a thread and asks once, and `faults` sorts
what it raises. What is asked, and when, is in `redfish_system` and `redfish_driver`, which know nothing of sushy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

import sushy
from sushy import auth as sushy_auth
from sushy import connector as sushy_connector
from sushy import exceptions as sushy_errors

from rackwright.fence import Fenced
from rackwright.power import faults
from rackwright.power.address import Address, parse
from rackwright.power.port import Credentials, Endpoint, FaultClass, Limits, PowerError
from rackwright.power.redaction import SPOKEN, Redaction, relay
from rackwright.power.transport import Adapter, base_url, tls_context

LOG = logging.getLogger(__name__)
relay("sushy", LOG)

T = TypeVar("T")

SUSPECT = frozenset({FaultClass.CREDENTIALS, FaultClass.PROTOCOL})
"""The session may be what is wrong: a BMC that restarted forgets it, and not all answer 401 then."""
NAMED_SYSTEMS = 5


class Service:
    """One BMC as sushy sees it, and a session on it. Blocks; for one thread at a time.

    Opened by the first exchange. A session where the BMC has them, else basic authentication with each request. Of what
    the BMC says of its system nothing is kept: with BIOS attributes that is some 300 KB, and there are many machines.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._address = parse(endpoint.address)
        self._redaction = Redaction(endpoint.credentials, self._token)
        self._connector: Any = None
        self._auth: Any = None
        self._root: Any = None
        self._path = self._address.path
        """The system's, once it is known."""
        self._heard: Any = None
        self._ended = False

    def exchange(self, what: str, step: Callable[[Any], T]) -> T:
        """Run a step on the system as the BMC describes it now; whatever goes wrong is raised as `PowerError`.

        `what` completes "The BMC cannot ...".
        """
        speaking = SPOKEN.set(self._redaction)
        suspect = False
        try:
            return step(self._fresh_system())
        except Exception as error:  # noqa: BLE001 (sushy raises KeyError and worse for what it didn't expect in an answer)
            fault, cause = self._fault(what, error)
            suspect = fault.fault in SUSPECT
        finally:
            SPOKEN.reset(speaking)
            self._heard = None
            if suspect or self._ended:
                self._drop()
        raise fault from cause  # outside the handler, so that nothing comes along that is not meant to

    def document(self, path: str) -> Any:
        """The JSON at a path, for what sushy has no words for."""
        return self._connector.get(path).json()

    def close(self) -> None:
        """End the session. Whoever is in the middle of something goes on, with a session for each exchange."""
        self._ended = True
        self._drop()

    def _drop(self) -> None:
        """Forget the connection. Silent: a BMC ends a session by itself in the end."""
        connector, auth = self._connector, self._auth
        self._connector = self._auth = self._root = None
        session = auth.get_session_resource_id() if isinstance(auth, sushy_auth.SessionAuth) else None
        if session:
            try:
                connector.end_session(urlsplit(session).path)
            except (Exception, Fenced) as error:  # noqa: BLE001 (nothing that can happen here is worth more than a line)
                LOG.debug("A session at %s is left to time out: %s", self._address.place, type(error).__name__)
            auth.reset_session_attrs()
        if connector is not None:
            connector.close()

    def _fresh_system(self) -> Any:
        if self._root is None:
            self._open()
        try:
            self._path = self._path or self._only_system()
            return self._root.get_system(self._path)
        except sushy_errors.ResourceNotFoundError:
            missing, self._path = self._path, self._address.path
        raise PowerError(
            FaultClass.UNSUPPORTED, f"The BMC at {self._address.place} has no system {missing}: it has {self._names()}"
        )

    def _open(self) -> None:
        endpoint = self._endpoint
        self._connector = _Connector(self._address, endpoint, self._limits, self._hear)
        self._auth = _authentication(endpoint.credentials)
        self._root = _Root(base_url(self._address), auth=self._auth, connector=self._connector)

    def _hear(self, response: Any) -> None:
        self._heard = response
        if response.status_code >= HTTPStatus.BAD_REQUEST and not faults.is_redfish_error(_json(response)):
            response.json = dict  # sushy stumbles over a BMC's web server's own error pages, and then misses a 401
        if response.status_code == HTTPStatus.FORBIDDEN or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # Raised from here it is not repeated: the caller's back-off knows better than sushy's what else waits, and
            # a session whose account may not do this has not expired.
            sushy_errors.raise_for_response(response.request.method, response.request.url, response)

    def _token(self) -> str | None:
        return self._connector.token if self._connector is not None else None

    def _members(self) -> tuple[str, ...]:
        return tuple(self._root.get_system_collection().members_identities)

    def _only_system(self) -> str:
        members = self._members()
        if len(members) == 1:
            return members[0]
        raise PowerError(
            FaultClass.UNSUPPORTED,
            f"The BMC at {self._address.place} has {self._names()}: put the path of one into its address",
        )

    def _names(self) -> str:
        members = self._members()
        more = f" and {len(members) - NAMED_SYSTEMS} more" if len(members) > NAMED_SYSTEMS else ""
        return (", ".join(members[:NAMED_SYSTEMS]) or "no systems at all") + more

    def _fault(self, what: str, error: Exception) -> tuple[PowerError, BaseException | None]:
        """The error for the caller, and its cause unless that shows a secret: BMCs repeat what they were sent."""
        if isinstance(error, PowerError):
            return error, error.__cause__
        return self._sorted(what, error), None if self._redaction.shown_by(error) else error

    def _sorted(self, what: str, error: Exception) -> PowerError:
        place = self._address.place
        if isinstance(error, sushy_errors.ConnectionError):
            return faults.of_broken_line(place, error)
        if isinstance(error, sushy_errors.MissingActionError | sushy_errors.InvalidParameterValueError):
            said = faults.first_sentence(str(error))
            return PowerError(FaultClass.UNSUPPORTED, f"The BMC at {place} cannot {what}: {said}")
        if self._heard is not None and self._heard.status_code >= HTTPStatus.BAD_REQUEST:
            if self._heard.status_code == HTTPStatus.UNAUTHORIZED and self._endpoint.credentials is None:
                return PowerError(
                    FaultClass.CREDENTIALS,
                    f"The BMC at {place} wants an account: name the Secret that holds it in"
                    " spec.bmc.credentialsSecretRef",
                )
            return faults.of_refusal(place, what, self._refusal())
        said = faults.first_sentence(self._redaction.hide(str(error)))
        return PowerError(
            FaultClass.PROTOCOL,
            f"The BMC at {place} gave an answer that is not Redfish when it was to {what}"
            f" ({type(error).__name__}: {said})",
        )

    def _refusal(self) -> faults.Refusal:
        response = self._heard
        wait = faults.retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
        return faults.read_refusal(response.status_code, _json(response), wait, hide=self._redaction.hide)


class _Connector(sushy_connector.Connector):  # type: ignore[misc]  # sushy has no types
    """sushy's HTTP, without its retries, through our `Adapter`, deaf to proxies and .netrc in the environment."""

    def __init__(self, address: Address, endpoint: Endpoint, limits: Limits, hear: Callable[[Any], None]) -> None:
        verify = not endpoint.insecure_skip_tls_verify
        super().__init__(
            base_url(address),
            verify=verify,
            response_callback=hear,
            server_side_retries=1,  # tries, as sushy counts for broken connections; 0 would be its default of 3
            server_side_retries_delay=1,
            default_request_timeout=limits.read,
            connect_timeout=limits.connect,
        )
        self._session.trust_env = False
        adapter = Adapter(address, tls_context(endpoint.ca, verify=verify))
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, adapter)

    @property
    def token(self) -> str | None:
        """The session's token, if there is a session."""
        token: str | None = self._session.headers.get("X-Auth-Token")
        return token

    def end_session(self, path: str) -> None:
        """Delete the session at `path`, past sushy: it would log in again to delete a session that has expired."""
        url = self._url + path
        self._session.delete(url, verify=self._verify, timeout=self._connect_timeout, allow_redirects=False)


class _Rejected(Exception):
    """The BMC has sessions and refuses the account one."""


class _Root(sushy.Sushy):  # type: ignore[misc]  # sushy has no types
    """Ends no session when its garbage is collected, in whichever thread, by whoever may not send anything any more.

    And tries an account that was rejected no second time.
    """

    def create_session(self, username: str | None = None, password: str | None = None) -> Any:
        """Log in; sushy would go on to basic authentication whatever was wrong, and BMCs lock accounts.

        One that names no sessions in its root is not believed: some answer 401 to whatever they don't know.
        """
        try:
            return super().create_session(username, password)
        except sushy_errors.AccessError as error:
            if error.status_code == HTTPStatus.UNAUTHORIZED and (self.json.get("Links") or {}).get("Sessions"):
                raise _Rejected from error
            raise

    def __del__(self) -> None:
        """`Service` ends its session, when it may."""


class _Anonymous(sushy_auth.AuthBase):  # type: ignore[misc]  # sushy has no types
    """For a BMC without accounts, as emulators are."""

    def _do_authenticate(self) -> None:
        pass

    def can_refresh_session(self) -> bool:
        return False


def _json(response: Any) -> object:
    try:
        body: object = response.json()
    except ValueError:
        return None
    return body


def _authentication(credentials: Credentials | None) -> Any:
    if credentials is None:
        return _Anonymous()
    auth = sushy_auth.SessionOrBasicAuth(credentials.username, credentials.password)
    # requests sends text as Latin-1 and fails for what isn't; bytes it sends as they are.
    auth.basic_auth = sushy_auth.BasicAuth(credentials.username.encode(), credentials.password.encode())
    return auth
