"""Checks on the voters of a study: read from its file, on the owner's page, beside an export; large studies."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from finepref.collect import ownerchecks
from finepref.collect.answer_columns import GOLD, PLAIN, REPEAT, SKIPPED, UNDECIDED
from finepref.collect.desk import hashed, open_desk
from finepref.collect.keeping import checks_beside, checks_of, export_votes
from finepref.collect.owner import TOKEN
from finepref.collect.plain_choice import FewestFirst
from finepref.collect.site import make_site
from finepref.collect.studychecks import check_study, place_of, read_columns
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.formats import answers as kept
from finepref.formats.answers import VOTES, Answer, PictureRow, ShownSet
from finepref.formats.collection import CollectionRecord, StudyQuestion, StudySource, write_study

SECRET = "owner's secret token"
WORDS = np.array(["left", "right", "tie"])


def record(**changes: Any) -> CollectionRecord:
    held: dict[str, Any] = {
        "mode": "pair", "images": 2, "questions": (StudyQuestion("overall", "Which?"),),
        "models": tuple("abcd"), "prompts": tuple(f"prompt {number}" for number in range(30)),
        "sources": tuple(StudySource(name, name, 30, "") for name in "abcd"), **changes,
    }  # fmt: skip
    return CollectionRecord(**held)


def write(folder: Path, about: CollectionRecord, rows: list[tuple[ShownSet, list[tuple[int, Any, int]]]]) -> None:
    """A study with sets and their answers (question, what was said, undone)."""
    (folder / "pictures").mkdir(parents=True)
    pictures = [
        PictureRow(number, number % 4, number // 4, f"{number}.png", "0" * 64, 8, 8)
        for number in range(4 * len(about.prompts))
    ]
    for picture in pictures:
        (folder / "pictures" / picture.name).touch()
    kept.create(folder / VOTES, pictures)
    write_study(folder, about)
    connection = kept.connect(folder / VOTES)
    with kept.whole(connection):
        for number in range(1 + max(shown.voter for shown, _ in rows)):
            kept.add_voter(connection, name=f"voter {number}", token=hashed(str(number)), at=0.0)
        for shown, said in rows:
            kept.add_shown(connection, shown)
            new = [
                Answer(0, shown.id, question, json.dumps(value), revision, 0.0, 1500, 120, "desktop", "key", undone)
                for revision, (question, value, undone) in enumerate(said)
            ]
            kept.add_answers(connection, new)
        kept.put_setting(connection, TOKEN, hashed(SECRET))
    connection.close()


def shown(name: str, voter: int, pictures: tuple[int, ...], kind: int = PLAIN, known: str = "") -> ShownSet:
    return ShownSet(name, voter, pictures, ("plain", "gold", "repeat")[kind], known, 0.0, 0)


def drawn(voters: int, answers: int, seed: int = 0) -> list[tuple[ShownSet, list[tuple[int, Any, int]]]]:
    """Voters with numbers from 1 who see models a > b > c > d; the last one answers by a coin."""
    rng, rows = numpy_generator(seed, "study checks"), []
    for voter in range(1, voters + 1):
        for number in range(answers):
            a, b = (4 * (number % 30) + rng.choice(4, 2, replace=False)).tolist()
            better = rng.random() < (0.95 if a < b else 0.05) if voter < voters else rng.random() < 0.5
            rows.append((shown(f"{voter}-{number}", voter, (a, b)), [(0, "left" if better else "right", 0)]))
    return rows


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write(tmp_path / "study", record(), drawn(8, 60))
    return tmp_path / "study"


def test_answers_become_columns(tmp_path: Path) -> None:
    """Known answers, repeats that are turned round, skips, ties, undone answers, another question."""
    about = record(questions=(StudyQuestion("overall", "Which?"), StudyQuestion("text", "Which fits?")))
    rows = [
        (shown("one", 1, (0, 1)), [(0, "left", 1), (0, "right", 0), (1, "left", 0)]),
        (shown("two", 1, (4, 5), GOLD, "right"), [(0, "left", 0)]),
        (shown("three", 1, (1, 0), REPEAT, "one"), [(0, "both_bad", 0)]),
        (shown("four", 2, (8, 10)), [(0, "skip", 0)]),
        (shown("five", 2, (10, 8), REPEAT, "four"), [(0, "tie", 0)]),
    ]
    write(tmp_path / "study", about, rows)
    with kept.reading_votes(tmp_path / "study" / VOTES) as connection:
        pictures = {each.id: each for each in kept.pictures_of(connection)}
        found = read_columns(connection, about, pictures, 0, 100)
        other = read_columns(connection, about, pictures, 1, 100)
        newest = read_columns(connection, about, pictures, 0, 1)
        assert kept.standing_answers(connection, 0) == 5
        assert kept.last_change(connection) == (7, 1)
    assert found.voter.tolist() == [1, 1, 1, 2, 2]
    assert found.kind.tolist() == [PLAIN, GOLD, REPEAT, PLAIN, REPEAT]
    assert found.position.tolist() == [1, 0, UNDECIDED, SKIPPED, UNDECIDED]
    assert found.known.tolist() == [UNDECIDED, 1, 0, UNDECIDED, UNDECIDED]  # picture 1 stands first in set three
    assert found.left_image.tolist() == [0, 4, 1, 8, 10]
    assert found.right_model.tolist() == [1, 1, 0, 2, 0]
    assert found.milliseconds.tolist() == [1500.0] * 5
    assert found.keyed.all()
    assert (other.voter.tolist(), other.position.tolist()) == ([1], [0])
    assert (newest.voter.tolist(), newest.kind.tolist()) == ([1, 2], [REPEAT, REPEAT])


@pytest.mark.parametrize(
    ("mode", "said", "place"),
    [
        ("pair", "left", 0), ("pair", "right", 1), ("pair", "tie", UNDECIDED), ("pair", "both_bad", UNDECIDED),
        ("pair", "skip", SKIPPED), ("best", 3, 3), ("best", "skip", SKIPPED), ("rank", [2, 3, 1, 4], 2),
        ("rank", [1, 1, 2], UNDECIDED), ("rank", "skip", SKIPPED),
    ],
)  # fmt: skip
def test_places_of_answers(mode: str, said: Any, place: int) -> None:
    assert place_of(mode, said) == place


def test_the_coin_is_found_and_an_excluded_voter_is_checked_too(study: Path) -> None:
    connection = kept.connect(study / VOTES)
    kept.change_voter(connection, 3, state="excluded")
    connection.close()
    (found,) = checks_of(study)
    assert (found.question, found.answers, found.looked_at) == ("overall", 480, 480)
    assert [each.name for each in found.voters] == [f"voter {number}" for number in range(8)]
    assert [each.name for each in found.voters if "agreement" in each.flagged] == ["voter 7"]
    assert [each.state for each in found.voters].count("excluded") == 1
    side, alpha = found.pooled
    assert 0 < alpha.low < alpha.value < alpha.high < 1
    assert not side.flagged


def test_a_cap_takes_the_newest_of_every_voter(study: Path) -> None:
    rows = {}
    with kept.reading_votes(study / VOTES) as connection:
        pictures = {each.id: each for each in kept.pictures_of(connection)}
        for most in (10, 1000):
            rows[most] = read_columns(connection, record(), pictures, 0, most)
    assert np.bincount(rows[10].voter)[1:].tolist() == [10] * 8
    late = [rows[1000].order[rows[1000].voter == voter][-10:] for voter in range(1, 9)]
    assert sorted(rows[10].order) == sorted(np.concatenate(late))


def test_a_study_without_answers_and_of_best_pictures(tmp_path: Path) -> None:
    about = record(mode="best", images=4)
    rng = numpy_generator(0, "best")
    rows = [
        (shown(f"{voter}-{number}", voter, tuple(4 * number + rng.permutation(4))), [(0, int(rng.integers(4)), 0)])
        for voter in (1, 2, 3) for number in range(30)
    ]  # fmt: skip
    rows = [(ShownSet(**{**_fields(each), "pictures": tuple(map(int, each.pictures))}), said) for each, said in rows]
    write(tmp_path / "study", about, rows)
    (found,) = checks_of(tmp_path / "study")
    for voter in found.voters:
        results = {each.check: each for each in voter.results}
        assert results["agreement"].value != results["agreement"].value
        assert 0 <= results["side"].p <= 1
    assert found.pooled[1].value == pytest.approx(0.0, abs=0.35)
    with kept.reading_votes(tmp_path / "study" / VOTES) as connection:
        (empty,) = check_study(connection, record(questions=(StudyQuestion("none", ""),)), [None], most=0)
    assert empty.looked_at == 90


def _fields(each: ShownSet) -> dict[str, Any]:
    return {name: getattr(each, name) for name in ShownSet.__slots__}


# Export and page


def test_an_export_has_the_checks_beside(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "votes.csv"
    assert export_votes(study, out) == 480
    held = json.loads((tmp_path / "votes.checks.json").read_text())
    assert held["kind"] == "voter checks"
    last = held["questions"][0]["voters"][-1]
    assert (last["name"], [one["check"] for one in last["results"] if one["flagged"]]) == ("voter 7", ["agreement"])
    assert held["questions"][0]["pooled"][1]["check"] == "alpha"
    export_votes(study, out)  # again, over its own
    checks_beside(out).write_text("mine")
    before = out.read_bytes()
    with pytest.raises(InputError, match="checks on voters"):
        export_votes(study, out)
    assert out.read_bytes() == before
    assert checks_beside(out).read_text() == "mine"


def ask(site: Any, *paths: str, owner: bool = True) -> list[httpx.Response]:
    """All of them at once."""

    async def run() -> list[httpx.Response]:
        cookies = {"finepref_owner": SECRET} if owner else {}
        transport = httpx.ASGITransport(site)
        async with httpx.AsyncClient(transport=transport, base_url="http://study.test", cookies=cookies) as client:
            return list(await asyncio.gather(*(client.get(path) for path in paths)))

    return asyncio.run(run())


def site_of(study: Path) -> tuple[Any, Any]:
    def choose(pictures: Any) -> FewestFirst:
        return FewestFirst(pictures, images=2, chance=np.random.default_rng(0))

    desk = open_desk(study, choose, lambda: 1e6)
    return desk, make_site(desk)


def test_the_owner_sees_what_an_export_holds(study: Path) -> None:
    desk, site = site_of(study)
    desk.change(8, name="<b>ben</b>")
    page, held = ask(site, "/admin-checks", "/api/owner/checks")
    found = held.json()["questions"]
    expected = checks_of(study)[0]
    assert [each["name"] for each in found[0]["voters"]] == [each.name for each in expected.voters]
    assert found[0]["pooled"][1]["value"] == expected.pooled[1].value
    for voter, one in zip(found[0]["voters"], expected.voters, strict=True):
        assert [each["p"] for each in voter["results"]] == [
            None if np.isnan(each.p) else each.p for each in one.results
        ]
    text = page.text
    assert "<b>ben" not in text
    assert "&lt;b&gt;ben&lt;/b&gt;: agreement</summary>" in text
    assert text.count("nothing stands out</summary>") == 7
    assert f"{expected.pooled[1].low:.2f} to {expected.pooled[1].high:.2f}" in text
    assert "480 of 480 answers were looked at." in text
    desk.connection.close()


def test_checks_are_the_owner_s_alone(study: Path) -> None:
    desk, site = site_of(study)
    assert [each.status_code for each in ask(site, "/admin-checks", "/api/owner/checks", owner=False)] == [401, 401]
    desk.connection.close()


def test_checks_are_made_anew_when_votes_or_voters_changed(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(*given: Any) -> Any:
        made.append(1)
        return check_study(*given)

    monkeypatch.setattr(ownerchecks, "check_study", counted)
    desk, site = site_of(study)
    for count in (1, 1):
        ask(site, "/admin-checks", "/api/owner/checks")
        assert len(made) == count
    desk.change(2, state="excluded")
    ask(site, "/admin-checks")
    assert len(made) == 2
    desk.undo(desk.seats[5])
    desk.commit()
    found = ask(site, "/api/owner/checks")[0].json()["questions"][0]
    assert (len(made), found["answers"]) == (3, 479)
    desk.connection.close()


def test_voters_do_not_wait_for_checks(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks end only after a voter's page was answered."""
    answered = threading.Event()

    def slow(*given: Any) -> Any:
        assert answered.wait(60), "nobody else was answered"
        return check_study(*given)

    monkeypatch.setattr(ownerchecks, "check_study", slow)
    desk, site = site_of(study)

    async def run() -> int:
        transport = httpx.ASGITransport(site)
        cookies = {"finepref_owner": SECRET}
        async with httpx.AsyncClient(transport=transport, base_url="http://study.test", cookies=cookies) as client:
            checks = asyncio.create_task(client.get("/admin-checks"))
            await asyncio.sleep(0.05)
            assert (await client.get("/static/vote.css")).status_code == 200
            answered.set()
            return (await checks).status_code

    assert asyncio.run(run()) == 200
    desk.connection.close()
