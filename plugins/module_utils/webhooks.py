# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send one message to several webhooks, in limited time.

The address of a webhook is a credential: whoever knows it can write. Only its host is ever named, and no text of an
exception is shown, since several of Python's contain the address.
"""

from __future__ import annotations

import http.client
import json
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

#: Times that a message is offered, and seconds for each answer, until its last byte.
TRIES = 3
LIMIT = 5.0
#: Seconds before the second try; twice as long before the third.
PAUSE = 1.0
#: Answers after which the same message may still be taken: late, too many, or the server's own fault.
_PASSING = (408, 425, 429)


class _Refused(Exception):
    """Not taken, and why.

    Args:
        why: in words, without the address.
        final: whether another try cannot help.
    """

    def __init__(self, why: str, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET: the message would be lost, and would look as if it had been taken."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


def place(url: str) -> str:
    """What may be said of an address: its host and port.

    Args:
        url: address of a webhook.

    Raises:
        ValueError: it is no address of HTTP or HTTPS, or has a user and a password in it. The text does not contain it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("its address is not a URL") from None
    if parts.scheme not in ("http", "https") or not host or any(character <= " " for character in url):
        raise ValueError("its address is not a URL of HTTP or HTTPS")
    if "@" in parts.netloc:
        raise ValueError("its address has a user and a password in it, which webhooks do not take")
    return host if port is None else f"{host}:{port}"


def examine(urls: Sequence[str]) -> tuple[list[str], list[str]]:
    """Where a message would be sent, without sending one.

    Args:
        urls: addresses of webhooks.

    Returns:
        Like ``send``.
    """
    good, bad = [], []
    for index, url in enumerate(urls):
        try:
            good.append(place(url))
        except ValueError as error:
            bad.append(f"webhook {index + 1} of {len(urls)}: {error}")
    return good, bad


def send(
    urls: Sequence[str],
    payload: Mapping[str, Any],
    tries: int = TRIES,
    limit: float = LIMIT,
    pause: float = PAUSE,
) -> tuple[list[str], list[str]]:
    """Send a message to all webhooks at the same time.

    Args:
        urls: their addresses.
        payload: the message, sent as JSON.
        tries: how often it is offered to each.
        limit: seconds for each answer.
        pause: seconds before the second try, doubled before each further one.

    Returns:
        Hosts that took it; and of the others host and reason, one line each. All in all it takes at most
        ``tries * limit`` seconds and the pauses.
    """
    outcomes: list[tuple[str, str | None]] = [("", None)] * len(urls)

    def one(index: int, url: str) -> None:
        try:
            where = place(url)
        except ValueError as error:
            outcomes[index] = (f"webhook {index + 1} of {len(urls)}", str(error))
            return
        outcomes[index] = (where, deliver(url, payload, tries, limit, pause))

    threads = [threading.Thread(target=one, args=(index, url)) for index, url in enumerate(urls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [where for where, reason in outcomes if reason is None]
    return taken, [f"{where}: {reason}" for where, reason in outcomes if reason is not None]


def deliver(
    url: str,
    payload: Mapping[str, Any],
    tries: int = TRIES,
    limit: float = LIMIT,
    pause: float = PAUSE,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Send a message to one webhook. One that answers too late gets it again: better twice than not at all.

    Args:
        url: its address.
        payload: the message.
        tries: how often it is offered.
        limit: seconds for each answer.
        pause: seconds before the second try, doubled before each further one.
        sleep: waits so many seconds.

    Returns:
        None if it was taken, else why not.
    """
    body = json.dumps(payload).encode()
    reason = "never tried"
    for attempt in range(1, tries + 1):
        try:
            _within(limit, lambda: _post(url, body, limit))
            return None
        except _Refused as refused:
            times = "once" if attempt == 1 else f"{attempt} times"
            reason = f"{refused} (tried {times})"
            if refused.final:
                break
        if attempt < tries:
            sleep(pause * 2 ** (attempt - 1))
    return reason


def _within(limit: float, work: Callable[[], None]) -> None:
    """Do it, or leave it alone after so many seconds: time limits of sockets start anew with every byte."""
    answers: queue.Queue[_Refused | None] = queue.Queue()

    def run() -> None:
        try:
            work()
        except _Refused as refused:
            answers.put(refused)
        else:
            answers.put(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        refused = answers.get(timeout=limit)
    except queue.Empty:
        raise _Refused(f"no answer within {limit:g} s") from None
    if refused:
        raise refused


def _post(url: str, body: bytes, limit: float) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", "User-Agent": "deploy-notify"})
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=limit) as response:
            code = response.status
    except urllib.error.HTTPError as error:
        code = error.code
        error.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _in_words(error, limit) from None
    if not 200 <= code < 300:
        raise _Refused(f"HTTP {code}", final=code < 500 and code not in _PASSING)


def _in_words(error: Exception, limit: float) -> _Refused:
    cause = getattr(error, "reason", error)
    if isinstance(cause, (socket.timeout, TimeoutError)):
        return _Refused(f"no answer within {limit:g} s")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _Refused(f"its certificate is not trusted ({cause.verify_message})", final=True)
    if isinstance(cause, OSError) and cause.strerror:
        return _Refused(str(cause.strerror))
    return _Refused(f"the request failed ({type(cause).__name__})")
