"""Faults of the vote server, each as somebody met it: double answers, full disks, other hosts, names, lost files."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.unit.test_vote_site import MEASURED, Clock, Voter, desk_of, quick_disk, study

from finepref.collect.choices import chooser_of
from finepref.collect.desk import Desk, hashed, open_desk
from finepref.collect.keeping import forget_voter
from finepref.collect.owner import TOKEN
from finepref.collect.plain_choice import FewestFirst
from finepref.collect.refusal import Refused
from finepref.collect.seats import Seat
from finepref.collect.serving import open_study
from finepref.collect.site import Keeper
from finepref.collect.tally import NUMBERS
from finepref.core.errors import InputError
from finepref.formats import answers as kept
from finepref.formats.answers import PictureRow
from finepref.formats.collection import GoldSet, read_study, write_study

__all__ = ["quick_disk"]  # a fixture for every test
SECRET = "o" * 20
KEPT = {"overall": "left"}


def ticks() -> Any:
    return itertools.count(0.0, 1.0).__next__


def informed(folder: Path) -> Desk:
    about = read_study(folder)
    return open_desk(folder, lambda pictures: chooser_of(pictures, about), Clock())


class Failing:
    """A connection whose commits fail as long as `bad` says."""

    def __init__(self, desk: Desk) -> None:
        self.inner, self.bad = desk.connection, False
        desk.connection = desk.transaction.connection = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def execute(self, query: str, *given: Any) -> Any:
        if self.bad and query == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return self.inner.execute(query, *given)


def seat_of(desk: Desk, name: str = "anna") -> Seat:
    return desk.seats[desk.invite(name)[0].id]


def state_of(desk: Desk) -> dict[Any, Any]:
    """All that a desk knows of a study, to compare it with one that was opened anew."""
    chooser, tally = desk.chooser, desk.tally
    found: dict[Any, Any] = {
        number: (
            seat.voter, sorted((s.number, s.id) for s in seat.waiting), seat.shown, seat.done,
            seat.gold,
        )
        for number, seat in desk.seats.items()
    }  # fmt: skip
    rows = np.delete(tally._rows(), NUMBERS.index("game"), axis=1).tolist()
    whole = zip(rows, tally.answer, tally.time, tally.outcome, tally.bad, tally.stands, strict=True)
    found["tally"] = [row for row in whole if row[-1]]
    if isinstance(chooser, FewestFirst):
        met = {k: {one: two for one, two in m.beside.items() if two} for k, m in chooser.met.items()}
        found["chooser"] = (chooser.shown, chooser.often, {k: m for k, m in met.items() if m})
    else:
        held: Any = chooser
        for name in ("wins", "out_now", "times", "ahead", "precision"):
            found[name] = np.round(getattr(held, name), 9).tolist()
        for number, seen in held.seen.items():
            if seen.many.any():
                met = {pair: prompts for pair, prompts in seen.met.items() if prompts}
                found["seen", number] = (seen.many.tolist(), seen.busy.tolist(), seen.lead.tolist(), met)
    return found


def test_a_set_is_answered_once_whatever_revision_is_sent(tmp_path: Path) -> None:
    desk = desk_of(study(tmp_path))
    voter = Voter(desk, monotonic=ticks()).enter()
    (shown,) = voter.sets()
    assert voter.answer(shown, "left").json()["stored"]
    assert voter.answer(shown, "left").json()["stored"] is False
    for revision in (1, 2, 3):
        assert voter.answer({**shown, "revision": revision}, "left").status_code == 409
    assert len(list(kept.answered_after(desk.connection))) == len(desk.tally) == 1
    again = voter.post("/api/undo", {}).json()["set"]
    assert voter.answer(again, "left").json()["stored"]
    assert voter.answer({**shown, "revision": 0}, "left").json()["stored"] is False
    assert voter.answer({**shown, "revision": 2}, "left").status_code == 409
    assert sum(desk.tally.stands) == 1


@pytest.mark.parametrize("options", [{"choice": "fewest-first"}, {}, {"purpose": "training"}, {"repeat_every": 4}])
def test_what_was_not_kept_has_not_happened(tmp_path: Path, options: dict[str, Any]) -> None:
    """After any mix of sets, answers and undoing, with failing commits between: the desk knows what the file holds."""
    more = {name: options.pop(name) for name in [*options] if name == "repeat_every"}
    folder = study(tmp_path, prompts=20, **options)
    about = read_study(folder)
    with kept.reading_votes(folder / kept.VOTES) as connection:
        pictures = {(each.model, each.prompt): each.id for each in kept.pictures_of(connection)}
    gold = tuple(GoldSet((pictures[0, k], pictures[1, k]), 0) for k in range(2))
    write_study(folder, dataclasses.replace(about, gold=gold, gold_every=5, **more))
    desk, chance = informed(folder), np.random.default_rng(4)
    seat, disk, lost = seat_of(desk), Failing(desk), 0
    for step in range(120):
        disk.bad = bool(chance.random() < 0.3)
        try:
            for _ in range(int(chance.integers(1, 4))):
                sets = desk.sets(seat, int(chance.integers(1, 4)))
                if chance.random() < 0.2 and seat.done:
                    desk.undo(seat)
                elif sets:
                    said = {"overall": str(chance.choice(["left", "right", "tie", "skip"]))}
                    desk.store(seat, sets[0].id, desk.revision(sets[0].id), said, MEASURED)
            desk.commit()
        except Refused as refused:
            lost += refused.status == 503
        if step % 10 == 9 and not desk.connection.in_transaction:
            other = informed(folder)
            assert state_of(desk) == state_of(other)
            assert desk.seats[seat.voter.id] is seat
            other.connection.close()
    assert lost > 10
    assert seat.done > 10
    desk.connection.close()


def test_a_voter_without_a_link_goes_on_after_a_full_disk(tmp_path: Path) -> None:
    desk = desk_of(study(tmp_path, prompts=20))
    disk = Failing(desk)
    voter = Voter(desk, "x", local=desk.local(), monotonic=ticks())
    voter.jar = httpx.Cookies()
    home = {"Host": "localhost:8000"}
    assert voter("GET", "/api/sets", headers=home).status_code == 200
    disk.bad = True
    assert voter("GET", "/api/sets?count=4", headers=home).status_code == 503
    disk.bad = False
    for done in range(1, 4):
        shown = voter("GET", "/api/sets", headers=home).json()["sets"][0]
        body = {"set": shown["id"], "revision": 0, "answers": KEPT, **MEASURED}
        told = voter("POST", "/api/answers", json=body, headers={**home, "Origin": "http://localhost:8000"})
        assert told.json()["progress"]["done"] == done
    assert desk.local().done == len(desk.tally) == 3


def test_nobody_is_told_that_an_answer_is_kept_that_went_with_another_one_s(tmp_path: Path) -> None:
    """One request waits for the commit; what another one writes fails, which takes back both."""
    desk = desk_of(study(tmp_path, prompts=20))
    seat, disk = seat_of(desk), Failing(desk)

    async def run() -> None:
        keeper = Keeper(desk)
        desk.sets(seat, 2)
        waits = asyncio.create_task(keeper.kept())
        await asyncio.sleep(0)
        disk.bad = True
        with pytest.raises(Refused, match="could not be kept"):
            desk.invite("ben")
        disk.bad = False
        with pytest.raises(Refused, match="could not be kept"):
            await waits

    asyncio.run(run())
    assert (seat.waiting, seat.shown, len(desk.seats)) == ([], 0, 1)


def test_a_request_that_ended_leaves_the_others_their_commit(tmp_path: Path) -> None:
    desk = desk_of(study(tmp_path, prompts=20))
    seat = seat_of(desk)

    async def run() -> None:
        keeper = Keeper(desk)
        desk.sets(seat, 2)
        first, second = asyncio.create_task(keeper.kept()), asyncio.create_task(keeper.kept())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait_for(second, 60)

    asyncio.run(run())
    assert not desk.connection.in_transaction


@pytest.mark.parametrize("options", [{}, {"purpose": "training"}, {"choice": "fewest-first"}])
def test_who_is_excluded_chooses_no_sets(tmp_path: Path, options: dict[str, Any]) -> None:
    """As if they had only seen; the same after a restart; and back as before where they are let in again."""
    folder = study(tmp_path, prompts=12, **options)
    desk = informed(folder)
    anna, ben = seat_of(desk), seat_of(desk, "ben")
    for turn in range(8):
        for seat in (anna, ben):
            desk.store(seat, desk.sets(seat, 2)[0].id, 0, {"overall": ["left", "right"][turn % 2]}, MEASURED)
    desk.commit()
    restarted = informed(folder)
    before = _steering(restarted)
    assert _steering(desk) == pytest.approx(before, rel=0.05)
    restarted.connection.close()
    desk.change(ben.voter.id, state="excluded")
    again = informed(folder)
    excluded = _steering(again)
    assert _steering(desk) == pytest.approx(excluded)
    assert before != pytest.approx(excluded)
    if not options:
        assert again.chooser.wins.sum() == 8  # type: ignore[attr-defined]  # anna's answers alone
    assert desk.sets(ben, 2) == []
    assert state_of(desk)[ben.voter.id] == state_of(again)[ben.voter.id]
    desk.change(ben.voter.id, state="active")
    assert _steering(desk) == pytest.approx(before, rel=0.05)
    while sets := desk.sets(ben, 1):
        desk.store(ben, sets[0].id, 0, KEPT, MEASURED)
    shown = kept.shown_to(desk.connection, ben.voter.id)
    met = [frozenset(each.pictures) for each in shown if each.kind == "plain"]
    assert len(met) == len(set(met)), "what was seen stays seen"
    again.connection.close()
    desk.connection.close()


def _steering(desk: Desk) -> list[float]:
    """The numbers that choose sets; those of precision rest a little on the order of sets."""
    held: Any = desk.chooser
    if isinstance(held, FewestFirst):
        return [*map(float, held.shown), *map(float, held.often.values())]
    return np.concatenate(
        [np.ravel(getattr(held, n)) for n in ("wins", "out_now", "times", "ahead", "precision")]
    ).tolist()


def test_one_bad_voter_does_not_end_a_study_once_excluded(tmp_path: Path) -> None:
    folder = study(tmp_path, prompts=60)
    desk = informed(folder)
    bad = seat_of(desk)
    while sets := desk.sets(bad, 1):
        first, second = (desk.pictures[each].model for each in sets[0].pictures)
        desk.store(bad, sets[0].id, 0, {"overall": "left" if first < second else "right"}, MEASURED)
    desk.commit()
    assert desk.sets(seat_of(desk, "ben"), 1) == [], "every order is certain"
    desk.change(bad.voter.id, state="excluded")
    assert desk.sets(desk.seats[2], 1)
    desk.commit()
    desk.connection.close()
    again = informed(folder)
    assert again.sets(seat_of(again, "carl"), 1)
    again.connection.close()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1@evil", "", "127.0.0.2"]
)
def test_a_study_without_links_answers_under_its_own_address_only(tmp_path: Path, host: str) -> None:
    """A page of a name that leads to this machine would be of one origin with the study."""
    desk = desk_of(study(tmp_path))
    voter = Voter(desk, "x", local=desk.local())
    voter.jar = httpx.Cookies()
    for path in ("/api/sets", "/vote", "/admin", "/static/vote.js"):
        assert voter("GET", path, headers={"Host": host}).status_code == 403
    for own in ("localhost", "127.0.0.1:8000", "[::1]:65535", "LOCALHOST:1"):
        assert voter("GET", "/api/sets", headers={"Host": own}).status_code == 200
    assert desk.local().done == 0
    invited = Voter(desk, "ben").enter()
    assert invited("GET", "/api/sets", headers={"Host": "study.example"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://[bad", "ftp://study.test", "//study.test", "study.test", "http://x@study.test"]
)
def test_origins_that_are_none_are_refused(tmp_path: Path, origin: str) -> None:
    voter = Voter(desk_of(study(tmp_path))).enter()
    assert voter("POST", "/api/undo", json={}, headers={"Origin": origin}).status_code == 403


def test_an_owner_is_told_of_a_full_disk(tmp_path: Path) -> None:
    desk = desk_of(study(tmp_path))
    desk.set(TOKEN, hashed(SECRET))
    disk, owner = Failing(desk), Voter(desk, "anna")
    assert owner("GET", f"/admin/{SECRET}").status_code == 303
    before = [each.voter for each in desk.seats.values()]
    disk.bad = True
    for path, body in (
        ("/api/owner/voters", {"name": "ben"}), ("/api/owner/state", {"state": "closed"}),
        ("/api/owner/voters/1", {"state": "excluded"}), ("/api/owner/voters/1", {"state": "renew"}),
    ):  # fmt: skip
        told = owner.post(path, body)
        assert told.status_code == 503
        assert "full" in told.json()["error"]
    disk.bad = False
    assert [each.voter for each in desk.seats.values()] == before == kept.voters_of(desk.connection)
    assert desk.state() == "open"
    assert owner.enter().sets(), "the old link is still one"
    assert owner.post("/api/owner/voters", {"name": "ben"}).status_code == 200


def test_undoing_that_is_sent_again_takes_back_one_answer(tmp_path: Path) -> None:
    desk = desk_of(study(tmp_path))
    voter = Voter(desk, monotonic=ticks()).enter()
    first, second = voter.sets(2)
    for shown in (first, second):
        voter.answer(shown, "left")
    assert voter.post("/api/undo", {"set": first["id"]}).status_code == 409, "another one was answered last"
    told = [voter.post("/api/undo", {"set": second["id"]}).json() for _ in range(2)]
    assert told[0] == told[1]
    assert (told[0]["set"]["id"], told[0]["progress"]["done"]) == (second["id"], 1)
    (fresh,) = (each for each in voter.sets(2) if each["id"] != second["id"])
    assert voter.post("/api/undo", {"set": fresh["id"]}).status_code == 409, "it was never answered"
    assert voter.post("/api/undo", {"set": 3}).status_code == 422
    assert voter.post("/api/undo", {"set": "0" * 32}).status_code == 409
    assert voter("GET", "/api/state").json()["progress"]["done"] == 1
    assert voter.post("/api/undo", {"set": first["id"]}).json()["progress"]["done"] == 0


def test_cookies_are_of_one_study(tmp_path: Path) -> None:
    """A browser gives the cookies of a host to every port of it."""
    desks = []
    for name in "ab":
        (tmp_path / name).mkdir()
        desks.append(desk_of(study(tmp_path / name)))
    first, second = (Voter(desk, monotonic=ticks()) for desk in desks)
    for desk in desks:
        desk.set(TOKEN, hashed(SECRET + desk.about.id))
    second.jar = first.jar
    for voter in (first, second):
        voter.enter()
        assert voter("GET", f"/admin/{SECRET}{desks[voter is second].about.id}").status_code == 303
    for voter in (first, second):
        assert voter.sets()
        assert voter("GET", "/admin").status_code == 200
    assert len(first.jar) == 4


def test_no_two_voters_have_one_name(tmp_path: Path) -> None:
    folder = study(tmp_path)
    desk = desk_of(folder)
    desk.invite("anna")
    for name in ("anna", "me"):
        with pytest.raises(Refused, match=name) as refused:
            desk.invite(name)
        assert refused.value.status == 409
    assert desk.local() is desk.local()
    desk.connection.close()
    forget_voter(folder, "anna", votes=False)
    desk = desk_of(folder)
    for name in (desk.seats[1].voter.called, "forgotten voter 7"):
        with pytest.raises(Refused, match="voter"):
            desk.invite(name)  # as one is called who is forgotten, or will be
    desk.invite("voter 7")
    assert len(desk.seats) == 3
    desk.connection.close()


@pytest.mark.parametrize(
    ("voters", "said"),
    [(["a", "a"], "twice"), (["a", " a "], "twice"), (["me"], "kept for"), ([f"v{k}" for k in range(1001)], "1001")],
)
def test_names_that_cannot_be_invited(tmp_path: Path, voters: list[str], said: str) -> None:
    folder = study(tmp_path)
    with pytest.raises(InputError, match=said):
        open_study(folder, voters=voters, host="127.0.0.1", owner=None)
    with kept.reading_votes(folder / kept.VOTES) as connection:
        assert kept.voters_of(connection) == []


def test_a_forgotten_voter_counts_as_nobody_who_was_invited(tmp_path: Path) -> None:
    folder = study(tmp_path)
    for _ in range(2):
        opened = open_study(folder, voters=[], host="127.0.0.1", owner=None)
        assert opened.local is not None
        opened.desk.connection.close()
        forget_voter(folder, "me", votes=False)
    with pytest.raises(InputError, match="nobody is invited"):
        open_study(folder, voters=[], host="0.0.0.0", owner=None)
    opened = open_study(folder, voters=["anna"], host="127.0.0.1", owner=None)
    assert (opened.local, [*opened.links]) == (None, ["anna"])
    opened.desk.connection.close()
    opened = open_study(folder, voters=["anna", "ben"], host="127.0.0.1", owner=None)
    assert (opened.local, [*opened.links]) == (None, ["ben"])
    opened.desk.connection.close()


def test_a_picture_that_is_gone_or_elsewhere(tmp_path: Path) -> None:
    folder = study(tmp_path)
    (tmp_path / "secret.png").write_bytes(b"secret")
    desk = desk_of(folder)
    voter = Voter(desk, monotonic=ticks()).enter()
    (shown,) = voter.sets()
    file = desk.picture(desk.seats[1], shown["id"], 0)
    file.unlink()
    gone = voter("GET", shown["images"][0])
    assert (gone.status_code, gone.json()["error"]) == (410, "this picture is not there any more")
    file.symlink_to(tmp_path / "secret.png")
    assert voter("GET", shown["images"][0]).status_code == 404
    file.unlink()
    file.symlink_to(desk.picture(desk.seats[1], shown["id"], 1))
    assert voter("GET", shown["images"][0]).status_code == 404, "no links, wherever they lead"
    file.unlink()
    file.mkdir()
    assert voter("GET", shown["images"][0]).status_code == 410
    assert voter("GET", shown["images"][1]).status_code == 200
    for name in ("../../secret.png", "a" * 24 + ".png\n", "../pictures/" + file.name, file.name.upper(), "x.png"):
        desk.connection.execute("UPDATE picture SET name = ?", [name])
        desk.pictures = kept.pictures_of(desk.connection)
        assert voter("GET", shown["images"][1]).status_code == 404
    desk.connection.close()


def test_a_voter_who_has_seen_nearly_all_is_answered_at_once(tmp_path: Path) -> None:
    """Work is counted, not timed: 20 models, 30 prompts, 4 pictures a set, until nothing is left; and it is whole."""
    rows = [PictureRow(20 * p + m, m, p, "", "", 1, 1) for p in range(30) for m in range(20)]
    chooser, tried, sets = FewestFirst(rows, images=4, chance=np.random.default_rng(0)), [0], []
    inner = chooser._apart

    def counted(*given: Any) -> Any:
        tried[0] += 1
        return inner(*given)

    chooser._apart = counted  # type: ignore[method-assign, assignment]
    most = 0
    while True:
        tried[0] = 0
        found = chooser.choose(1)
        most = max(most, tried[0])
        if found is None:
            break
        sets.append(found)
    pairs = [frozenset(two) for each in sets for two in itertools.combinations(each, 2)]
    assert len(pairs) == len(set(pairs))
    met = set(pairs)
    for prompt in range(30):
        free = {frozenset(t) for t in itertools.combinations(range(20 * prompt, 20 * prompt + 20), 2)} - met
        assert not any(
            all(frozenset(two) in free for two in itertools.combinations(four, 2))
            for four in itertools.combinations(range(20 * prompt, 20 * prompt + 20), 4)
        ), "a set that nobody saw is left"
    assert most < 20_000
    tried[0] = 0
    assert chooser.choose(1) is None
    assert tried[0] == 0, "a voter who is done costs nothing"
