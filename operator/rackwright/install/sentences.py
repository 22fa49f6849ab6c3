"""Words of machines and strangers, made fit for a status message.

What an agent or a web server says may hold passwords in URLs, tokens, whole response bodies and control
characters; status is read by everybody who may look at the machine.
"""

from __future__ import annotations

import re

MESSAGE_LIMIT = 300
"""Characters that a message has at the most."""

_MOST = 4096
"""Characters that are looked at: what is worth showing stands at the beginning, and nobody makes us read on."""

_SENSITIVE = (
    r"(?:(?i:passw|pwd|passphrase|passcode|secret|token|credential|signature|authorization|cookie)"
    r"|(?i:(?<!by)pass)(?![A-Za-z])|(?i:key(?!board|pad|error)|psk|chap)s?(?![a-z]))"
)
"""What stands in the name of a thing that nobody is to read, `AdminPwd`, `agent_token` or `WpaPSK`."""

_ADDRESS = re.compile(r"://(?:\S*@)?(\S*)")
_QUERY = re.compile(r"(?<=\S)\?[^\s'\")>,;]+")
_SECRET = re.compile(
    rf"(?<![\w-])(?=[\w-]*{_SENSITIVE})([\w-]+)(['\"]?\s*[:=]\s*)"  # each name once, from where it begins
    r"(?i:(?:basic|bearer)\s+)?(?:'[^']*'?|\"[^\"]*\"?|[^\s,;&)}]+)"
)
_NAME = re.compile(_SENSITIVE)
_RESPONSE = re.compile(r"Response (?:body|headers):.*", re.DOTALL)
_LONG = re.compile(r"[A-Za-z0-9+=_-]{80,}")


def presentable(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """One line of text, at most `limit` characters, without what may be secret.

    Leaves out the user and password and the query of URLs, the values of what is called a token or password, what
    a web server answered, and long runs of encoded data. A text that had to be cut ends in `…`; where `limit`
    leaves no room for anything worth reading the result is empty.
    """
    text = whole_words(text, _MOST)
    text = _RESPONSE.sub("", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    text = _QUERY.sub("?…", _ADDRESS.sub(r"://\1", text))
    text = _LONG.sub(lambda run: f"{run[0][:12]}…", _SECRET.sub(r"\1\2…", text))
    if len(text) <= limit:
        return text
    return f"{text[: limit - 1].rstrip()}…" if limit > 1 else ""


def whole_words(text: str, limit: int) -> str:
    """The beginning of a text, at most `limit` characters, cut between words.

    Half a URL can't be told from one without a password in it. A word that is longer than all that goes altogether.
    """
    if len(text) <= limit:
        return text
    kept = text[:limit].rsplit(maxsplit=1)
    return kept[0] if len(kept) > 1 else ""


def names_secret(name: str) -> bool:
    """Whether a setting of this name may hold a secret.

    A name alone is known of a BIOS attribute, and what isn't shown is no loss while what is shown can't be taken back.
    So `HotKeySupport` counts as one, though it is harmless; a keyboard, a chapter and a bypass do not.
    """
    return _NAME.search(name) is not None
