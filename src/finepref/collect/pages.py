"""What the voters' and the owner's pages have in common: templates, and reading a request."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined

from finepref.collect.desk import Desk
from finepref.collect.refusal import Refused
from finepref.core.files import parse_json

LARGEST = 1 << 16
"""Bytes of a request's body at most."""
PAGES = Environment(loader=PackageLoader("finepref.collect"), autoescape=True, undefined=StrictUndefined)


async def read_body(request: Request) -> dict[str, Any]:
    """The JSON of a request, of a bounded size.

    Raises:
        Refused: too large, or no JSON object.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "application/json is wanted")
    held = b""
    async for part in request.stream():
        held += part
        if len(held) > LARGEST:
            raise Refused(413, "the request is too large")
    try:
        found = parse_json(held.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refused(400, "the request is not valid JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "a JSON object is wanted")
    return found


def cookie_of(desk: Desk, name: str) -> str:
    """The name of a cookie of this study, since a browser gives a cookie to every server of one host."""
    study = desk.about.id
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", study):
        study = hashlib.sha256(study.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"finepref_{name}" + (f"_{study}" if study else "")
