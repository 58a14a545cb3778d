"""An accessibility audit of every page by axe-core in a real browser, light and dark, in what states people meet."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import chromium
import pytest
from hands import click, press, ready, shown, text, until, visit
from study_site import found, running

from evaluation_folder import Table, make_folder
from fake_vote_server import OVERALL, THREE, Study, serving
from finepref.arena.whole import ArenaRequest, run_arena
from finepref.evaluate.compare import compare
from finepref.evaluate.score import score
from finepref.report import report
from finepref.report.arena_page import write_page

pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(chromium.find() is None, reason="no Chromium on this machine"),
]

AXE = Path(str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))
AUDIT = """axe.run(document, { resultTypes: ['violations'] }).then(found => found.violations.flatMap(
  ({ id, impact, nodes }) => nodes.map(node => `${impact}: ${id}: ${node.target} ${node.failureSummary}`)))"""
State = Callable[[chromium.Page, Study], None]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    page = chromium.Page(chromium.find(), tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


def faults(page: chromium.Page, colours: str) -> list[str]:
    """What axe-core finds in the page as it is, also what is not serious."""
    page.run(f"if (!window.axe) {{ {AXE.read_text(encoding='utf-8')} }}; 1")
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}])
    found: list[str] = page.run(AUDIT)
    return found


def audit(page: chromium.Page) -> None:
    """No fault at all, neither light nor dark."""
    for colours in ("light", "dark"):
        assert faults(page, colours) == [], colours


def test_a_planted_fault_is_found(browser: chromium.Page, tmp_path: Path) -> None:
    body = "<h1>A page</h1><p style='color: #999; background: #eee'>pale words</p><img src='data:,'>"
    (tmp_path / "page.html").write_text(f"<!doctype html><title>A page</title>{body}", encoding="utf-8")
    browser.open(tmp_path / "page.html")
    found = faults(browser, "light")
    assert any("serious: color-contrast: p" in fault for fault in found)
    assert any("critical: image-alt: img" in fault for fault in found)


def begun(page: chromium.Page, study: Study) -> None:
    """A set in which something is chosen."""
    press(page, *{"pair": ("ArrowLeft",), "rank": ("1", "=", "2"), "best": ("1",)}[study.mode])


def resting(page: chromium.Page, study: Study) -> None:
    click(page, "#pause")
    until(lambda: text(page, "#headline") == "A break", "a break")


def zoomed(page: chromium.Page, study: Study) -> None:
    press(page, "z")
    until(lambda: shown(page, ".zoomed"), "zoom")


def thanked(page: chromium.Page, study: Study) -> None:
    press(page, "ArrowLeft", "ArrowRight")
    until(lambda: text(page, "#headline") == "Thank you!", "thanks")


def told(state: str) -> State:
    def reach(page: chromium.Page, study: Study) -> None:
        study.state = state
        press(page, "ArrowLeft")
        until(lambda: state in text(page, "#headline"), state)

    return reach


def waiting(page: chromium.Page, study: Study) -> None:
    study.failing = 503
    press(page, "ArrowLeft")
    until(lambda: "One answer waits" in text(page, "#note"), "a note")
    ready(page)


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({}, begun), ({"questions": THREE}, begun), ({"mode": "rank", "images": 4}, begun),
        ({"mode": "rank", "images": 3, "questions": THREE}, begun),
        ({"mode": "best", "images": 4, "questions": THREE}, begun), ({"mode": "best", "images": 6}, zoomed),
        ({}, resting), ({"of": 2}, thanked), ({}, told("paused")), ({}, told("closed")), ({}, waiting),
    ],
    ids=[
        "pair", "pair-three", "rank", "rank-three", "best-three", "zoom", "break", "thanks", "paused", "closed",
        "offline",
    ],
)  # fmt: skip
def test_the_voters_page(browser: chromium.Page, options: dict[str, Any], reach: State) -> None:
    with serving(Study(**{"questions": OVERALL, **options})) as study:
        browser.size(1280, 900)
        visit(browser, f"{study.address}/vote")
        ready(browser)
        reach(browser, study)
        audit(browser)


@pytest.mark.parametrize(("width", "touch"), [(360, True), (1280, False)])
def test_the_owners_page(browser: chromium.Page, tmp_path: Path, width: int, touch: bool) -> None:
    """Before the first vote, with boards of two questions, an invited voter and one who is excluded."""
    from finepref.formats.collection import StudyQuestion

    questions = (StudyQuestion("overall", "Which is better?"), StudyQuestion("text", "Which fits the text better?"))
    folder = found(tmp_path, prompts=2, questions=questions)
    browser.size(width, 800, touch=touch)
    with ExitStack() as held:
        site = held.enter_context(running(folder, voters=["anna", "ben"]))
        visit(browser, site.owner, lands=f"{site.address}/admin")
        audit(browser)
        visit(browser, site.links["anna"], lands=f"{site.address}/vote")
        for _ in range(3):
            press(browser, "ArrowLeft", "ArrowRight", "Enter")
        until(lambda: text(browser, "#count") == "3 done", "three answers")
        visit(browser, f"{site.address}/admin")
        click(browser, "[data-do=voter][data-state=excluded]")
        until(lambda: shown(browser, "#told"), "what was done")
        browser.run("document.querySelector('#name').value = 'cleo'")
        click(browser, "[data-do=invite]")
        until(lambda: "/v/" in text(browser, "#told"), "a link")
        until(lambda: "cleo" in text(browser, "#live"), "the new voter")
        assert browser.run("document.querySelectorAll('#live tbody tr').length") >= 3
        click(browser, "[data-do=check]")
        until(lambda: text(browser, "#checked"), "the checks")
        click(browser, "[data-do=check]")
        until(lambda: "anna (excluded): nothing stands out" in text(browser, "#checked"), "the checks")
        browser.run("document.querySelectorAll('#checked details').forEach((each) => { each.open = true; })")
        assert "3 decided answers are too few to tell a favoured place" in text(browser, "#checked")
        audit(browser)
        assert browser.run("document.documentElement.scrollWidth") <= width


def test_the_report_and_the_arena_page(browser: chromium.Page, tmp_path: Path) -> None:
    models = ("base", "new")
    rows = make_folder(tmp_path / "eval", {"set": [f"prompt {n}" for n in range(12)]}, models=models, size=16)
    value = {row.image_sha256: (n * 7919 % 101) / 10 + models.index(row.model) for n, row in enumerate(rows)}
    score(tmp_path / "eval", [Table(rows, lambda row: value[row.image_sha256], name="metric")])
    compare(tmp_path / "eval", "base", resamples=200)
    words = ("left", "tie", "right", "left", "left")
    votes = [f"{models[k % 2]},{models[1 - k % 2]},{words[k * k % 5]},v{k % 7}" for k in range(60)]
    (tmp_path / "votes.csv").write_text("\n".join(["left,right,winner,voter", *votes]), encoding="utf-8")
    run_arena([tmp_path / "votes.csv"], tmp_path / "arena", ArenaRequest(validate=2), page=write_page)
    report([tmp_path], tmp_path / "report.html")
    for file, width in itertools.product(("report.html", "arena/arena.html"), (390, 1280)):
        browser.size(width, 900)
        browser.open(tmp_path / file)
        audit(browser)
    browser.open(tmp_path / "report.html")
    browser.run("document.querySelector('.card .images button').click()")
    audit(browser)
    browser.open(tmp_path / "report.html")
    browser.run("[...document.querySelectorAll('.tools button')].find(b => b.textContent === 'Vote blind').click()")
    until(lambda: shown(browser, "dialog[open] .ballot[aria-busy=false]"), "a pair")
    audit(browser)
