"""Report and arena page in a real browser: a file, a phone, dark, paper, keyboard, hostile prompts, blind votes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import chromium
import numpy as np
import pytest
from PIL import Image

from evaluation_folder import Table, make_folder
from finepref.arena.whole import ArenaRequest, run_arena
from finepref.evaluate.compare import compare
from finepref.evaluate.score import score
from finepref.formats.metrics import StepMetrics, append_metrics
from finepref.formats.run import write_run
from finepref.report import report
from finepref.report.arena_page import write_page
from run_record import run_record

pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(chromium.find() is None, reason="no Chromium on this machine"),
]

HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '"><svg onload=alert(1)> \' onmouseover=alert(1) x="',
    "{{constructor.constructor('window.pwned=1')()}} \u2028 ${window.pwned=1} <!-- ]]>",
    "=cmd|' /C calc'!A0, \"quoted\"",
)
PLAIN = tuple(f"a plain prompt {n}" for n in range(25))
MODELS = ("base", "<b>bold</b>&co", "new")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    rows = make_folder(root / "eval", {"set": HOSTILE + PLAIN}, models=MODELS, seeds=(0, 1), size=16)
    value = {row.image_sha256: (n * 7919 % 101) / 10 + MODELS.index(row.model) for n, row in enumerate(rows)}
    score(root / "eval", [Table(rows, lambda row: value[row.image_sha256], name="metric <i>x</i>")])
    compare(root / "eval", "base", resamples=200)
    run = root / "runs" / "new"
    write_run(run, run_record(method="<script>window.pwned=1</script>", device_seconds=7200.0))
    for step in range(1, 30):
        means = {"loss": 1 / step, "implicit_accuracy": 0.5}
        append_metrics(run, StepMetrics(step=step, means=means, pairs=4, by_t=(), grad_norm=1.0, lr=1e-5))
    words = ("left", "tie", "right", "left", "left")
    votes = [f"{MODELS[k % 3]},{MODELS[(k + 1 + k % 2) % 3]},{words[k * k % 5]},v{k % 7}" for k in range(300)]
    (root / "votes.csv").write_text("\n".join(["left,right,winner,voter", *votes]), encoding="utf-8")
    run_arena([root / "votes.csv"], root / "arena", ArenaRequest(validate=2), page=write_page)
    report([root], root / "report.html")
    return root


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    page = chromium.Page(chromium.find(), tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture
def page(browser: chromium.Page, folder: Path) -> chromium.Page:
    browser.size(1280, 900)
    browser.open(folder / "report.html")
    return browser


def test_the_page_stands_alone_and_reports_no_problem(page: chromium.Page, folder: Path) -> None:
    assert page.problems() == []
    assert page.requests() == [(folder / "report.html").as_uri()]
    assert page.run("document.querySelectorAll('.card').length") == 24
    assert page.run("[...document.images].filter(i => i.complete && i.naturalWidth === 0).length") == 0


def test_hostile_words_do_nothing_and_are_shown(page: chromium.Page) -> None:
    page.run("document.querySelectorAll('.more').forEach(b => b.click())")
    assert page.run("typeof window.pwned") == "undefined"
    assert page.run("document.querySelectorAll('main script:not([type=\"application/json\"])').length") == 0
    assert page.run("document.querySelectorAll('[onerror],[onload],[onmouseover]').length") == 0
    assert page.run("document.querySelectorAll('main b').length") == page.run(
        "[...document.querySelectorAll('main b')].filter(b => b.textContent !== 'bold').length"
    )
    texts = page.run("[...document.querySelectorAll('.card p')].map(p => p.textContent)")
    assert set(HOSTILE) <= set(texts)
    assert MODELS[1] in page.run("document.querySelector('.legend').textContent")
    assert page.problems() == []


def test_no_other_script_can_run(page: chromium.Page) -> None:
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=1\">')")
    page.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.pwned=1'}))")
    page.wait_for_problems("Content Security Policy", 2)
    assert page.run("typeof window.pwned") == "undefined"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(page: chromium.Page, width: int) -> None:
    page.size(width, 800)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("document.body.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 1280])
def test_what_scrolls_says_so(page: chromium.Page, width: int) -> None:
    page.size(width, 800)
    page.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.run("new Promise(seen => requestAnimationFrame(() => requestAnimationFrame(() => seen(true))))")
    told = "getComputedStyle(s, '::after').content.includes('scroll sideways')"
    found = page.run(f"[...document.querySelectorAll('.scroll')].map(s => [s.scrollWidth > s.clientWidth + 1, {told}])")
    assert all(scrolls == says for scrolls, says in found)
    assert width > 360 or any(scrolls for scrolls, _ in found)


def test_no_card_waits_for_its_pictures(page: chromium.Page) -> None:
    """Paper and screenshots show what was never scrolled to."""
    assert page.run("[...document.querySelectorAll('.card img')].filter(i => i.loading === 'lazy').length") == 0
    page.run("document.querySelectorAll('.more').forEach(b => b.click())")
    page.run("Promise.all([...document.querySelectorAll('.card img')].map(i => i.decode().then(() => true)))")
    low = "[...document.querySelectorAll('.card img')].filter(i => i.clientHeight < 10).length"
    assert page.run(low) == 0


def test_every_metric_has_its_direction(page: chromium.Page) -> None:
    heads = page.run("[...document.querySelectorAll('#wins h3')].map(h => h.textContent)")
    heads += page.run("[...document.querySelectorAll('#scores th')].slice(1).map(h => h.textContent)")
    assert heads
    assert all("is better" in words for words in heads)


def test_light_and_dark(page: chromium.Page, tmp_path: Path) -> None:
    def brightness() -> tuple[float, float]:
        page.screenshot(tmp_path / "shot.png")
        pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("L")).astype(float)
        return float(np.median(pixels)), float(pixels.max() - pixels.min())

    light, contrast = brightness()
    page.size(1280, 900, dark=True)
    dark, dark_contrast = brightness()
    assert light > 200 > 60 > dark
    assert min(contrast, dark_contrast) > 150


def test_the_keyboard_opens_walks_and_closes_the_images(page: chromium.Page) -> None:
    page.run("document.querySelector('.card .images button').focus()")
    page.key("Enter", 13)
    assert page.run("document.querySelector('dialog[open] h3').textContent") == HOSTILE[0]
    page.key("ArrowRight", 39)
    assert page.run("document.querySelector('dialog[open] h3').textContent") == HOSTILE[1]
    page.key("ArrowLeft", 37)
    page.key("ArrowLeft", 37)
    assert page.run("document.querySelector('dialog[open] h3').textContent") == PLAIN[-1]
    page.key("Escape", 27)
    assert page.run("document.querySelector('dialog[open]')") is None
    assert page.run("document.activeElement.tagName") == "BUTTON"


def test_tab_reaches_the_navigation_and_the_controls(page: chromium.Page) -> None:
    seen = []
    for _ in range(60):
        page.key("Tab", 9)
        seen.append(
            page.run("document.activeElement.tagName + ' ' + (document.activeElement.textContent || '').slice(0, 12)")
        )
    assert "A Skip to the " in seen[0]
    assert any(one.startswith("A Images") for one in seen)
    assert any(one.startswith("SELECT") for one in seen)
    assert any(one.startswith("BUTTON Vote blind") for one in seen)


def choose(page: chromium.Page, label: str, value: str) -> None:
    page.run(
        "(() => { const s = [...document.querySelectorAll('.controls label')].find(l => l.firstChild.textContent === "
        f"{json.dumps(label)}).querySelector('select'); s.value = {json.dumps(value)}; "
        "s.dispatchEvent(new Event('change')); })()"
    )


def test_sorting_filters_and_search(page: chromium.Page) -> None:
    deltas = (
        "[...document.querySelectorAll('.card')].map(c => "
        "parseFloat(c.querySelectorAll('.delta')[1].textContent.replace('\\u2212','-')))"
    )
    choose(page, "Sort by", "win\0new")
    found = page.run(deltas)
    assert found == sorted(found, reverse=True)
    choose(page, "Sort by", "loss\0new")
    found = page.run(deltas)
    assert found == sorted(found)
    choose(page, "Seed", "1")
    assert page.run("[...document.querySelectorAll('.card .meta')].every(m => m.textContent.includes('seed 1'))")
    assert page.run("document.querySelector('.count').textContent").startswith("30 of 60")
    page.run(
        "(() => { const i = document.querySelector('.controls input'); i.value = 'PLAIN prompt 7'; "
        "i.dispatchEvent(new Event('input')); })()"
    )
    assert page.run("[...document.querySelectorAll('.card p')].map(p => p.textContent)") == ["a plain prompt 7"]


def vote_blind(page: chromium.Page) -> None:
    page.run("[...document.querySelectorAll('.tools button')].find(b => b.textContent === 'Vote blind').click()")
    when_ready(page)


def when_ready(page: chromium.Page) -> None:
    """Wait until the pair is shown: keys say nothing before."""
    deadline = time.monotonic() + chromium.PATIENCE
    while not page.run("!!document.querySelector('dialog[open] .ballot[aria-busy=false]')"):
        assert time.monotonic() < deadline, "no pair is shown"


def test_blind_votes_leave_as_csv_that_the_arena_reads(page: chromium.Page, tmp_path: Path) -> None:
    page.run("URL.createObjectURL = (blob) => { window.saved = blob; return '#'; }")
    vote_blind(page)
    shown = page.run("document.querySelector('dialog[open]').textContent")
    shown += str(page.run("[...document.querySelectorAll('dialog[open] img')].map(i => i.alt)"))
    assert not any(model in shown for model in MODELS if model != "new")
    assert page.run("document.querySelectorAll('dialog[open] .duel img').length") == 2
    for name, code in [("ArrowLeft", 37), ("ArrowRight", 39), ("ArrowDown", 40)] * 30:
        page.key(name, code)
        when_ready(page)
    page.key("Backspace", 8)
    when_ready(page)
    page.run(
        "(() => { const i = document.querySelector('dialog[open] input'); i.value = 'An, \"expert\"'; "
        "i.dispatchEvent(new Event('input')); })()"
    )
    page.run("[...document.querySelectorAll('dialog[open] button')].find(b => b.textContent === 'Save votes').click()")
    (tmp_path / "votes.csv").write_text(page.run("window.saved.text()"), encoding="utf-8")
    from finepref.formats.votefiles import read_votes

    table = read_votes([tmp_path / "votes.csv"])
    assert len(table.votes) == 89
    assert set(table.votes.models) <= set(MODELS)
    counts = {int(k): int(n) for k, n in zip(*np.unique(table.votes.outcome, return_counts=True), strict=True)}
    assert sorted(counts.values()) == [29, 30, 30]
    page.run("[...document.querySelectorAll('dialog[open] button')].find(b => b.textContent === 'Reveal').click()")
    assert page.run("document.querySelectorAll('dialog[open] table tbody tr').length") == 3
    assert page.problems() == []


@pytest.fixture(scope="module")
def unscored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unscored")
    rows = make_folder(root / "eval", {"set": PLAIN}, models=MODELS, size=16)
    (root / "eval" / rows[0].path).unlink()
    return report([root], root / "report.html")


def test_images_without_scores_are_voted_on_and_the_votes_can_be_read(
    browser: chromium.Page, unscored: Path, tmp_path: Path
) -> None:
    browser.size(1280, 900)
    browser.open(unscored)
    assert browser.run("document.querySelectorAll('.cards .gone').length") == 1
    assert browser.run("[...document.querySelectorAll('.controls label')].map(l => l.firstChild.textContent)") == [
        "Find"
    ]
    browser.run("URL.createObjectURL = (blob) => { window.saved = blob; return '#'; }")
    vote_blind(browser)
    pairs = 3 * len(PLAIN) - 2  # the lost image would have met two others
    assert f"0 of {pairs} pairs" in browser.run("document.querySelector('dialog[open]').textContent")
    for _ in range(pairs + 3):
        browser.key("ArrowLeft", 37)
        when_ready(browser)
    browser.run(
        "[...document.querySelectorAll('dialog[open] button')].find(b => b.textContent === 'Save votes').click()"
    )
    (tmp_path / "votes.csv").write_text(browser.run("window.saved.text()"), encoding="utf-8")
    from finepref.formats.votefiles import read_votes

    table = read_votes([tmp_path / "votes.csv"])
    assert len(table.votes) == pairs
    assert set(table.votes.models) == set(MODELS)
    assert browser.problems() == []


def test_a_phone_shows_every_metric_and_large_images_to_vote_on(page: chromium.Page) -> None:
    page.size(390, 844)
    cells = (
        "[...document.querySelectorAll('#scores .stack td')].map(c => c.getBoundingClientRect())"
        ".map(r => [r.left, r.right])"
    )
    assert all(0 <= left < right <= 390 for left, right in page.run(cells))
    vote_blind(page)
    widths = page.run(
        "[...document.querySelectorAll('dialog[open] .duel button')].map(i => i.getBoundingClientRect().width)"
    )
    assert min(widths) > 330
    assert page.run("getComputedStyle(document.querySelector('dialog[open] .keys')).display") == "none"


def test_whiskers_end_beside_their_dots_on_paper(page: chromium.Page) -> None:
    page.call("Emulation.setEmulatedMedia", media="print")
    heights = page.run(
        "[getComputedStyle(document.querySelector('.whisker'), '::before').height, "
        "getComputedStyle(document.querySelector('.dot')).height].map(parseFloat)"
    )
    page.call("Emulation.setEmulatedMedia", media="")
    assert heights[0] > heights[1] > 0


@pytest.mark.parametrize("width", [320, 1280])
def test_the_arena_page_stands_alone_and_fits(browser: chromium.Page, folder: Path, width: int) -> None:
    browser.size(width, 800)
    browser.open(folder / "arena" / "arena.html")
    assert browser.problems() == []
    assert browser.requests() == [(folder / "arena" / "arena.html").as_uri()]
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("typeof window.pwned") == "undefined"


@pytest.mark.parametrize("name", ["arena/arena.html", "report.html"])
def test_paper_shows_every_column(browser: chromium.Page, folder: Path, name: str) -> None:
    """What scrolls on a screen fits a printed A4 page; details are there though nobody opened them."""
    browser.size(718, 1000)
    browser.open(folder / name)
    browser.call("Emulation.setEmulatedMedia", media="print")
    within = "[...document.querySelectorAll('details:not([open]) > :not(summary)')].map(d => d.offsetHeight)"
    assert min(browser.run(within)) > 0
    cut = browser.run(
        "[...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth + 1)"
        ".map(s => s.textContent)"
    )
    browser.call("Emulation.setEmulatedMedia", media="")
    assert cut == []
