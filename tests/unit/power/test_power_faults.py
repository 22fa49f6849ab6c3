"""Sorting what goes wrong with a BMC: the class says whose fault it is, the sentence what to do."""

from __future__ import annotations

import http.client
import socket
import ssl
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rackwright.power.faults import (
    LONGEST_DETAIL,
    Refusal,
    causes,
    first_sentence,
    of_broken_line,
    of_refusal,
    read_refusal,
    retry_after,
)
from rackwright.power.port import FaultClass

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "message_id", "fault"),
    [
        (400, "Base.1.8.GeneralError", FaultClass.PROTOCOL),
        (400, "Base.1.8.MalformedJSON", FaultClass.PROTOCOL),
        (400, "Base.1.8.ActionNotSupported", FaultClass.UNSUPPORTED),
        (400, "Base.1.8.ActionParameterNotSupported", FaultClass.UNSUPPORTED),
        (400, "Base.1.8.ActionParameterValueNotInList", FaultClass.UNSUPPORTED),
        (400, "Base.1.8.PropertyValueNotInList", FaultClass.UNSUPPORTED),
        (400, "Base.1.8.PropertyUnknown", FaultClass.UNSUPPORTED),
        (400, "Base.1.8.PropertyNotWritable", FaultClass.UNSUPPORTED),
        (400, "iLO.2.14.InvalidOperationForSystemState", FaultClass.BUSY),
        (400, "IDRAC.2.8.SYS518", FaultClass.BUSY),
        (400, "IDRAC.2.8.SWC0700", FaultClass.BUSY),
        (400, "iLO.2.14.ResourceNotReadyRetry", FaultClass.BUSY),
        (400, "iLO.2.14.UnableToModifyDuringSystemPOST", FaultClass.BUSY),
        (401, "", FaultClass.CREDENTIALS),
        (403, "Base.1.8.InsufficientPrivilege", FaultClass.CREDENTIALS),
        (404, "", FaultClass.UNSUPPORTED),
        (405, "", FaultClass.UNSUPPORTED),
        (409, "", FaultClass.BUSY),
        (412, "", FaultClass.PROTOCOL),
        (418, "", FaultClass.PROTOCOL),
        (423, "", FaultClass.BUSY),
        (429, "", FaultClass.BUSY),
        (500, "", FaultClass.PROTOCOL),
        (500, "Base.1.8.ActionNotSupported", FaultClass.PROTOCOL),
        (500, "Base.1.8.ServiceTemporarilyUnavailable", FaultClass.BUSY),
        (501, "", FaultClass.UNSUPPORTED),
        (502, "", FaultClass.BUSY),
        (503, "", FaultClass.BUSY),
        (504, "", FaultClass.BUSY),
    ],
)
def test_a_refusal_is_sorted_by_status_and_message(status: int, message_id: str, fault: FaultClass) -> None:
    error = of_refusal("10.0.0.7", "cut the power", Refusal(status, "No. And never will.", (message_id,)))
    assert error.fault is fault
    assert error.message.endswith(f"(HTTP {status}): No")
    assert error.of_secret is (status == 401)


def test_a_busy_bmc_says_for_how_long() -> None:
    error = of_refusal("10.0.0.7", "cut the power", Refusal(503, retry_after=30.0))
    assert error.retry_after == 30
    assert error.message == "The BMC at 10.0.0.7 is too busy to cut the power and asks for 30 s of peace (HTTP 503)"


def certificate_error(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("error", "fault", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), FaultClass.UNREACHABLE, "its name does not resolve"),
        (ConnectionRefusedError(111, "Connection refused"), FaultClass.UNREACHABLE, "nothing listens on that port"),
        (TimeoutError("timed out"), FaultClass.UNREACHABLE, "does not answer in time"),
        (ConnectionResetError(104, "reset"), FaultClass.UNREACHABLE, "broke the connection off"),
        (http.client.RemoteDisconnected("bye"), FaultClass.UNREACHABLE, "broke the connection off"),
        (http.client.IncompleteRead(b""), FaultClass.UNREACHABLE, "broke the connection off"),
        (ssl.SSLEOFError(8, "EOF occurred"), FaultClass.UNREACHABLE, "broke the connection off"),
        (OSError(113, "No route to host"), FaultClass.UNREACHABLE, "cannot be reached: no route to host"),
        (ValueError("?"), FaultClass.UNREACHABLE, "cannot be reached"),
        (http.client.BadStatusLine("SSH-2.0"), FaultClass.PROTOCOL, "does not speak HTTP on that port"),
        (certificate_error(18, "self-signed certificate"), FaultClass.TLS, "caSecretRef"),
        (certificate_error(10, "certificate has expired"), FaultClass.TLS, "out of date: certificate has expired"),
        (certificate_error(62, "Hostname mismatch, certificate is not valid for 'x'."), FaultClass.TLS, "another name"),
        (certificate_error(64, "IP address mismatch, certificate is not valid"), FaultClass.TLS, "another name"),
        (ssl.SSLError(1, "no shared cipher"), FaultClass.TLS, "agree on no TLS"),
    ],
)
def test_a_broken_line_is_sorted_by_what_is_at_the_end_of_its_causes(
    error: Exception, fault: FaultClass, said: str
) -> None:
    outer = RuntimeError("a library's word for it")
    outer.__context__ = Exception(KeyError(), error)  # as urllib3 keeps them: among the arguments
    found = of_broken_line("10.0.0.7", outer)
    assert found.fault is fault
    assert said in found.message
    assert found.of_secret is (said == "caSecretRef"), "no other CA makes a certificate younger"


def test_causes_that_run_in_a_circle_are_named_once() -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert list(causes(one)) == [one, two]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        ("0", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("99999999", 3600.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOON) == seconds


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["error", "@Message.ExtendedInfo", "Message", "MessageId", "code", "message"]), inner
        )
    ),
)


@settings(max_examples=40)
@given(JSON, st.integers(400, 599))
def test_whatever_a_bmc_answers_becomes_one_short_line(body: Any, status: int) -> None:
    error = of_refusal("10.0.0.7", "cut the power", read_refusal(status, body))
    assert "\n" not in error.message
    assert len(error.message) < LONGEST_DETAIL + 100


@given(st.text())
def test_a_first_sentence_is_short_and_on_one_line(text: str) -> None:
    sentence = first_sentence(text)
    assert len(sentence) <= LONGEST_DETAIL
    assert sentence == " ".join(sentence.split())
    assert first_sentence(sentence) == sentence
