"""Words of machines and strangers, made fit for a status message.

What an agent or a web server says may hold passwords in URLs, tokens, whole response bodies and control
characters; status is read by everybody who may look at the machine.
"""

from __future__ import annotations

import re

MESSAGE_LIMIT = 300
"""Characters that a message has at the most."""

_USERINFO = re.compile(r"(?<=://)[^/\s@]*@")
_QUERY = re.compile(r"(?<=\S)\?[^\s'\")>,;]+")
_SECRET = re.compile(
    r"(?i)\b([\w-]*(?:token|passw(?:or)?d|secret|signature|authorization|cookie|api-?key))(['\"]?\s*[:=]\s*)"
    r"(?:(?:basic|bearer)\s+)?(?:'[^']*'?|\"[^\"]*\"?|[^\s,;&)}]+)"
)
_RESPONSE = re.compile(r"\s*Response (?:body|headers):.*", re.DOTALL)
_LONG = re.compile(r"[A-Za-z0-9+=_-]{80,}")


def presentable(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """One line of text, at most `limit` characters, without what may be secret.

    Leaves out the user and password and the query of URLs, the values of what is called a token or password, what
    a web server answered, and long runs of encoded data. A text that had to be cut ends in `…`; where `limit`
    leaves no room for anything worth reading the result is empty.
    """
    text = _RESPONSE.sub("", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    text = _QUERY.sub("?…", _USERINFO.sub("", text))
    text = _LONG.sub(lambda run: f"{run[0][:12]}…", _SECRET.sub(r"\1\2…", text))
    if len(text) <= limit:
        return text
    return f"{text[: limit - 1].rstrip()}…" if limit > 1 else ""
