"""Checks on voters for the owner: made when they are asked for, beside the server, and held until votes change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from finepref.arena.ratings import Ratings
from finepref.collect.desk import Desk
from finepref.collect.pages import PAGES
from finepref.collect.studychecks import check_study
from finepref.core.provenance import provenance
from finepref.formats import answers as kept
from finepref.formats.voterchecks import QuestionChecks, checks_as_json


class OwnerChecks:
    """The checks of an open study. boards: of every question, as the owner sees them.

    They are made in a thread with a connection of its own, so that voters do not wait; one at a time.
    """

    def __init__(self, desk: Desk, boards: Callable[[], Awaitable[Sequence[Ratings | None]]]) -> None:
        self.desk, self.boards, self.lock = desk, boards, Lock()
        self.state: Any = None
        self.held = tuple[QuestionChecks, ...]()

    async def now(self) -> tuple[QuestionChecks, ...]:
        """The checks on the answers that are on disk."""
        return await asyncio.to_thread(self._read, list(await self.boards()))

    def _read(self, boards: Sequence[Ratings | None]) -> tuple[QuestionChecks, ...]:
        with self.lock, kept.reading_votes(self.desk.folder / kept.VOTES) as connection:
            state = kept.last_change(connection), kept.voters_of(connection)
            if state != self.state:
                self.held, self.state = check_study(connection, self.desk.about, boards), state
            return self.held


def check_routes(checks: OwnerChecks, guard: Callable[[Request], None]) -> APIRouter:
    """The checks as a part of a page and as JSON. guard: refuses who is not the owner."""
    routes = APIRouter()

    @routes.get("/admin-checks")
    async def part(request: Request) -> Response:
        guard(request)
        return HTMLResponse(PAGES.get_template("owner_checks.html.j2").render(questions=await checks.now()))

    @routes.get("/api/owner/checks")
    async def as_json(request: Request) -> Response:
        guard(request)
        return JSONResponse(checks_as_json(await checks.now(), provenance()))

    return routes
