"""`finepref report STUDY`: boards per question, and how often each model was the best, as in a user study."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.collect_load import make_pictures

from finepref.collect.founding import StudyOptions, found_study
from finepref.formats import answers as kept
from finepref.formats.collection import read_study

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user study of SmPO-Diffusion: four models, 50 prompts, three questions; nobody has voted."""
    place = tmp_path_factory.mktemp("study")
    (place / "study").mkdir()
    found_study(place / "study", make_pictures(place / "pictures", 50), StudyOptions(preset="smpo-study"))
    return place / "study"


def test_the_table_of_a_user_study(study: Path, finepref: Run, tmp_path: Path) -> None:
    """Six simulated voters on 50 prompts: shares per question by hand from the file, and a board per question."""
    assert finepref("report", study, "--out", tmp_path / "before.html")[0] == 0
    assert "Nothing was voted on yet" in (tmp_path / "before.md").read_text()
    assert finepref("collect", study, "--by", "lab", "--people", "6", "--sets", "300")[0] == 0
    code, _, err = finepref("report", study, "--out", tmp_path / "after.html")
    assert code == 0, err
    text = (tmp_path / "after.md").read_text()

    about, best = read_study(study), defaultdict[tuple[int, int], int](int)
    with kept.reading_votes(study / kept.VOTES) as connection:
        pictures = kept.pictures_of(connection)
        plain = [(answer, shown) for answer, shown in kept.answered_after(connection) if shown.kind == "plain"]
    for answer, shown in plain:
        best[answer.question, pictures[shown.pictures[json.loads(answer.answer)]].model] += 1
    sets = len(plain) // 3
    assert sets >= 280
    assert [question.name for question in about.questions] == ["overall", "appeal", "alignment"]
    for number, question in enumerate(about.questions):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {question.text}")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1] == str(sets)
        for model in range(4):
            assert cells[2 + model].startswith(f"{100 * best[number, model] / sets:.1f}")
            assert " to " in cells[2 + model]
        assert f"## Arena: study: {question.name}" in text
    assert 'id="best"' in (tmp_path / "after.html").read_text()
