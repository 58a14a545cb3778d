"""The owner's page of a study: boards, voters, and what can be done, behind a token of its own."""

from __future__ import annotations

import asyncio
import hmac
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from finepref.arena.ratings import Ratings
from finepref.collect.desk import CLOSED, OPEN, PAUSED, Desk, hashed
from finepref.collect.ownerchecks import OwnerChecks, check_routes
from finepref.collect.pages import PAGES, cookie_of, read_body
from finepref.collect.refusal import Refused
from finepref.collect.seats import ACTIVE, Seat, clean_voter
from finepref.formats import answers as kept

OWNER = "owner"
TOKEN = "owner"  # a setting: hash of the owner's token
EVERY = 1.0
"""Seconds between boards at least."""
REST = 10.0
"""Times as long as a board took, until the next one."""


@dataclass(frozen=True, slots=True)
class VoterLine:
    """A voter as the owner sees them. seconds: median time of an answer, None before the first."""

    id: int
    name: str
    state: str
    done: int
    waiting: int
    seconds: float | None


def owner_routes(desk: Desk, monotonic: Callable[[], float]) -> APIRouter:
    """The routes of the owner. monotonic: seconds."""
    routes, boards = APIRouter(), Boards(desk, monotonic)

    def check(request: Request) -> None:
        _check(desk, request.cookies.get(cookie_of(desk, OWNER), ""))

    routes.include_router(check_routes(OwnerChecks(desk, boards.now), check))

    @routes.get("/admin/{token}")
    async def enter(token: str) -> Response:
        _check(desk, token)
        found = RedirectResponse("/admin", 303)
        found.set_cookie(cookie_of(desk, OWNER), token, httponly=True, samesite="strict", max_age=30 * 86400)
        return found

    @routes.get("/admin")
    async def page(request: Request) -> Response:
        check(request)
        return HTMLResponse(PAGES.get_template("owner.html.j2").render(**_live(desk, await boards.now())))

    @routes.get("/admin-live")
    async def live(request: Request) -> Response:
        check(request)
        return HTMLResponse(PAGES.get_template("owner_live.html.j2").render(**_live(desk, await boards.now())))

    @routes.post("/api/owner/state")
    async def state(request: Request) -> Response:
        check(request)
        wanted = (await read_body(request)).get("state")
        if wanted not in (OPEN, PAUSED, CLOSED):
            raise Refused(422, "no such state")
        desk.set_state(wanted)
        return JSONResponse({"state": wanted})

    @routes.post("/api/owner/voters")
    async def invite(request: Request) -> Response:
        check(request)
        name = (await read_body(request)).get("name")
        cleaned, fault = clean_voter(name) if isinstance(name, str) else ("", "it is no text")
        if fault:
            raise Refused(422, f"the name: {fault}", "give another name")
        _, token = desk.invite(cleaned)
        return JSONResponse({"link": f"/v/{token}"})

    @routes.post("/api/owner/voters/{number}")
    async def change(request: Request, number: int) -> Response:
        check(request)
        wanted = (await read_body(request)).get("state")
        if wanted == "renew":
            return JSONResponse({"link": f"/v/{desk.renew(number)}"})
        if wanted not in ("active", "excluded"):
            raise Refused(422, "no such state")
        desk.change(number, state=wanted)
        return JSONResponse({"state": wanted})

    return routes


def _check(desk: Desk, token: str) -> None:
    kept_hash = kept.setting(desk.connection, TOKEN, "")
    if not kept_hash or not hmac.compare_digest(kept_hash, hashed(token)):
        raise Refused(401, "this is the owner's page", "open the link that `finepref collect` printed")


class Boards:
    """The boards of all questions, made beside the server, so that voters do not wait: at most once in `EVERY` seconds,
    and so seldom that they take a small part of the time.
    """

    def __init__(self, desk: Desk, monotonic: Callable[[], float]) -> None:
        self.desk, self.monotonic, self.lock = desk, monotonic, asyncio.Lock()
        self.due, self.held = -math.inf, list[Ratings | None]()

    async def now(self) -> list[Ratings | None]:
        """A board for every question; None before two models met."""
        async with self.lock:
            began = self.monotonic()
            if began >= self.due:
                out = {number for number, seat in self.desk.seats.items() if seat.voter.state != ACTIVE}
                tally, count = self.desk.tally.copy(), len(self.desk.about.questions)
                self.held = await asyncio.to_thread(
                    lambda: [tally.board(number, excluded=out) for number in range(count)]
                )
                took = self.monotonic() - began
                self.due = began + max(EVERY, REST * took)
        return self.held


def _live(desk: Desk, made: Sequence[Ratings | None]) -> dict[str, Any]:
    """What the page shows. made: the boards."""
    about = desk.about
    found = [
        {"name": question.name, "text": question.text, "rows": [] if ratings is None else ratings.table(),
         "votes": 0 if ratings is None else ratings.votes, "pairs": 0 if ratings is None else undecided(ratings)}
        for question, ratings in zip(about.questions, made, strict=True)
    ]  # fmt: skip
    lines = [line_of(desk, seat) for seat in desk.seats.values()]
    return {
        "state": desk.state(), "boards": found, "voters": lines, "done": sum(line.done for line in lines),
        "models": len(about.models), "prompts": len({*about.prompts} - {""}) + about.prompts.count(""),
        "mode": about.mode,
    }  # fmt: skip


def undecided(ratings: Ratings) -> int:
    """Neighbours in the order whose intervals overlap."""
    rows = sorted(ratings.table(), key=lambda row: -row.mu)
    return sum(upper.low is None or lower.high is None or upper.low <= lower.high for upper, lower in pairwise(rows))


def line_of(desk: Desk, seat: Seat) -> VoterLine:
    """A voter as the owner sees them."""
    times = kept.times_of(desk.connection, seat.voter.id)
    median = statistics.median(times) / 1000 if times else None
    return VoterLine(seat.voter.id, seat.voter.called, seat.voter.state, seat.done, len(seat.waiting), median)
