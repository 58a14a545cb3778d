"""Simulated people who vote on the page of `finepref collect` as browsers do: over HTTP, set by set."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx2
import numpy as np

from finepref.core import rng
from finepref.core.errors import InputError
from finepref.core.images import open_rgb
from finepref.lab import crowd as voters
from finepref.lab.people import KINDS, Person, answer_of
from finepref.lab.world import Judgement, judge

OWNER = "/admin/"
PATIENCE = 60.0
"""Seconds that a person goes on asking a server that does not answer."""
AGAIN = 0.2
DEALT = {"device": "desktop", "input": "mouse", "loaded": 0}


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Answers that the server said it has kept. seconds: how long it took."""

    shown: str
    revision: int
    answers: Mapping[str, Any]
    seconds: float


@dataclass(slots=True)
class Visit:
    """What one person did. kept: in order. asked: seconds of each request for sets."""

    person: Person
    kept: list[Acknowledged] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Hall:
    """Where people vote. sight: what every picture is worth, once somebody looked. votes, pace: see `visit_all`."""

    home: str
    crowd: voters.Crowd
    votes: int
    pace: float
    told: Callable[[Visit], None]
    sight: dict[tuple[bytes, str], Judgement] = field(default_factory=dict)


def people(counts: Mapping[str, int], *, seed: int) -> list[Person]:
    """So many of each kind, numbered through; their names say kind, seed and number."""
    kinds = [kind for kind in KINDS for _ in range(counts.get(kind, 0))]
    return [Person(f"{kind} {seed}-{number + 1}", kind, number) for number, kind in enumerate(kinds)]


async def visit_all(
    url: str,
    found: Sequence[Person],
    *,
    votes: int,
    seed: int,
    pace: float = 0.0,
    told: Callable[[Visit], None] = lambda visit: None,
) -> list[Visit]:
    """Let people vote side by side until each has given so many answers, or the study gives no more sets.

    Args:
        url: the owner's link, by which each person is invited; or a personal link, for one person.
        votes: sets that each person answers at most.
        pace: seconds between two sets of a person; the first comes at a random time within them.
        told: called after every answer that was kept.

    Raises:
        InputError: no such page, several people for one link, or pictures that are not of the lab's world.
    """
    where = _split(url)
    home = f"{where.scheme}://{where.netloc}"
    async with _client(home) as owner:
        if where.path.startswith(OWNER):
            await _told(owner, "GET", where.path)
            links = [await _invite(owner, person) for person in found]
        elif len(found) == 1:
            links = [where.path or "/"]
        else:
            raise InputError(f"{len(found)} people share one link", where=url, remedy="give the owner's link")
    hall = _Hall(home, voters.crowd(seed, voters=len(found)), votes, pace, told)
    visits = [Visit(person) for person in found]
    jobs = (
        _visit(hall, link, visit, rng.numpy_generator(seed, "voters", place))
        for place, (link, visit) in enumerate(zip(links, visits, strict=True))
    )
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(job)
    return visits


def _split(url: str) -> SplitResult:
    try:
        where = urlsplit(url)
        whole = where.scheme in ("http", "https") and bool(where.hostname)
    except ValueError:
        whole = False
    if not whole:
        raise InputError("no address of a page", where=url, remedy="give the link as `finepref collect` printed it")
    return where


def vote(url: str, found: Sequence[Person], **how: Any) -> list[Visit]:
    """`visit_all`, as a plain function."""
    try:
        return asyncio.run(visit_all(url, found, **how))
    except ExceptionGroup as several:  # the first says what is wrong
        first = next(iter(several.exceptions))
        raise first from None


def _client(home: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=home, headers={"Origin": home}, follow_redirects=True, timeout=30.0)


async def _told(client: httpx2.AsyncClient, method: str, path: str, **how: Any) -> httpx2.Response:
    """What the server says; a server that is away or busy is asked again for a minute, as the page does."""
    until, why = time.monotonic() + PATIENCE, ""
    while True:
        try:
            found = await client.request(method, path, **how)
            if found.status_code < 400 or found.status_code == 409:
                return found
            why = f"HTTP {found.status_code}: {found.text[:200]}"
            if found.status_code not in (429, 500, 502, 503):
                raise InputError(
                    why, where=path_of(client, path), remedy="give the link that `finepref collect` printed"
                )
        except (httpx2.HTTPError, OSError) as error:
            why = str(error) or type(error).__name__
        except httpx2.InvalidURL as error:
            raise InputError(f"no address ({error})", where="--url", remedy="give the link as it was printed") from None
        if time.monotonic() > until:
            remedy = "start it again with `finepref collect`"
            raise InputError(f"the server does not answer ({why})", where=str(client.base_url), remedy=remedy)
        await asyncio.sleep(AGAIN)


def path_of(client: httpx2.AsyncClient, path: str) -> str:
    """An address without the secret of a link."""
    return f"{client.base_url}{'/'.join(path.split('/')[:2])}"


async def _invite(owner: httpx2.AsyncClient, person: Person) -> str:
    answer = await _told(owner, "POST", "/api/owner/voters", json={"name": person.name})
    return str(_said(answer, "link"))


def _said(answer: httpx2.Response, key: str) -> Any:
    """A value of what the server says as JSON."""
    try:
        return answer.json()[key]
    except (ValueError, KeyError, TypeError):
        what = "what answers here is no page of `finepref collect`"
        raise InputError(what, where=str(answer.url.copy_with(path="/")), remedy="check the address") from None


async def _visit(hall: _Hall, link: str, visit: Visit, chance: np.random.Generator) -> None:
    """One person's visit, from the link to the last set."""
    await asyncio.sleep(hall.pace * float(chance.random()))
    async with _client(hall.home) as client:
        await _told(client, "GET", link)
        while len(visit.kept) < hall.votes:
            began = time.perf_counter()
            sets = _said(await _told(client, "GET", "/api/sets", params={"count": 2}), "sets")
            visit.asked.append(time.perf_counter() - began)
            if not sets:
                return
            for each in itertools.islice(sets, hall.votes - len(visit.kept)):
                await _answer(hall, client, each, visit, chance)
                hall.told(visit)
                await asyncio.sleep(hall.pace * float(chance.uniform(0.5, 1.5)))


async def _answer(
    hall: _Hall, client: httpx2.AsyncClient, each: Mapping[str, Any], visit: Visit, chance: np.random.Generator
) -> None:
    """Look at a set's pictures, answer its questions, and wait until that is kept."""
    judged = [
        _judged((await _told(client, "GET", image)).content, each["prompt"], hall.sight) for image in each["images"]
    ]
    shown = Judgement(*(np.concatenate([getattr(one, name) for one in judged]) for name in Judgement.__slots__))
    said = {
        question["name"]: answer_of(visit.person, hall.crowd, shown, each["mode"], chance)
        for question in each["questions"]
    }
    looked = int(1000 * float(np.exp(chance.normal(0.5, 0.4))))
    body = {"set": each["id"], "revision": each["revision"], "answers": said, "milliseconds": looked, **DEALT}
    began = time.perf_counter()
    found = await _told(client, "POST", "/api/answers", json=body)
    if found.status_code < 400:
        visit.kept.append(Acknowledged(each["id"], each["revision"], said, time.perf_counter() - began))


def _judged(content: bytes, prompt: str, sight: dict[tuple[bytes, str], Judgement]) -> Judgement:
    """Parts of the true quality of one picture; each is looked at once."""
    key = (content, prompt)
    if key not in sight:
        sight[key] = judge(np.asarray(open_rgb(content))[None], [prompt])
    return sight[key]
