"""The owner's page in a real browser, against the real server: its buttons by the keyboard, a server that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from hands import CODES, click, press, shown, text, until, visit
from study_site import found, running

pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(chromium.find() is None, reason="no Chromium on this machine"),
]

HOSTILE = "<img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    page = chromium.Page(chromium.find(), tmp_path_factory.mktemp("profile"))
    page.size(1280, 900)
    yield page
    page.close()


def go_to(page: chromium.Page, selector: str) -> None:
    """Walk to an element by the keyboard."""
    for _ in range(40):
        if page.run(f"document.activeElement.matches({selector!r})"):
            return
        page.key("Tab", CODES["Tab"])
    raise AssertionError(f"Tab does not reach {selector}")


def test_voters_and_states_by_the_keyboard(page: chromium.Page, tmp_path: Path) -> None:
    folder = found(tmp_path, prompts=2)
    with running(folder, voters=[HOSTILE]) as site:
        visit(page, site.owner, lands=f"{site.address}/admin")
        assert HOSTILE in text(page, "#live")
        go_to(page, "[data-do=voter][data-state=excluded]")
        page.key("Enter", CODES["Enter"])
        until(
            lambda: page.run("document.activeElement.textContent") == "Take back in", "the focus beside what was done"
        )
        page.key("Enter", CODES["Enter"])
        until(lambda: page.run("document.activeElement.textContent") == "Exclude", "the voter back")
        visit(page, f"{site.address}/admin")
        go_to(page, "[data-do=state][data-state=paused]")
        page.key("Enter", CODES["Enter"])
        until(lambda: "The study is paused" in text(page, "#live"), "a pause")
        visit(page, next(iter(site.links.values())), lands=f"{site.address}/vote")
        until(lambda: text(page, "#headline") == "The study is paused", "a voter who is told")
        visit(page, f"{site.address}/admin")
        go_to(page, "#name")
        page.call("Input.insertText", text=HOSTILE[::-1])
        page.key("Tab", CODES["Tab"])
        page.key("Enter", CODES["Enter"])
        until(lambda: f"{site.address}/v/" in text(page, "#told"), "a link")
        until(lambda: HOSTILE[::-1] in text(page, "#live"), "the new voter")
        assert page.run("typeof window.pwned") == "undefined"
        assert page.problems() == []


def test_a_new_link_is_asked_about_and_seen_where_the_button_is(page: chromium.Page, tmp_path: Path) -> None:
    with running(found(tmp_path, prompts=2), voters=["anna"]) as site:
        page.size(390, 700)
        visit(page, site.owner, lands=f"{site.address}/admin")
        page.run("window.asked = []; window.confirm = (words) => { asked.push(words); return asked.length > 1 }")
        click(page, "[data-state=renew]")
        until(lambda: page.run("asked.length") == 1, "a question")
        old = next(iter(site.links.values()))
        click(page, "[data-state=renew]")
        until(lambda: "/v/" in text(page, "#told"), "a link")
        assert "open nothing" in page.run("asked[1]")
        box = page.run("(() => { const r = told.getBoundingClientRect(); return [r.top, r.bottom] })()")
        assert 0 <= box[0] < box[1] <= 700, "seen, wherever the page was scrolled to"
        visit(page, old)
        assert "This link does not open the page" in text(page, "body")
    page.size(1280, 900)


def test_boards_come_by_themselves_and_a_server_that_is_gone_is_told(page: chromium.Page, tmp_path: Path) -> None:
    folder = found(tmp_path, prompts=2)
    with running(folder) as site:
        visit(page, site.owner, lands=f"{site.address}/admin")
        assert "Nothing was decided yet" in text(page, "#live")
        page.run("document.querySelector('#live').dataset.seen = 'before'")
        with page.second_tab() as drive:
            visit(page, f"{site.address}/vote")
            press(page, "ArrowLeft", "ArrowLeft")
            until(lambda: text(page, "#count") == "2 done", "two answers")
            drive(0)
            until(lambda: "2 comparisons" in text(page, "#live"), "a board")
        assert page.run("document.querySelector('#live').dataset.seen") == "before", "without a reload"
    until(lambda: "does not answer" in text(page, "#told"), "a note")
    with running(folder, port=site.port):
        until(lambda: not shown(page, "#told") or "not know you" in text(page, "#told"), "a server that is back")
