"""The voter's page in a real browser, against a fake server: keys, mouse, touch, failures, two tabs, who cannot see."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import chromium
import pytest
from hands import CODES, click, middle, mouse, offline, press, ready, shown, tap, text, until, visit

from fake_vote_server import OVERALL, THREE, Study, serving

pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(chromium.find() is None, reason="no Chromium on this machine"),
]

HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "{{constructor.constructor('window.pwned=1')()}} \u2028 ${window.pwned=1} <!-- ]]>",
)
LONG = "an oil painting of an old lighthouse keeper who reads a letter by the light of a storm lantern, " * 6
# Waits of the page: that for the server is endless, so that nothing goes on by itself; the long ones are short.
CLOCK = """(() => { const real = window.setTimeout;
  window.setTimeout = (does, time, ...rest) =>
    time === 5000 ? 0 : real(does, time > 5000 && time <= 15000 ? 50 : time, ...rest);
})()"""
MODES = {
    "pair": Study, "rank": lambda **more: Study(**{"mode": "rank", "images": 4, **more}),
    "best": lambda **more: Study(**{"mode": "best", "images": 6, **more}),
}  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    page = chromium.Page(chromium.find(), tmp_path_factory.mktemp("profile"))
    page.call("Page.addScriptToEvaluateOnNewDocument", source=CLOCK)
    yield page
    page.close()


@pytest.fixture
def page(browser: chromium.Page) -> chromium.Page:
    browser.size(1280, 900)
    offline(browser, False)
    browser.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": "en"})
    return browser


# Helpers


def go(page: chromium.Page, study: Study) -> None:
    visit(page, f"{study.address}/vote")
    ready(page)


def prompt(page: chromium.Page) -> str:
    return page.run("document.querySelector('.prompt').textContent")


def kept(study: Study, count: int) -> list[dict[str, Any]]:
    """Wait until that many answers were kept, and return them."""
    until(lambda: len(study.answers) >= count, f"{count} answers")
    return study.answers


def waiting(page: chromium.Page) -> list[dict[str, Any]]:
    """What the browser holds that was not acknowledged."""
    return [json.loads(text) for text in page.run("Object.values(localStorage)")]


# What a voter sees


def test_the_page_asks_its_server_alone_and_reports_no_problem(page: chromium.Page) -> None:
    with serving(Study(prompts=HOSTILE)) as study:
        go(page, study)
        seen = [prompt(page)]
        for _ in HOSTILE[1:]:
            press(page, "ArrowLeft")
            ready(page)
            seen.append(prompt(page))
        assert seen == list(HOSTILE)
        assert page.run("typeof window.pwned") == "undefined"
        assert page.problems() == []
        assert all(url.startswith(f"{study.address}/") for url in page.requests())
        assert page.run("document.querySelectorAll('[style*=expression], main script, [onclick]').length") == 0
        assert page.run("[...document.images].map(i => i.alt)") == ["left picture", "right picture"]


def test_the_language_of_the_browser(page: chromium.Page) -> None:
    page.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"})
    with serving(Study()) as study:
        go(page, study)
        assert page.run("document.documentElement.lang") == "de"
        assert text(page, ".undo").startswith("Zurück")
        assert text(page, "#count") == "0 von 12"
        assert page.run("document.images[0].alt") == "linkes Bild"


@pytest.mark.parametrize(
    ("name", "answer"),
    [("ArrowLeft", "left"), ("ArrowRight", "right"), ("ArrowDown", "tie"), ("ArrowUp", "both_bad"), (" ", "skip")],
)
def test_a_pair_by_keys(page: chromium.Page, name: str, answer: str) -> None:
    with serving(Study(prompts=(LONG, "short"))) as study:
        page.size(1280, 420)  # so low that a key could scroll
        go(page, study)
        press(page, name)
        ready(page)
        assert prompt(page) == "short"
        assert page.run("scrollY") == 0
        (found,) = study.answers
        assert found["answers"] == {"overall": answer}
        assert (found["device"], found["input"], found["revision"]) == ("desktop", "key", 0)
        assert isinstance(found["milliseconds"], int)
        assert found["milliseconds"] >= 0
        assert found["loaded"] > 0
        assert text(page, "#count") == "1 of 12"
        assert page.run("document.activeElement.id") == "ballot"


def test_a_pair_by_mouse(page: chromium.Page) -> None:
    with serving(Study()) as study:
        go(page, study)
        wanted = {
            ".shot[data-place='0']": "left", ".shot[data-place='1']": "right", ".choice[data-value=tie]": "tie",
            ".choice[data-value=both_bad]": "both_bad", ".choice[data-value=skip]": "skip",
        }  # fmt: skip
        for selector in wanted:
            ready(page)
            click(page, selector)
        found = kept(study, 5)
        assert [each["answers"]["overall"] for each in found] == list(wanted.values())
        assert {each["input"] for each in found} == {"mouse"}


def test_tab_and_enter_are_enough(page: chromium.Page) -> None:
    with serving(Study()) as study:
        go(page, study)
        seen = []
        for _ in range(6):
            page.key("Tab", 9)
            seen.append(page.run("document.activeElement.className"))
        assert seen[:5] == ["shot", "shot", "choice", "choice", "choice"]
        press(page, " ")  # on a button it presses that button
        found = kept(study, 0)
        ready(page)
        assert found == []
        page.run("document.querySelector('.choice[data-value=tie]').focus()")
        page.key(" ", 32)
        page.run("document.querySelector('.choice[data-value=tie]').focus()")
        assert kept(study, 1)[0]["answers"] == {"overall": "tie"}
        assert study.answers[0]["input"] == "key"


@pytest.mark.parametrize("questions", [OVERALL, THREE], ids=["one", "three"])
@pytest.mark.parametrize("size", [(512, 512), (640, 360), (360, 640)], ids=["square", "wide", "tall"])
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_pair_fits_a_phone(page: chromium.Page, questions: Any, size: tuple[int, int], language: str) -> None:
    page.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})
    with serving(Study(questions=questions, size=size, prompts=(LONG, "short"))) as study:
        page.size(360, 640, touch=True)
        go(page, study)
        boxes = {
            what: page.run(
                f"[...document.querySelectorAll('{what}')].filter(n => n.checkVisibility())"
                ".map(n => n.getBoundingClientRect()).map(r => [r.left, r.top, r.right, r.bottom])"
            )
            for what in (".frame", ".choice", ".steer button", ".top button")
        }
        assert [len(found) for found in boxes.values()] == ([2, 3, 2, 1] if questions is OVERALL else [2, 15, 3, 1])
        for left, top, right, bottom in itertools.chain(*boxes.values()):
            assert 0 <= left < right <= 360
            assert 0 <= top < bottom <= 640
        assert min(right - left for left, _, right, _ in boxes[".frame"]) >= 84
        assert page.run("document.documentElement.scrollHeight") <= 640


def test_a_pair_by_touch(page: chromium.Page) -> None:
    with serving(Study()) as study:
        page.size(360, 640, touch=True)
        go(page, study)
        for selector in (".shot[data-place='1']", ".choice[data-value=tie]"):
            ready(page)
            tap(page, selector)
            ready(page)
        found = kept(study, 2)
        assert [each["answers"]["overall"] for each in found] == ["right", "tie"]
        assert {(each["input"], each["device"]) for each in found} == {("touch", "phone")}


def test_a_ranking_by_keys(page: chromium.Page) -> None:
    with serving(MODES["rank"]()) as study:
        go(page, study)
        press(page, "3", "1", "=", "2", "2")  # the second 2 says nothing new
        assert page.run("document.querySelector('.submit').getAttribute('aria-disabled')") == "true"
        press(page, "Enter", "4", "Enter")
        assert kept(study, 1)[0]["answers"] == {"overall": [2, 2, 1, 4]}
        press(page, "1", "2", "3", "4", "=", "Backspace", "Backspace", "Backspace", "=", "3", "4", "Enter")
        assert kept(study, 2)[1]["answers"] == {"overall": [1, 2, 2, 4]}
        press(page, " ", "Enter")
        assert kept(study, 3)[2]["answers"] == {"overall": "skip"}


def test_a_ranking_by_clicks(page: chromium.Page) -> None:
    with serving(MODES["rank"]()) as study:
        go(page, study)
        for place in (2, 0, 1, 3):
            click(page, f".shot[data-place='{place}']")
        click(page, ".chip[data-place='0']")  # out again, and last
        click(page, ".chip[data-place='0']")
        click(page, ".between[data-id='0.1-']")  # 2 and 4 are equal
        assert page.run("[...document.querySelectorAll('.shot .rank')].map(n => n.textContent)") == [
            "place 4", "place 2", "place 1", "place 2"
        ]  # fmt: skip
        click(page, ".submit")
        assert kept(study, 1)[0]["answers"] == {"overall": [4, 2, 1, 2]}


@pytest.mark.parametrize("finger", [False, True])
def test_a_ranking_by_dragging(page: chromium.Page, finger: bool) -> None:
    def drag(name: str, target: str, at: float = 0.5) -> None:
        start, end = middle(page, name), middle(page, target, at)
        half = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        if finger:
            page.touch("touchStart", start)
            page.touch("touchMove", half)
            page.touch("touchMove", end)
            page.touch("touchEnd")
        else:
            mouse(page, "mousePressed", start)
            mouse(page, "mouseMoved", half)
            mouse(page, "mouseMoved", end)
            mouse(page, "mouseReleased", end, 0)

    def chip(place: int) -> str:
        return f".chip[data-place='{place}']"

    with serving(MODES["rank"]()) as study:
        if finger:
            page.size(390, 844, touch=True)
        go(page, study)
        drag(chip(1) if finger else ".shot[data-place='1']", ".order")  # 2
        drag(chip(3), chip(1), 0.05)  # 4 2
        drag(chip(0), chip(1), 0.95)  # 4 2 1
        drag(chip(2), chip(3))  # 4=3 2 1
        assert page.run("document.querySelector('.ghost')") is None
        drag(chip(0), chip(1), 0.1)  # 4=3 1 2
        drag(chip(1), ".prompt")  # out
        assert page.run("document.querySelectorAll('.chip.placed').length") == 3
        drag(chip(1), chip(0), 0.98)
        (tap if finger else click)(page, ".submit")
        found = kept(study, 1)[0]
        assert found["answers"] == {"overall": [3, 4, 1, 1]}
        assert found["input"] == ("touch" if finger else "mouse")


def test_the_best_of_six(page: chromium.Page) -> None:
    with serving(MODES["best"]()) as study:
        go(page, study)
        press(page, "7", "0", "5")
        kept(study, 1)
        ready(page)
        click(page, ".shot[data-place='0']")
        assert [each["answers"]["overall"] for each in kept(study, 2)] == [4, 0]


def test_three_questions_on_one_screen(page: chromium.Page) -> None:
    with serving(Study(questions=THREE)) as study:
        go(page, study)
        assert page.run("[...document.querySelectorAll('.title')].map(n => n.textContent)") == [
            q["text"] for q in THREE
        ]
        press(page, "ArrowLeft", "ArrowDown", "Enter")
        assert study.answers == []
        press(page, "Backspace", "ArrowUp", "ArrowRight")
        assert study.answers == []  # it is complete, and can be looked at
        press(page, "Enter")
        assert kept(study, 1)[0]["answers"] == {"overall": "left", "appeal": "both_bad", "text": "right"}
        ready(page)
        for number, choice in ((2, "tie"), (0, "skip"), (1, "right")):
            click(page, f".ask:nth-child({number + 1}) [data-value={choice}]")
        click(page, ".submit")
        assert kept(study, 2)[1]["answers"] == {"overall": "skip", "appeal": "right", "text": "tie"}


def test_three_questions_of_the_other_modes(page: chromium.Page) -> None:
    with serving(MODES["best"](questions=THREE)) as study:
        go(page, study)
        press(page, "1", "6", " ", "Enter")
        assert kept(study, 1)[0]["answers"] == {"overall": 0, "appeal": 5, "text": "skip"}
    with serving(MODES["rank"](questions=THREE, images=3)) as study:
        go(page, study)
        press(page, *"123321", *"2=13", "Enter")
        assert kept(study, 1)[0]["answers"] == {"overall": [1, 2, 3], "appeal": [3, 2, 1], "text": [1, 1, 3]}


def test_keys_are_quiet_in_a_text_and_with_other_keys_held(page: chromium.Page) -> None:
    with serving(Study()) as study:
        go(page, study)
        page.run(
            "(() => { const i = document.createElement('input'); "
            "document.querySelector('main').append(i); i.focus(); })()"
        )
        for name in ("ArrowLeft", " ", "Backspace", "z"):
            page.key(name, CODES[name])
        page.run("document.activeElement.blur()")
        for modifier in (1, 2, 4):
            page.call(
                "Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft", windowsVirtualKeyCode=37, modifiers=modifier
            )
        page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft", windowsVirtualKeyCode=37, autoRepeat=True)
        assert study.answers == []
        assert not shown(page, ".zoomed")
        press(page, "ArrowRight")
        assert [each["answers"]["overall"] for each in kept(study, 1)] == ["right"]


def test_zoom_shows_the_same_place_of_all_pictures(page: chromium.Page) -> None:
    looks = (
        "[...document.querySelectorAll('.frame img')].map(i => getComputedStyle(i))"
        ".map(s => [s.transform, s.transformOrigin])"
    )
    with serving(MODES["best"]()) as study:
        go(page, study)
        mouse(page, "mouseMoved", middle(page, ".shot[data-place='2'] .frame", 0.25), 0)
        press(page, "z")
        first, *others = page.run(looks)
        assert first[0] != "none"
        assert all(other == first for other in others)
        page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", windowsVirtualKeyCode=39, modifiers=8)
        assert page.run(looks)[0][1] != first[1]
        press(page, "z")
        assert page.run(looks)[0][0] == "none"
        where = middle(page, ".shot[data-place='2'] .frame", 0.25)
        mouse(page, "mousePressed", where)
        until(lambda: shown(page, ".zoomed"), "zoom while the button is held")
        assert page.run(looks)[3] == first
        mouse(page, "mouseReleased", where, 0)
        assert not shown(page, ".zoomed")
        ready(page)
        assert study.answers == []


def test_a_finger_that_stays_looks_closer(page: chromium.Page) -> None:
    with serving(Study()) as study:
        page.size(390, 844, touch=True)
        go(page, study)
        page.touch("touchStart", middle(page, ".shot[data-place='0'] .frame"))
        until(lambda: shown(page, ".zoomed"), "zoom while the finger stays")
        page.touch("touchMove", middle(page, ".shot[data-place='0'] .frame", 0.2))
        assert shown(page, ".zoomed")
        page.touch("touchEnd")
        until(lambda: not shown(page, ".zoomed"), "no zoom")
        assert study.answers == []
        tap(page, ".zoom")
        assert shown(page, ".zoomed")
        tap(page, ".shot[data-place='0']")
        assert kept(study, 1)[0]["answers"] == {"overall": "left"}


# Undo, pause, states


def test_undo_shows_the_last_set_with_its_answers(page: chromium.Page) -> None:
    with serving(Study(prompts=("one", "two", "three"))) as study:
        go(page, study)
        assert page.run("document.querySelector('.undo').getAttribute('aria-disabled')") == "true"
        press(page, "ArrowLeft", "ArrowRight", "Backspace")
        ready(page)
        assert prompt(page) == "two"
        assert page.run("[...document.querySelectorAll('.shot')].map(n => n.getAttribute('aria-pressed'))") == [
            "false",
            "true",
        ]
        press(page, "ArrowDown")
        ready(page)
        assert prompt(page) == "three"
        assert study.kept() == {0: {"overall": "left"}, 1: {"overall": "tie"}}
        assert [each["revision"] for each in study.answers] == [0, 0, 1]
        press(page, "Backspace", "Backspace")
        ready(page)
        assert prompt(page) == "one"
        press(page, "Backspace")
        ready(page)
        assert "nothing to take back" in text(page, ".ballot .note")


def test_undo_of_a_ranking_brings_its_order_back(page: chromium.Page) -> None:
    with serving(MODES["rank"](images=3)) as study:
        go(page, study)
        press(page, "2", "=", "3", "1", "Enter", "Backspace")
        ready(page)
        order = page.run("[...document.querySelectorAll('.order .placed, .order .between')].map(n => n.textContent)")
        assert order == ["2", "=", "3", ">", "1"]
        press(page, "Enter")
        assert kept(study, 2)[1]["answers"] == {"overall": [3, 1, 1]}


def test_a_break_hides_the_pictures_and_stops_the_clock(page: chromium.Page) -> None:
    with serving(Study()) as study:
        go(page, study)
        click(page, "#pause")
        assert not shown(page, ".shot")
        assert text(page, "#headline") == "A break"
        assert page.run("document.activeElement.id") == "act"
        page.key("ArrowLeft", 37)
        page.run("(now => { performance.now = () => now() + 3600000; })(performance.now.bind(performance))")  # an hour
        page.key("Enter", 13)
        ready(page)
        assert shown(page, ".shot")
        click(page, ".choice[data-value=tie]")
        (found,) = kept(study, 1)
        assert found["answers"] == {"overall": "tie"}
        assert found["milliseconds"] < 3600000


def test_thank_you_and_the_last_answer_can_be_changed(page: chromium.Page) -> None:
    with serving(Study(of=2)) as study:
        go(page, study)
        assert page.run("[document.querySelector('#bar').max, document.querySelector('#bar').value]") == [2, 0]
        press(page, "ArrowLeft", "ArrowLeft")
        until(lambda: text(page, "#headline") == "Thank you!", "thanks")
        assert text(page, "#count") == "2 of 2"
        assert not shown(page, ".shot")
        assert page.run("document.activeElement.id") == "act"
        click(page, "#act")
        ready(page)
        press(page, "ArrowRight")
        until(lambda: text(page, "#headline") == "Thank you!", "thanks again")
        assert study.kept() == {0: {"overall": "left"}, 1: {"overall": "right"}}


def test_paused_and_closed_studies(page: chromium.Page) -> None:
    with serving(Study(of=None)) as study:
        go(page, study)
        assert text(page, "#count") == "0 done"
        assert not shown(page, "#bar")
        study.state = "paused"
        press(page, "ArrowLeft")
        until(lambda: "paused" in text(page, "#headline"), "a note")
        assert study.answers == []
        assert [entry["answers"] for entry in waiting(page)] == [{"overall": "left"}]
        study.state = "open"
        ready(page)
        assert study.kept() == {0: {"overall": "left"}}  # it had waited in the browser
        assert waiting(page) == []
        study.state = "closed"
        press(page, "ArrowLeft")
        until(lambda: "closed" in text(page, "#headline"), "thanks")
        assert "was not taken" in text(page, "#note")
        assert len(study.answers) == 1


# What fails


def test_the_page_waits_until_the_answer_is_kept(page: chromium.Page) -> None:
    with serving(Study(prompts=("one", "two"))) as study:
        go(page, study)
        study.gate.clear()
        press(page, "ArrowLeft")
        until(lambda: ("POST", "/api/answers") in study.asked, "the answer")
        for name in ("ArrowRight", "Backspace", " "):
            page.key(name, CODES[name])
        until(lambda: "being saved" in text(page, ".ballot .note"), "a note")
        assert prompt(page) == "one"
        assert len(waiting(page)) == 1
        study.gate.set()
        ready(page)
        until(lambda: prompt(page) == "two", "the next set")
        assert [each["answers"]["overall"] for each in study.answers] == ["left"]
        assert waiting(page) == []


@pytest.mark.parametrize("failure", [500, 503, 429, 0, -1])
def test_a_server_that_fails_for_a_while(page: chromium.Page, failure: int) -> None:
    """500 and the like, connections that break, and those that break when the answer was kept."""
    with serving(Study(failing=failure, prompts=("one", "two", "three", "four"))) as study:
        go(page, study)
        press(page, "ArrowLeft")
        until(
            lambda: "No connection" in text(page, "#note") and "One answer waits" in text(page, "#note"), "a calm note"
        )
        ready(page)
        assert prompt(page) == "two"
        study.failing = None
        press(page, "ArrowRight")
        until(lambda: not shown(page, "#note"), "the answers to be sent")
        ready(page)
        assert prompt(page) == "three"
        assert study.kept() == {0: {"overall": "left"}, 1: {"overall": "right"}}
        assert len(study.answers) == 2
        assert waiting(page) == []


def test_an_answer_that_is_kept_but_not_acknowledged_counts_once(page: chromium.Page) -> None:
    """Its acknowledgement is on the way, or lost, when the sets that are out say already that it was kept."""
    with serving(Study(failing=-1, prompts=("one", "two", "three"))) as study:
        go(page, study)
        press(page, "ArrowLeft")
        ready(page)
        press(page, "ArrowLeft")
        kept(study, 1)
        until(lambda: study.asked.count(("GET", "/api/sets?count=4")) >= 1, "sets with two answers waiting")
        ready(page)
        assert prompt(page) == "three"
        assert text(page, "#count") == "2 of 12"
        study.failing = None
        until(lambda: waiting(page) == [], "the answers to be sent")
        assert text(page, "#count") == "2 of 12"


def test_sets_that_come_late_do_not_turn_the_count_back(page: chromium.Page) -> None:
    """An answer overtakes sets that were asked for before it: what they say of progress is old, and none is missed."""
    with serving(Study(of=4, prompts=("one", "two", "three", "four"))) as study:
        go(page, study)
        page.run(
            "(window.counts = [], new MutationObserver(() => counts.push(document.querySelector('#count').textContent))"
            ".observe(document.querySelector('#count'), {childList: true}))"
        )
        study.late.clear()
        press(page, "ArrowLeft")
        asked = len(study.asked)
        ready(page)
        until(lambda: any(path.startswith("/api/sets?") for _, path in study.asked[asked - 1 :]), "sets")
        press(page, "ArrowLeft")
        kept(study, 2)
        study.late.set()
        ready(page)
        assert prompt(page) == "three"
        press(page, "ArrowLeft", "ArrowLeft")
        until(lambda: text(page, "#headline") == "Thank you!", "thanks")
        assert page.run("counts") == [f"{n} of 4" for n in range(1, 5)]
        assert len(study.kept()) == 4


def test_offline_goes_on_with_what_is_loaded_and_sends_it_later(page: chromium.Page) -> None:
    with serving(Study(prompts=("one", "two", "three"))) as study:
        go(page, study)
        until(lambda: sum(path.endswith("/1") for _, path in study.asked) >= 2, "the next set ahead")
        until(
            lambda: page.run("performance.getEntriesByType('resource').filter(e => e.name.endsWith('/1')).length") >= 2,
            "it",
        )
        offline(page, True)
        press(page, "ArrowLeft")
        ready(page)
        assert prompt(page) == "two"
        press(page, "ArrowUp")
        until(lambda: text(page, "#headline") == "No connection", "a screen")
        assert "2 answers wait" in text(page, "#note")
        assert text(page, "#count") == "2 of 12"
        assert study.answers == []
        offline(page, False)
        ready(page)
        assert prompt(page) == "three"
        assert study.kept() == {0: {"overall": "left"}, 1: {"overall": "both_bad"}}
        assert waiting(page) == []
        assert not shown(page, "#note")


def test_undo_without_a_connection(page: chromium.Page) -> None:
    with serving(Study(prompts=("one", "two", "three"))) as study:
        go(page, study)
        until(
            lambda: page.run("performance.getEntriesByType('resource').filter(e => e.name.endsWith('/1')).length") >= 2,
            "it",
        )
        offline(page, True)
        press(page, "ArrowLeft")
        ready(page)
        press(page, "Backspace")  # it was tried, so that the server may have it
        ready(page)
        assert "cannot be taken back" in text(page, ".ballot .note")
        assert prompt(page) == "two"
        offline(page, False)
        until(lambda: waiting(page) == [], "the answer to be sent")
        press(page, "Backspace", "ArrowRight")
        kept(study, 2)
        assert study.kept() == {0: {"overall": "right"}}


def test_a_reload_loses_nothing_and_counts_nothing_twice(page: chromium.Page) -> None:
    with serving(MODES["rank"](prompts=("one", "two", "three"))) as study:
        go(page, study)
        press(page, *"1234", "Enter", "2", "1")
        assert prompt(page) == "two"
        go(page, study)
        assert prompt(page) == "two"
        study.failing = 500
        press(page, *"4321", "Enter")
        until(lambda: prompt(page) == "three", "the next set")
        assert len(waiting(page)) == 1
        study.failing = None
        go(page, study)  # the answer waited in the browser
        assert prompt(page) == "three"
        assert study.kept() == {0: {"overall": [1, 2, 3, 4]}, 1: {"overall": [4, 3, 2, 1]}}
        assert len(study.answers) == 2
        assert waiting(page) == []


def test_two_tabs_do_not_disturb_each_other(page: chromium.Page) -> None:
    with serving(Study(prompts=("one", "two", "three", "four"))) as study:
        go(page, study)
        with page.second_tab() as drive:
            page.call("Page.addScriptToEvaluateOnNewDocument", source=CLOCK)
            go(page, study)
            assert prompt(page) == "one"
            drive(0)
            press(page, "ArrowLeft")
            ready(page)
            drive(1)
            press(page, "ArrowRight")  # another answer to the same set
            ready(page)
            assert prompt(page) == "two"
            assert "answered already" in text(page, "#note")
            press(page, "ArrowRight")
            ready(page)
            drive(0)
            press(page, "ArrowRight", "ArrowDown")  # the first says the same as the other tab
            ready(page)
        assert study.kept() == {0: {"overall": "left"}, 1: {"overall": "right"}, 2: {"overall": "tie"}}
        assert len(study.answers) == 3
        assert waiting(page) == []


def test_answers_of_another_voter_of_this_browser_stay(page: chromium.Page) -> None:
    """A set that the server does not know for this voter may be another's, whose link is opened later."""
    entry = {"set": f"{99:032x}", "revision": 0, "answers": {"overall": "left"}, "at": 1, "tried": True}
    with serving(Study()) as study:
        go(page, study)
        page.run(f"localStorage.setItem('finepref.answer.x.0', {json.dumps(json.dumps(entry))})")
        page.run("localStorage.removeItem('finepref.answer.x.0')")
        name = f"finepref.answer.{entry['set']}.0"
        page.run(f"localStorage.setItem({json.dumps(name)}, {json.dumps(json.dumps(entry))})")
        go(page, study)
        assert text(page, "#count") == "0 of 12"
        press(page, "ArrowLeft")
        kept(study, 1)
        ready(page)
        assert [each["set"] for each in waiting(page)] == [entry["set"]]
        study.given = 100  # now it is known
        go(page, study)
        kept(study, 2)
        until(lambda: waiting(page) == [], "it is sent")


def test_without_storage_the_page_waits_for_the_server(page: chromium.Page) -> None:
    with serving(Study(failures=[500], prompts=("one", "two"))) as study:
        go(page, study)
        page.run("Storage.prototype.setItem = () => { throw new Error('full'); }")
        press(page, "ArrowLeft")
        until(lambda: not study.failures, "a failure")
        assert prompt(page) == "one"
        ready(page)
        assert prompt(page) == "two"
        assert study.kept() == {0: {"overall": "left"}}


def test_a_picture_that_does_not_load_is_tried_again_and_can_be_skipped(page: chromium.Page) -> None:
    with serving(Study(prompts=("one", "two", "three"), missing={f"/api/sets/{n:032x}/1" for n in (0, 1)})) as study:
        page.call("Page.navigate", url="about:blank")
        page.call("Page.navigate", url=f"{study.address}/vote")
        until(lambda: "do not load" in text(page, ".ballot .note"), "a note")
        page.key("ArrowLeft", 37)
        assert study.answers == []
        page.key(" ", 32)
        assert kept(study, 1)[0]["answers"] == {"overall": "skip"}
        until(lambda: prompt(page) == "two" and "do not load" in text(page, ".ballot .note"), "the next set")
        study.missing.clear()
        ready(page)
        assert not shown(page, ".ballot .note")
        press(page, "ArrowLeft")
        assert kept(study, 2)[1]["answers"] == {"overall": "left"}


# Everybody can vote


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("questions", [OVERALL, THREE], ids=["one", "three"])
def test_nothing_is_wider_than_the_window_or_small_for_a_finger(page: chromium.Page, mode: str, questions: Any) -> None:
    with serving(MODES[mode](questions=questions, prompts=("word" * 60,))) as study:
        for width, height in ((320, 600), (360, 640), (768, 1024), (1280, 800)):
            page.size(width, height, touch=width < 1000)
            go(page, study)
            assert page.run("document.documentElement.scrollWidth") <= width
            sizes = page.run(
                "[...document.querySelectorAll('.choice, .steer button, .top button, .shot, .chip')]"
                ".filter(n => n.checkVisibility()).map(n => n.getBoundingClientRect()).map(r => [r.width, r.height])"
            )
            assert min(min(size) for size in sizes) >= 24  # WCAG 2.2, 2.5.8


CONTRAST = """(() => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const paint = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const c of colours) { context.fillStyle = c; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = (rgb) => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const words = [...node.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!words || !node.checkVisibility({ visibilityProperty: true })) continue;
    if (node.closest('.quiet, [aria-disabled=true]')) continue;
    const back = [];
    for (let up = node; up; up = up.parentElement) back.unshift(getComputedStyle(up).backgroundColor);
    const [a, b] = [paint(back), paint([...back, getComputedStyle(node).color])].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, node.className + ' ' + node.textContent.slice(0, 30)]);
  }
  return found;
})()"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_contrast_and_names(page: chromium.Page, mode: str, dark: bool) -> None:
    with serving(MODES[mode](questions=THREE)) as study:
        page.size(1280, 900, dark=dark)
        go(page, study)
        press(page, *{"pair": ("ArrowLeft",), "rank": ("1", "=", "2"), "best": ("1",)}[mode])
        found = page.run(CONTRAST)
        assert len(found) > 10
        assert min(found)[0] >= 4.5, min(found)
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        named = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
            and node["role"]["value"] in ("button", "image", "group", "heading", "progressbar", "status")
        ]
        assert [role for role, name in named if not name and role != "status"] == []
        buttons = [name for role, name in named if role == "button"]
        pictures = {"pair": ["left picture", "right picture"], "rank": [f"picture {n}" for n in range(1, 5)],
                    "best": [f"picture {n}" for n in range(1, 7)]}[mode]  # fmt: skip
        assert buttons[1 : 1 + len(pictures)] == pictures
        groups = [name for role, name in named if role == "group"]
        assert groups == [prompt(page), *(question["text"] for question in THREE)]


def test_motion_is_reduced_on_request(page: chromium.Page) -> None:
    with serving(Study()) as study:
        go(page, study)
        moving = (
            "[...document.querySelectorAll('*')].map(n => getComputedStyle(n))"
            ".filter(s => s.transitionDuration !== '0s' || s.animationName !== 'none').length"
        )
        assert page.run(moving) == 0
