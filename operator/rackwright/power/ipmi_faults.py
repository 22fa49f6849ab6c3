"""Whose fault it is, over IPMI: the codes of the specification sorted into `FaultClass`, each with one sentence.

Section and table numbers are those of the IPMI specification 2.0, revision 1.1. Pure, as `faults` is.
"""

from __future__ import annotations

from rackwright.power.port import FaultClass, PowerError, WrongState

NO_RIGHTS = frozenset({0x80, 0x81})
"""Of Set Session Privilege Level (table 22-19): not for this user, not on this channel."""

_NO_ROLE = 0x0A
_UNKNOWN_ACCOUNT = frozenset({0x0C, 0x0D, 0x0F})
_NOT_ALLOWED = 0xD4
_WRONG_STATE = 0xD5

_LOGIN: dict[int, tuple[FaultClass, str]] = {
    0x01: (FaultClass.BUSY, "has no place for another session: others have to end or time out first"),
    0x0B: (FaultClass.BUSY, "has no place for another session with these rights: others have to end first"),
    **dict.fromkeys(
        (0x04, 0x05, 0x06, 0x07, 0x10, 0x11),
        (FaultClass.UNSUPPORTED, "offers neither cipher suite 17 nor 3: allow one of them on its LAN channel"),
    ),
    **dict.fromkeys(
        (0x09, _NO_ROLE),
        (FaultClass.CREDENTIALS, "lets the account log in as neither administrator nor operator: give it those rights"),
    ),
    **dict.fromkeys(
        (0x0C, 0x0D),
        (FaultClass.CREDENTIALS, "refuses the credentials: no such user may log in over the network"),
    ),
    0x0F: (FaultClass.CREDENTIALS, "refuses the credentials: the password is wrong"),
}
"""RMCP+ status codes (table 13-15)."""

_CHASSIS: dict[int, tuple[FaultClass, str]] = {
    **dict.fromkeys((0xC0, 0xC3, 0xC4, 0xCE, 0xD0, 0xD1, 0xD2, _WRONG_STATE), (FaultClass.BUSY, "is too busy to")),
    **dict.fromkeys((0xC1, 0xC2, 0xC9, 0xCC, 0xCD, 0xD6), (FaultClass.UNSUPPORTED, "cannot")),
    # Of the boot options' own (tables 28-14 and 28-15): no such option; being set by somebody else; read-only.
    **dict.fromkeys((0x80, 0x82), (FaultClass.UNSUPPORTED, "cannot")),
    0x81: (FaultClass.BUSY, "is too busy to"),
}
"""Completion codes (table 5-2). 0xD5, "not supported in present state", passes; 0xFF, "unspecified", is not here."""


def of_login(place: str, status: int) -> PowerError:
    """The fault in an RMCP+ status that ended a log-in."""
    fault, why = _LOGIN.get(status, (FaultClass.PROTOCOL, "broke the log-in off"))
    of_secret = status in _UNKNOWN_ACCOUNT
    return PowerError(fault, f"The BMC at {place} {why} (RMCP+ status 0x{status:02X})", of_secret=of_secret)


def of_wrong_password(place: str) -> PowerError:
    """The BMC's proof that it knows the password is not made with ours."""
    return PowerError(
        FaultClass.CREDENTIALS, f"The BMC at {place} refuses the credentials: the password is wrong", of_secret=True
    )


def of_session_key(place: str) -> PowerError:
    """Password and user were right, and the session's key isn't."""
    return PowerError(
        FaultClass.UNSUPPORTED,
        f"The BMC at {place} has a key for sessions (K_g) besides the accounts' passwords: clear it",
    )


def of_old_protocol(place: str) -> PowerError:
    """There is a BMC, and it doesn't offer IPMI 2.0."""
    return PowerError(
        FaultClass.UNSUPPORTED,
        f"The BMC at {place} speaks IPMI 1.5 only, which encrypts nothing: enable IPMI 2.0 (RMCP+) there",
    )


def of_no_rights(place: str, code: int) -> PowerError:
    """The session is there, and may do nothing."""
    fault, why = _LOGIN[_NO_ROLE]
    return PowerError(fault, f"The BMC at {place} {why} (completion code 0x{code:02X})")


def of_completion(place: str, what: str, code: int) -> PowerError:
    """The fault in the answer to a command; `what` was being done ("cut the power")."""
    end = f" (IPMI completion code 0x{code:02X})"
    if code == _NOT_ALLOWED:
        return PowerError(FaultClass.CREDENTIALS, f"The account at the BMC at {place} may not {what}{end}")
    fault, verb = _CHASSIS.get(code, (FaultClass.PROTOCOL, "failed to"))
    return (WrongState if code == _WRONG_STATE else PowerError)(fault, f"The BMC at {place} {verb} {what}{end}")
