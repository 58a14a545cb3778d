"""A small study from the first set to the last against the real server, by keys, mouse or finger alone; what is kept.

What a voter saw is read from the pixels on the page, so that the export is checked against eyes, not the server.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import chromium
import pytest
from hands import CODES, READY, click, press, ready, shown, tap, text, until, visit
from study_site import LOOKS, MODELS, found, running

from finepref.collect.keeping import export_votes
from quick_disk import make_quick

pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(chromium.find() is None, reason="no Chromium on this machine"),
]

ARROWS = {"left": "ArrowLeft", "right": "ArrowRight", "tie": "ArrowDown", "both_bad": "ArrowUp", "skip": " "}
LABELS = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
PAIRS = ("left", "right", "tie", "both_bad", "skip", "left")
RANKS = ((2, 1, 3), (1, 1, 3), (3, 1, 1), (1, 2, 3))
Row = tuple[str, str, str, float, bool]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    page = chromium.Page(chromium.find(), tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


class Voter:
    """A person with one way to use the page: keys, mouse or touch. seen: what each answer that stands says."""

    def __init__(self, page: chromium.Page, way: str) -> None:
        self.page, self.way, self.seen = page, way, list[list[Row]]()

    def hit(self, selector: str) -> None:
        ready(self.page)
        (click if self.way == "mouse" else tap)(self.page, selector)

    def answer(self, said: Any) -> None:
        """Look at the pictures, and say which is better; the page goes on."""
        ready(self.page)
        looks = self.page.run(LOOKS)
        assert len({prompt for _, prompt in looks}) == 1, "pictures of one prompt"
        assert text(self.page, ".prompt") == f"prompt {looks[0][1]}"
        self.seen.append(rows([MODELS[model] for model, _ in looks], f"prompt {looks[0][1]}", said))
        if isinstance(said, str):
            self.choose(said)
        else:
            self.order(said)

    def choose(self, said: str) -> None:
        if self.way == "keys":
            press(self.page, ARROWS[said])
        elif said in ("left", "right"):
            self.hit(f".shot[data-place='{int(said == 'right')}']")
        else:
            self.hit(f".choice[data-value={said}]")

    def order(self, ranks: Sequence[int]) -> None:
        """Put the pictures in order; those of an order that was taken back are taken out first."""
        while self.page.run("!!document.querySelector('.chip.placed')"):
            if self.way == "keys":
                self.tab_to(".chip.placed")
                press(self.page, "Enter")
            else:
                self.hit(".chip.placed")
        last = None
        for place in sorted(range(len(ranks)), key=lambda place: ranks[place]):
            tied = last is not None and ranks[last] == ranks[place]
            if self.way == "keys":
                press(self.page, *["="] * tied, str(place + 1))
            else:
                self.hit(f".chip[data-place='{place}']" if self.way == "touch" else f".shot[data-place='{place}']")
                if tied:
                    self.hit(f".between[data-id='0.{last}-']")
            last = place
        press(self.page, "Enter") if self.way == "keys" else self.hit(".submit")

    def tab_to(self, selector: str) -> None:
        """Walk to an element by the keyboard."""
        for _ in range(40):
            if self.page.run(f"document.activeElement.matches({selector!r})"):
                return
            self.page.key("Tab", CODES["Tab"])
        raise AssertionError(f"Tab does not reach {selector}")

    def undo(self) -> None:
        """Take the last answer back; the page shows its set again."""
        press(self.page, "Backspace") if self.way == "keys" else self.hit(".undo")
        self.seen.pop()
        ready(self.page)

    def thanked(self) -> bool:
        """Whether this was the last set."""
        done = "document.querySelector('#headline').textContent === 'Thank you!'"
        until(lambda: self.page.run(f"({READY}) || ({done})"), "another set, or thanks")
        return shown(self.page, "#screen")


def rows(models: Sequence[str], prompt: str, said: Any) -> list[Row]:
    """What an answer says, by the names of models in the order shown."""
    if said == "skip":
        return []
    if isinstance(said, str):
        return [(prompt, models[0], models[1], LABELS[said], said == "both_bad")]
    share = {-1: 1.0, 0: 0.5, 1: 0.0}
    return [
        (prompt, models[a], models[b], share[(said[a] > said[b]) - (said[a] < said[b])], False)
        for a, b in itertools.combinations(range(len(models)), 2)
    ]


def exported(folder: Path, out: Path) -> list[Row]:
    export_votes(folder, out)
    with out.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["voter"] for line in lines} == {"anna"}
    return [
        (line["prompt"], line["model_0"], line["model_1"], float(line["label"]), line["both_bad"] == "True")
        for line in lines
    ]


@pytest.mark.parametrize("mode", ["pair", "rank"])
@pytest.mark.parametrize("way", ["keys", "mouse", "touch"])
def test_a_whole_study(browser: chromium.Page, tmp_path: Path, way: str, mode: Any) -> None:
    says = PAIRS if mode == "pair" else RANKS
    folder = found(tmp_path, prompts=2 if mode == "pair" else 4, mode=mode, images=2 if mode == "pair" else 3)
    phone = way == "touch"
    browser.size(*((390, 844) if phone else (1280, 900)), touch=phone)
    voter = Voter(browser, way)
    with running(folder, voters=["anna"]) as site:
        visit(browser, site.links["anna"], lands=f"{site.address}/vote")
        voter.answer(says[-1])
        ready(browser)
        voter.undo()
        voter.answer(says[0])
        ready(browser)
        visit(browser, f"{site.address}/vote")  # a reload
        voter.answer(says[1])
        ready(browser)
    browser.new_tab()  # the page is closed, and the server ended
    browser.size(*((390, 844) if phone else (1280, 900)), touch=phone)
    with running(folder, port=site.port) as site:
        visit(browser, f"{site.address}/vote")
        for said in says[2:]:
            voter.answer(said)
            done = voter.thanked()
        assert done, f"every set was answered, but {text(browser, '#count')} and {browser.run(LOOKS)} is shown"
        assert text(browser, "#count").startswith(str(len(says)))
        if way == "keys":
            browser.key("Enter", CODES["Enter"])  # the button that changes the last answer has the focus
        else:
            (click if way == "mouse" else tap)(browser, "#act")
        voter.seen.pop()
        voter.answer(says[0])
        assert voter.thanked()
        assert browser.problems() == []
    assert len(voter.seen) == len(says)
    assert sorted(exported(folder, tmp_path / "votes.csv")) == sorted(itertools.chain(*voter.seen))
