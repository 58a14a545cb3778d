"""One question over HTTP, within limits: where it may go, how long it may take, how much may come back.

https, or http to this machine; redirects are not followed, so that the key goes to nobody else; a request as a whole
has a deadline, which a reply that drips in cannot stretch; a reply longer than `LARGEST` is cut off unread, and none is
unpacked. Proxies are taken from the environment (HTTPS_PROXY, ALL_PROXY, NO_PROXY), never for this machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from finepref.core.errors import first_line

if TYPE_CHECKING:
    import ssl

LARGEST = 8 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. retry_after: seconds the endpoint asks to wait, None where it says nothing."""

    status: int
    content: bytes
    retry_after: float | None = None


class Unanswered(Exception):
    """There is no reply; its text says why. again: whether another try may help."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


def check_url(url: str) -> str:
    """The address of an endpoint as it is.

    Raises:
        ValueError: neither https nor http to this machine, or a user, a password, a query or a fragment in it.
    """
    parts = urlsplit(url)
    if parts.port == 0:  # one that is no number raises
        raise ValueError("port 0 is nobody's")
    if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch("[!-~]+", url):
        raise ValueError("write the whole address, such as https://host/v1 or http://localhost:8000/v1")
    if parts.scheme == "http" and not _is_here(parts.hostname):
        raise ValueError(
            "http is for this machine (localhost) alone, since anybody between could read the key; use https"
        )
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("leave user, password, `?` and `#` out; a key is named by api_key_env")
    return url


def post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, largest: int = LARGEST) -> Reply:
    """Send a request and read its reply.

    Args:
        seconds: for all of it. largest: bytes of the reply.

    Raises:
        Unanswered: nobody there, too slow, too long, packed, cut off, or a redirect.
    """
    return asyncio.run(_post(url, body, headers, seconds=seconds, largest=largest))


async def _post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, largest: int) -> Reply:
    import httpx2

    here = _is_here(urlsplit(url).hostname or "")
    plain = {"Content-Type": "application/json", "Accept-Encoding": "identity", **headers}
    try:
        async with (
            asyncio.timeout(seconds),
            httpx2.AsyncClient(follow_redirects=False, timeout=None, trust_env=not here, verify=_trusted()) as client,
            client.stream("POST", url, content=body, headers=plain) as response,
        ):
            if response.has_redirect_location:
                what = f"HTTP {response.status_code}: it sends on to another address, which is not followed"
                raise Unanswered(f"{what}; give that as base_url if you trust it", again=False)
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise Unanswered("the reply is compressed, though it was asked for as it is", again=False)
            content = bytearray()
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > largest:
                    raise Unanswered(f"the reply is longer than {largest >> 20} MiB", again=False)
            return Reply(response.status_code, bytes(content), _retry_after(response.headers))
    except TimeoutError:
        raise Unanswered(f"no whole reply within {seconds:g} s", again=True) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, ImportError) as error:  # of proxies too
        raise Unanswered(first_line(error), again=True) from None


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from now: a number of them, or a date."""
    asked = headers.get("Retry-After", "")
    try:
        seconds = float(asked)
    except ValueError:
        try:
            then, now = (parsedate_to_datetime(text).timestamp() for text in (asked, headers.get("Date", "")))
        except (ValueError, TypeError, OverflowError):
            return None
        seconds = then - now
    return seconds if seconds >= 0 else None


@cache
def _trusted() -> ssl.SSLContext:
    import httpx2

    return httpx2.create_ssl_context()
