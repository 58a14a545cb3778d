"""The site of a study over HTTP, in process: what voters get, what is kept, and what is refused."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from finepref.collect.desk import Desk, open_desk
from finepref.collect.founding import StudyOptions, found_study
from finepref.collect.plain_choice import FewestFirst
from finepref.collect.site import BURST, make_site
from finepref.core.errors import InputError
from finepref.formats import answers as kept
from finepref.formats.collection import StudyQuestion, read_study
from quick_disk import make_quick

MEASURED = {"milliseconds": 900, "loaded": 40, "device": "desktop", "input": "key"}
HERE = "http://study.test"
SAYS: Mapping[str, Any] = {"pair": "left", "best": 1, "rank": [2, 1, 2]}


class Clock:
    """Seconds that stand still until they are moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def folders(place: Path, *, models: int = 3, prompts: int = 5) -> list[str]:
    """A folder of pictures a model, each with its prompt in the file, as other tools write it."""
    from PIL.PngImagePlugin import PngInfo

    for model, prompt in itertools.product(range(models), range(prompts)):
        said = PngInfo()
        said.add_text("parameters", f"prompt {prompt}\nNegative prompt: bad\nSteps: 20")
        file = place / f"secret-{'abcdef'[model]}" / f"{prompt:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(100 * model + prompt).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, pnginfo=said)
    return [f"{'ABCDEF'[model]}={place / f'secret-{chr(97 + model)}'}" for model in range(models)]


def study(place: Path, *, prompts: int = 5, **options: Any) -> Path:
    folder = place / "study"
    folder.mkdir(exist_ok=True)
    found_study(folder, folders(place / "in", prompts=prompts), StudyOptions(**options))
    return folder


def desk_of(folder: Path, clock: Clock | None = None) -> Desk:
    images = read_study(folder).images
    return open_desk(
        folder, lambda pictures: FewestFirst(pictures, images=images, chance=np.random.default_rng(0)), clock or Clock()
    )


class Voter:
    """A voter's browser."""

    def __init__(self, desk: Desk, name: str = "anna", **site: Any) -> None:
        self.token = desk.invite(name)[1]
        self.site = make_site(desk, **site)
        self.jar = httpx.Cookies()

    def __call__(self, method: str, path: str, **how: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.site)
            async with httpx.AsyncClient(transport=transport, base_url=HERE, cookies=self.jar) as client:
                found = await client.request(method, path, **how)
                self.jar.update(client.cookies)
                return found

        return asyncio.run(ask())

    def enter(self) -> Voter:
        assert self("GET", f"/v/{self.token}").status_code == 303
        return self

    def sets(self, count: int = 1) -> list[dict[str, Any]]:
        return self("GET", f"/api/sets?count={count}").json()["sets"]

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self("POST", path, json=body, headers={"Origin": HERE, **headers})

    def answer(self, shown: Mapping[str, Any], said: Any, **more: Any) -> httpx.Response:
        answers = {question["name"]: said for question in shown["questions"]}
        body = {"set": shown["id"], "revision": shown["revision"], "answers": answers, **MEASURED, **more}
        return self.post("/api/answers", body)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


@pytest.fixture
def voter(tmp_path: Path) -> Iterator[Voter]:
    desk = desk_of(study(tmp_path))
    yield Voter(desk).enter()
    desk.connection.close()


@pytest.mark.parametrize("mode", ["pair", "best", "rank"])
def test_an_answer_is_kept_once_and_a_set_stays_until_it_is_answered(tmp_path: Path, mode: Any) -> None:
    questions = (StudyQuestion("overall", "Which?"), StudyQuestion("text", "Which fits?"))
    desk = desk_of(study(tmp_path, mode=mode, images=2 if mode == "pair" else 3, questions=questions))
    voter = Voter(desk).enter()
    first = voter.sets(2)
    assert voter.sets(2) == first, "asking again gives the same"
    assert len(first) == 2
    assert [each["name"] for each in first[0]["questions"]] == ["overall", "text"]
    assert first[0]["prompt"].startswith("prompt ")
    for _ in range(2):  # sent again, as after a lost connection
        told = voter.answer(first[0], SAYS[mode]).json()
        assert (told["progress"]["done"], told["state"]) == (1, "open")
    assert voter.answer(first[0], "skip").status_code == 409
    held = kept.answers_of_set(desk.connection, first[0]["id"])
    assert [json.loads(each.answer) for each in held] == [SAYS[mode]] * 2
    assert [each.question for each in held] == [0, 1]
    assert voter.sets(2)[0] == first[1]


def test_undo_and_answer_again(voter: Voter) -> None:
    """The undone answer stays in the file, marked; the next revision counts."""
    (shown,) = voter.sets()
    voter.answer(shown, "left")
    again = voter.post("/api/undo", {}).json()
    assert again["set"] == {**shown, "revision": 1, "answers": {"overall": "left"}}
    assert again["progress"]["done"] == 0
    assert voter.sets()[0] == again["set"]
    assert voter.answer(shown, "right").status_code == 409, "the revision is another one"
    assert voter.answer(again["set"], "right").json()["stored"]
    assert voter.post("/api/undo", {}).status_code == 200
    assert voter.post("/api/undo", {}).status_code == 409, "nothing is left to take back"


def test_what_was_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    folder = study(tmp_path)
    desk = desk_of(folder)
    voter = Voter(desk).enter()
    first, second = voter.sets(2)
    voter.answer(first, "tie")
    desk.connection.close()
    desk = desk_of(folder)
    voter.site = make_site(desk)
    assert voter("GET", "/api/state").json()["progress"]["done"] == 1
    assert voter.sets(2)[0] == second, "the same set is still out"
    assert voter.answer(first, "tie").json() | {"stored": None} == voter.answer(first, "tie").json() | {"stored": None}
    assert voter("GET", "/api/state").json()["progress"]["done"] == 1


def test_every_set_is_new_until_all_are_seen(tmp_path: Path) -> None:
    """Three models and five prompts: fifteen pairs, none twice but on purpose; then the study is done."""
    desk = desk_of(study(tmp_path))
    voter, met = Voter(desk, monotonic=itertools.count(0.0, 1.0).__next__).enter(), []
    while shown := voter.sets():
        voter.answer(shown[0], "left")
        held = kept.shown_by_id(desk.connection, shown[0]["id"])
        assert held is not None
        met += [tuple(sorted(held.pictures))] if held.kind == "plain" else []
    assert len(met) == len(set(met)) == 15
    assert voter("GET", "/api/sets").json()["state"] == "done"


def test_a_target_of_sets_ends_a_voter(tmp_path: Path) -> None:
    desk = desk_of(study(tmp_path, votes=2))
    voter = Voter(desk).enter()
    for _ in range(2):
        voter.answer(voter.sets(3)[0], "left")
    found = voter("GET", "/api/sets?count=3").json()
    assert (found["sets"], found["state"], found["progress"]) == ([], "done", {"done": 2, "of": 2})


def test_pictures_are_of_one_s_own_sets_and_say_nothing(voter: Voter, tmp_path: Path) -> None:
    (shown,) = voter.sets()
    found = [voter("GET", name) for name in shown["images"]]
    assert {each.headers["content-type"] for each in found} == {"image/png"}
    assert all(b"prompt" not in each.content and b"tEXt" not in each.content for each in found)
    heard = {name.lower() for each in found for name in each.headers}
    assert not heard & {"etag", "last-modified", "server", "date", "content-disposition"}
    for name in ("/api/sets/" + "0" * 32 + "/0", shown["images"][0][:-1] + "9", "/api/sets/..%2f..%2fstudy.json/0"):
        assert voter("GET", name).status_code == 404
    other = Voter(desk_of(tmp_path / "study"), "ben").enter()
    assert other("GET", shown["images"][0]).status_code == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"answers": {"overall": "both"}}, 422), ({"answers": {"overall": 0}}, 422), ({"answers": {}}, 422),
        ({"answers": {"overall": "left", "more": "left"}}, 422), ({"answers": "left"}, 422), ({"revision": "0"}, 422),
        ({"revision": 3}, 409), ({"set": "0" * 32}, 404), ({"set": None}, 422), ({"milliseconds": -1}, 422),
        ({"milliseconds": 1.5}, 422), ({"device": "x" * 100}, 422), ({"input": None}, 422),
        ({"more": "x" * 70_000}, 413),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_kept(voter: Voter, change: dict[str, Any], status: int) -> None:
    (shown,) = voter.sets()
    body = {"set": shown["id"], "revision": 0, "answers": {"overall": "left"}, **MEASURED, **change}
    found = voter.post("/api/answers", body)
    assert found.status_code == status
    assert found.json()["error"]
    assert voter("GET", "/api/state").json()["progress"]["done"] == 0


def test_strangers_other_sites_and_guessed_links_get_nothing(voter: Voter) -> None:
    (shown,) = voter.sets()
    body = {"set": shown["id"], "revision": 0, "answers": {"overall": "left"}, **MEASURED}
    for origin in ("http://evil.test", "null", "http://study.test.evil.test", ""):
        assert voter("POST", "/api/answers", json=body, headers={"Origin": origin}).status_code == 403
    assert voter("POST", "/api/answers", json=body).status_code == 403
    text = voter(
        "POST", "/api/answers", content=json.dumps(body), headers={"Origin": HERE, "Content-Type": "text/plain"}
    )
    assert text.status_code == 415
    assert voter.post("/api/answers", [1]).status_code == 400
    voter.jar = httpx.Cookies({"finepref_voter": "guess"})
    assert voter("GET", "/api/sets").status_code == 401
    assert voter("GET", "/vote").status_code == 401
    assert voter("GET", "/v/guess").status_code == 404
    assert voter("GET", "/static/../../study.json").status_code == 404
    assert voter("GET", "/docs").status_code == voter("GET", "/openapi.json").status_code == 404


def test_too_many_requests_are_told_to_wait(tmp_path: Path) -> None:
    desk, now = desk_of(study(tmp_path)), [0.0]
    voter = Voter(desk, monotonic=lambda: now[0]).enter()
    codes = [voter.post("/api/undo", {}).status_code for _ in range(int(BURST) + 2)]
    assert codes == [409] * int(BURST) + [429] * 2
    now[0] += 60.0
    assert voter.post("/api/undo", {}).status_code == 409


def test_a_person_whose_link_leads_nowhere_sees_a_page(voter: Voter) -> None:
    """As a page where a browser opened it, in its language; as JSON where a script asks."""
    for path, status in (("/v/nobody", 404), ("/admin/guess", 401)):
        told = voter("GET", path, headers={"Accept": "text/html,*/*", "Accept-Language": "de"})
        assert told.status_code == status
        assert told.headers["content-type"].startswith("text/html")
        assert "Dieser Link öffnet die Seite nicht" in told.text
        assert "default-src" in told.headers["content-security-policy"]
        assert voter("GET", path).json()["error"]


def test_headers_keep_pages_to_themselves(voter: Voter) -> None:
    for path in ("/api/state", "/api/nothing", "/static/nothing"):
        headers = voter("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"


def test_nothing_that_a_voter_gets_names_a_model(voter: Voter) -> None:
    heard = []
    for _ in range(6):
        (shown,) = voter.sets()
        heard += [json.dumps(shown), *(str(voter("GET", name).headers) for name in shown["images"])]
        voter.answer(shown, "left")
    assert not any("secret" in text for text in heard)
    assert not any(f'"{model}"' in text for text in heard for model in "ABC")


def test_pausing_closing_and_excluding(tmp_path: Path) -> None:
    desk = desk_of(study(tmp_path))
    voter = Voter(desk).enter()
    (shown,) = voter.sets()
    for state in ("paused", "closed"):
        kept.put_setting(desk.connection, "state", state)
        assert voter("GET", "/api/sets").json() | {"progress": None} == {"sets": [], "state": state, "progress": None}
        assert voter.answer(shown, "left").status_code == 409
    kept.put_setting(desk.connection, "state", "open")
    desk.change(1, state="excluded")
    assert voter("GET", "/api/sets").status_code == 403
    desk.change(1, state="active")
    assert voter.answer(shown, "left").json()["stored"]


def test_a_full_disk_acknowledges_nothing_and_the_answer_can_be_sent_again(tmp_path: Path) -> None:
    desk = desk_of(study(tmp_path, prompts=80))
    voter = Voter(desk, monotonic=itertools.count(0.0, 1.0).__next__).enter()
    assert voter.sets()
    pages = desk.connection.execute("PRAGMA page_count").fetchone()[0]
    desk.connection.execute(f"PRAGMA max_page_count = {pages}")
    codes = []
    for _ in range(400):  # until the pages that are there are full
        found = voter("GET", "/api/sets?count=1")
        codes.append(found.status_code)
        if codes[-1] == 200:
            codes.append(voter.answer(found.json()["sets"][0], "left").status_code)
        if codes[-1] != 200:
            break
    assert codes[-1] == 503
    desk.connection.execute("PRAGMA max_page_count = 1000000")
    done = voter("GET", "/api/state").json()["progress"]["done"]
    assert done == codes.count(200) // 2 == len({a.shown for a, _ in kept.answered_after(desk.connection)})
    assert voter.answer(voter.sets()[0], "left").json()["progress"]["done"] == done + 1


def test_names_that_are_hostile_are_text(tmp_path: Path) -> None:
    desk = desk_of(study(tmp_path))
    voter = Voter(desk, "<script>alert(1)</script>").enter()
    assert voter.sets()
    assert desk.seats[1].voter.name == "<script>alert(1)</script>"


def test_the_clock_may_step_back(tmp_path: Path) -> None:
    """Answers stay in the order in which they came."""
    clock = Clock()
    desk = desk_of(study(tmp_path), clock)
    voter = Voter(desk).enter()
    for back in (0.0, 3600.0, 10.0):
        clock.now -= back
        assert voter.answer(voter.sets()[0], "left").json()["stored"]
    assert [a.id for a, _ in kept.answered_after(desk.connection)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "rank", "images": 2}, "give 3 to 6"), ({"mode": "rank", "images": 4}, "of 3 models"),
        ({"preset": "other"}, "unknown preset"), ({"preset": "ksort", "mode": "pair"}, "fixes it"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_be(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        study(tmp_path, **options)
    assert not (tmp_path / "study" / kept.VOTES).exists()


def test_another_study_in_the_same_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = study(tmp_path)
    before = (folder / "study.json").read_bytes()
    assert study(tmp_path) == folder, "the same one goes on"
    with pytest.raises(InputError, match="another folder"):
        study(tmp_path, mode="best", images=3)
    assert (folder / "study.json").read_bytes() == before
