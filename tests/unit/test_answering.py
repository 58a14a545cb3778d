"""Programs that answer a study in place of people: scorers, a language model in both orders, the lab's people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finepref.collect.answering import TURNED, answer_sets, by_value, scored
from finepref.collect.desk import Desk, open_desk
from finepref.collect.founding import StudyOptions, found_study
from finepref.collect.plain_choice import FewestFirst
from finepref.core.errors import InputError
from finepref.evaluate.scorers import judge
from finepref.evaluate.scorers.judge import Unparsable
from finepref.evaluate.scorers.pair_judge import load_pair_judge, preferred
from finepref.formats import answers as kept
from finepref.formats.collection import read_study


def study(place: Path, **options: Any) -> Path:
    """Two models of grey pictures: a picture of `bright` is lighter than that of `dark` for the same prompt."""
    for name, level in (("bright", 200), ("dark", 60)):
        (place / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (8, 8), (level + number, 0, 0)).save(place / name / f"{number}.png")
    (place / "prompts.csv").write_text("file,prompt\n" + "".join(f"{n},prompt {n}\n" for n in range(6)))
    folder = place / "study"
    folder.mkdir()
    sources = [f"{name}={place / name}" for name in ("bright", "dark")]
    found_study(folder, sources, StudyOptions(prompts=place / "prompts.csv", **options))
    return folder


def desk_of(folder: Path) -> Desk:
    images = read_study(folder).images
    return open_desk(
        folder, lambda pictures: FewestFirst(pictures, images=images, chance=np.random.default_rng(0)), lambda: 5.0
    )


class Brightness:
    """A scorer of light, or of darkness."""

    name, fingerprint = "brightness", "b"

    def __init__(self, higher_is_better: bool) -> None:
        self.higher_is_better = higher_is_better

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        return np.array([np.asarray(image).mean() for image in images])


def answered(folder: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """(voter, answer, models in the order shown) of every answer."""
    with kept.reading_votes(folder / kept.VOTES) as connection:
        names = {each.id: each.name for each in kept.voters_of(connection)}
        model = [each.model for each in kept.pictures_of(connection)]
        return [
            (names[shown.voter], json.loads(answer.answer), tuple(model[each] for each in shown.pictures))
            for answer, shown in kept.answered_after(connection)
        ]


@pytest.mark.parametrize("up", [True, False])
def test_a_scorer_answers_by_its_own_direction(tmp_path: Path, up: bool) -> None:
    folder = study(tmp_path)
    desk = desk_of(folder)
    assert answer_sets(desk, {"b": scored(Brightness(up))}, sets=6) == 6
    desk.connection.close()
    found = answered(folder)
    assert len(found) == 6
    assert all(models[("left", "right").index(said)] == (0 if up else 1) for _, said, models in found)
    desk = desk_of(folder)
    with pytest.raises(InputError, match="nothing is left to ask after 6 of 7 sets"):
        answer_sets(desk, {"b": scored(Brightness(up))}, sets=7)
    desk.connection.close()


def test_nothing_is_kept_before_the_last_answer(tmp_path: Path) -> None:
    folder, asked = study(tmp_path), list[int]()

    def ends(pictures: Sequence[Image.Image], prompt: str, mode: str) -> str:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return "left"

    desk = desk_of(folder)
    with pytest.raises(KeyboardInterrupt):
        answer_sets(desk, {"b": ends}, sets=6)
    desk.connection.close()
    assert answered(folder) == []


def test_both_orders_show_a_preference_for_a_side(tmp_path: Path) -> None:
    """Who always says left votes once for each picture of a pair; who sees the pictures votes twice for one."""
    folder = study(tmp_path)
    desk = desk_of(folder)
    assert answer_sets(desk, {"sided": lambda pictures, prompt, mode: "left"}, sets=12, turned=True) == 12
    desk.connection.close()
    found = answered(folder)
    assert [name for name, _, _ in found] == ["sided", "sided" + TURNED] * 6
    for (_, _, first), (_, _, second) in zip(found[::2], found[1::2], strict=True):
        assert first == second[::-1]
    assert sorted(models[0] for _, _, models in found) == [0] * 6 + [1] * 6


@pytest.mark.parametrize(("state", "said"), [("paused", "the study is paused"), ("excluded", "b is excluded")])
def test_who_may_not_answer(tmp_path: Path, state: str, said: str) -> None:
    folder = study(tmp_path)
    desk = desk_of(folder)
    voter, _ = desk.invite("b")
    desk.change(voter.id, state=state) if state == "excluded" else desk.set_state(state)
    with pytest.raises(InputError, match=said):
        answer_sets(desk, {"b": scored(Brightness(True))}, sets=6)
    desk.connection.close()
    assert answered(folder) == []


@pytest.mark.parametrize(
    ("reply", "said"),
    [("Image 1", "left"), ("reasons\nimage 2.", "right"), ("**Image 2**", "right"), ("Equal", "tie")],
)
def test_a_reply_of_the_language_model(reply: str, said: str) -> None:
    assert preferred(reply) == said


@pytest.mark.parametrize("reply", ["", "Image 3", "Image 1 or Image 2", "I prefer Image 1 over Image 2", "12"])
def test_a_reply_that_is_none(reply: str) -> None:
    with pytest.raises(Unparsable):
        preferred(reply)


def test_a_language_model_is_asked_with_both_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, file, sent = study(tmp_path), tmp_path / "vlm.yaml", list[Any]()
    file.write_text("base_url: http://localhost:1/v1\nmodel: m\n")

    def reply(self: Any, messages: Any) -> tuple[str, bool]:
        sent.append(messages)
        return "Image 1", True

    monkeypatch.setattr(judge.Endpoint, "_reply", reply)
    desk = desk_of(folder)
    answer_sets(desk, {"vlm": load_pair_judge(file)}, sets=4, turned=True)
    desk.connection.close()
    assert [said for _, said, _ in answered(folder)] == ["left"] * 4
    text = json.dumps(sent[0])
    assert text.count("data:image/png") == 2
    assert "prompt " in text
    file.write_text("base_url: http://localhost:1/v1\nmodel: m\nquestion: which one?\n")
    with pytest.raises(InputError, match="must contain"):
        load_pair_judge(file)


@pytest.mark.parametrize(
    ("values", "mode", "said"),
    [
        ([1.0, 1.0], "pair", "tie"), ([float("nan"), 1.0], "pair", "skip"), ([1.0, 3.0, 2.0], "best", 1),
        ([1.0, 3.0, 3.0], "rank", [3, 1, 1]), ([float("nan"), 3.0, 3.0], "rank", "skip"),
    ],
)  # fmt: skip
def test_answers_by_value(values: list[float], mode: str, said: object) -> None:
    assert by_value(values, mode) == said
