"""The web site of a study: the voter's page and what it asks for. The owner's part is in `owner.py`.

Every answer of the server names no model and no file. Requests that write must come from a page of this server, by
their Origin. Endpoints run one after the other in the event loop: at the desk nothing happens at once.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from finepref.collect.desk import Desk
from finepref.collect.owner import owner_routes
from finepref.collect.pages import PAGES, cookie_of, read_body
from finepref.collect.refusal import Refused, measures
from finepref.collect.seats import ACTIVE, Seat
from finepref.collect.texts import best_language, texts
from finepref.formats.answers import ShownSet

VOTER = "voter"
OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
RATE, BURST = 5.0, 40.0
"""Requests that write, of one voter: a second in the long run, and at once."""
GATHER = 0.002
"""Seconds that a commit waits for more requests."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
}  # fmt: skip
ASSETS = {
    "owner.js": ("finepref.collect", "text/javascript"),
    "vote.js": ("finepref.collect", "text/javascript"), "vote.css": ("finepref.collect", "text/css"),
    "ballot.js": ("finepref.report", "text/javascript"), "page.css": ("finepref.report", "text/css"),
}  # fmt: skip


class Limit:
    """How many requests of one voter may write: a bucket that fills with time."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic, self.held = monotonic, dict[int, tuple[float, float]]()

    def take(self, voter: int) -> None:
        """Count one.

        Raises:
            Refused: too many.
        """
        now = self.monotonic()
        left, then = self.held.get(voter, (BURST, now))
        left = min(BURST, left + max(0.0, now - then) * RATE)
        self.held[voter] = (left - 1 if left >= 1 else left, now)
        if left < 1:
            raise Refused(429, "too many requests", f"wait {math.ceil(1 / RATE)} s")


class Keeper:
    """One commit for all requests that wait for one."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.waiting = desk, list[tuple[asyncio.Future[None], int]]()

    async def kept(self) -> None:
        """Return when everything that was written so far is on disk.

        Raises:
            Refused: it could not be put there.
        """
        if not self.desk.connection.in_transaction:
            return
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        if not self.waiting:
            loop.call_later(GATHER, self._commit)
        self.waiting.append((done, self.desk.transaction.given_up))
        await done

    def _commit(self) -> None:
        waiting, self.waiting = self.waiting, []
        refused = Refused(503, "it could not be kept", "it is sent again by itself")
        try:
            self.desk.commit()
        except Refused as found:
            refused = found
        for each, before in waiting:
            if each.done():  # its request was ended
                continue
            if self.desk.transaction.given_up == before:
                each.set_result(None)
            else:  # now, or with what somebody else wrote meanwhile
                each.set_exception(Refused(refused.status, refused.error, refused.remedy))


@dataclass(frozen=True, slots=True)
class Door:
    """Who comes in: by a cookie, or, only on this machine, without one (`local`)."""

    desk: Desk
    local: Seat | None
    limit: Limit
    keeper: Keeper

    def seat(self, request: Request) -> Seat:
        """Where a request's voter sits.

        Raises:
            Refused: nobody, or somebody who is excluded.
        """
        seat = self.desk.voter_of(request.cookies.get(cookie_of(self.desk, VOTER), "")) or self.local
        if seat is None:
            raise Refused(401, "no voter is known here", "open your personal link again")
        if seat.voter.state != ACTIVE:
            raise Refused(403, "this link is closed", "ask the owner of the study")
        return seat


def make_site(desk: Desk, *, local: Seat | None = None, monotonic: Callable[[], float] = time.monotonic) -> FastAPI:
    """The site of an open study.

    Args:
        local: who votes without a personal link: only on this machine, where nobody else reaches the server.
        monotonic: seconds, for the limit of requests.
    """
    site = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    door = Door(desk, local, Limit(monotonic), Keeper(desk))

    @site.middleware("http")
    async def guard(request: Request, answer: Any) -> Response:
        try:
            if local is not None:
                _check_host(request)
            if request.method == "POST":
                _check_origin(request)
            found: Response = await answer(request)
        except Refused as refused:
            found = _refusal(request, refused)
        for name, value in HEADERS.items():
            found.headers.setdefault(name, value)
        return found

    @site.exception_handler(Refused)
    async def told(request: Request, refused: Refused) -> Response:
        return _refusal(request, refused)

    site.include_router(_pages(door))
    site.include_router(_api(door))
    site.include_router(owner_routes(desk, monotonic))
    return site


def _pages(door: Door) -> APIRouter:
    routes = APIRouter()

    @routes.get("/")
    async def start() -> Response:
        return RedirectResponse("/vote", 303)

    @routes.get("/v/{token}")
    async def enter(token: str) -> Response:
        if door.desk.voter_of(token) is None:
            raise Refused(404, "no such link", "ask the owner of the study for yours")
        found = RedirectResponse("/vote", 303)
        found.set_cookie(cookie_of(door.desk, VOTER), token, httponly=True, samesite="lax", max_age=365 * 86400)
        return found

    @routes.get("/vote")
    async def page(request: Request) -> Response:
        door.seat(request)
        language = best_language(request.headers.get("accept-language", ""))
        shown = PAGES.get_template("vote.html.j2").render(language=language, texts=dict(texts(language)))
        return HTMLResponse(shown)

    @routes.get("/static/{name}")
    async def asset(name: str) -> Response:
        if name not in ASSETS:
            raise Refused(404, "no such file")
        package, kind = ASSETS[name]
        text = resources.files(package).joinpath("assets", name).read_text(encoding="utf-8")
        return Response(text, media_type=kind, headers={"Cache-Control": "no-cache"})

    return routes


def _api(door: Door) -> APIRouter:
    routes, desk = APIRouter(prefix="/api"), door.desk

    @routes.get("/state")
    async def state(request: Request) -> Response:
        return JSONResponse(standing(desk, door.seat(request)))

    @routes.get("/sets")
    async def sets(request: Request, count: int = 2) -> Response:
        seat = door.seat(request)
        found = desk.sets(seat, max(1, count))
        await door.keeper.kept()
        return JSONResponse({"sets": [as_set(desk, each) for each in found], **standing(desk, seat, found)})

    @routes.get("/sets/{name}/{position}")
    async def picture(request: Request, name: str, position: int) -> Response:
        content = desk.picture_bytes(door.seat(request), name, position)
        return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @routes.post("/answers")
    async def answer(request: Request) -> Response:
        seat = door.seat(request)
        door.limit.take(seat.voter.id)
        body = await read_body(request)
        said, name, revision = body.get("answers"), body.get("set"), body.get("revision")
        if not isinstance(said, Mapping) or not isinstance(name, str) or type(revision) is not int:
            raise Refused(422, "set, revision and answers are wanted")
        stored = desk.store(seat, name, revision, said, measures(body))
        await door.keeper.kept()
        return JSONResponse({"stored": stored, **standing(desk, seat)})

    @routes.post("/undo")
    async def undo(request: Request) -> Response:
        seat = door.seat(request)
        door.limit.take(seat.voter.id)
        name = (await read_body(request)).get("set")
        if not isinstance(name, str | None):
            raise Refused(422, "set is no id")
        shown = desk.undo(seat, name)
        await door.keeper.kept()
        return JSONResponse({"set": as_set(desk, shown), **standing(desk, seat)})

    return routes


def standing(desk: Desk, seat: Seat, sets: list[ShownSet] | None = None) -> dict[str, Any]:
    """How far a voter is, and whether the study is open. sets: those that are out, where they were asked for."""
    state = desk.state(seat)
    state = "done" if state == "open" and sets is not None and not sets else state
    return {"progress": {"done": seat.done, "of": desk.about.votes}, "state": state}


def as_set(desk: Desk, shown: ShownSet) -> dict[str, Any]:
    """A set as the page gets it."""
    revision = desk.revision(shown.id)
    return {
        "id": shown.id, "prompt": desk.about.prompts[desk.pictures[shown.pictures[0]].prompt],
        "images": [f"/api/sets/{shown.id}/{k}" for k in range(len(shown.pictures))],
        "revision": revision, "mode": desk.about.mode,
        "questions": [{"name": each.name, "text": each.text} for each in desk.about.questions],
        "answers": desk.last_answers(shown.id) if revision else None,
    }  # fmt: skip


def _check_origin(request: Request) -> None:
    """Refuse what another site's page sends in a voter's name."""
    try:
        origin = urlsplit(request.headers.get("origin", ""))
    except ValueError:
        origin = urlsplit("")
    host = request.headers.get("host", "").lower()
    if origin.scheme not in ("http", "https") or not host or origin.netloc.lower() != host:
        raise Refused(403, "the request does not come from a page of this server", "open the page again")


def _check_host(request: Request) -> None:
    """Refuse what came under another name: a page of that name could read everything, and vote."""
    if not OWN_HOST.fullmatch(request.headers.get("host", "")):
        raise Refused(403, "this study answers on this machine only", "open it as http://localhost with its port")


def _refusal(request: Request, refused: Refused) -> Response:
    """As a page where a person opened one, else as JSON."""
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        language = best_language(request.headers.get("accept-language", ""))
        words = {"language": language, "texts": dict(texts(language)), "error": refused.error, "remedy": refused.remedy}
        return HTMLResponse(PAGES.get_template("refused.html.j2").render(**words), refused.status)
    body = {"error": refused.error, "remedy": refused.remedy}
    return JSONResponse(body, refused.status, {"Retry-After": "1"} if refused.status == 429 else None)
