"""One reader for both views: votes as columns for the arena, pairs with images for training."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_readers import png, save_images, write

from finepref import read_votes
from finepref.core.errors import InputError
from finepref.formats.dialects import COMMON, DIALECTS, Dialect
from finepref.formats.outcomes import LEFT, RIGHT, TIE
from finepref.formats.preferences import detect_format, read_pair_ids, read_preferences
from finepref.formats.sources import tables

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "data.md"
LABEL = {1: 1.0, 0: 0.5, -1: 0.0}


def write_csv(path: Path, *rows: tuple[Any, ...]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)
    return path


def both(path: Path) -> tuple[list[float], list[float]]:
    """Labels of the votes and of the preferences of a file."""
    votes = read_votes(path).votes
    return [LABEL[outcome] for outcome in votes.outcome.tolist()], [
        pair.label for pair in read_preferences(path, images=False)
    ]


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (("left", "Right", " TIE ", "a", "B", "model_a", "MODEL_B"), (1.0, 0.0, 0.5, 1.0, 0.0, 1.0, 0.0)),
        (("draw", "Equal", "both", "neither", "tie (bothbad)", "Both Bad"), (0.5,) * 6),
        (("ours", "base", " ours", "left"), (1.0, 0.0, 1.0, 1.0)),
    ],
)
def test_one_vocabulary(tmp_path: Path, words: tuple[str, ...], labels: tuple[float, ...]) -> None:
    head = ("left", "right", "winner", "prompt")
    path = write_csv(tmp_path / "v.csv", head, *(("ours", "base", word, "p") for word in words))
    assert both(path) == ([*labels], [*labels])


def test_names_that_are_words(tmp_path: Path) -> None:
    """Models called A and B, or b and a: a word that says one side and names the other model is asked about."""
    head = ("left", "right", "winner", "prompt")
    path = write_csv(tmp_path / "v.csv", head, ("B", "A", "A", "p"), ("A", "B", "A", "p"), ("B", "A", "left", "p"))
    for said, labels in (({"A": "name"}, [0.0, 1.0, 1.0]), ({"A": "left"}, [1.0, 1.0, 1.0])):
        found = read_preferences(path, images=False, outcomes=said)
        assert [pair.label for pair in found] == labels
        assert read_votes(path, outcomes=said).votes.outcome.tolist() == [int(2 * label - 1) for label in labels]
    path = write_csv(tmp_path / "w.csv", head, ("a", "b", "a", "p"), ("b", "a", "a", "p"))
    for read in (read_votes, read_pair_ids):
        with pytest.raises(InputError, match="line 3: winner 'a' means one side and names the model of the other"):
            read(path)


def test_rankings_train_too(tmp_path: Path) -> None:
    names = save_images(tmp_path, 4)
    rows = [("g1", "A", 2, names[0]), ("g1", "B", 1, names[1]), ("g1", "C", 1, names[2]), ("g2", "A", 1, names[3])]
    head = ("group", "model", "rank", "image", "prompt", "voter")
    path = write_csv(tmp_path / "k.csv", head, *((*row, "p", "v") for row in rows))
    assert detect_format(path) == "kwise"
    assert both(path) == ([0.0, 0.0, 0.5], [0.0, 0.0, 0.5])
    pairs = list(read_preferences(path))
    assert [(p.model_0, p.model_1, p.voter) for p in pairs] == [("A", "B", "v"), ("A", "C", "v"), ("B", "C", "v")]
    assert pairs[2].image_1.read() == png(2)
    write_csv(path, head, ("g", "A", "first", "x", "p", "v"), ("g", "B", 2, "y", "p", "v"))
    with pytest.raises(InputError, match="line 2: rank 'first' is not a number"):
        list(read_preferences(path))


def test_the_house_format_and_lists_rate_models(tmp_path: Path) -> None:
    sides = [(1.0, "A", "B"), (None, "A", "B"), (0.5, "B", "A"), (0.0, "A", "B")]
    rows = [
        {
            "pair_id": f"p{i}", "prompt": "x", "image_0": png(i), "image_1": png(9), "label": label,
            "model_0": a, "model_1": b,
        }
        for i, (label, a, b) in enumerate(sides)
    ]  # fmt: skip
    found = read_votes(write(tmp_path / "pairs.parquet", rows))
    assert (found.votes.outcome.tolist(), found.left_out, found.votes.models) == (
        [1, 0, -1],
        {"nobody voted": 1},
        ("A", "B"),
    )
    assert found.ids is not None
    assert found.ids.to_pylist() == ["p0", "p2", "p3"]
    lists = [{"prompt": "p", "file_path": ["a", "b"], "human_preference": [0, 1]}]
    (tmp_path / "l.json").write_text(json.dumps(lists * 2))
    votes = read_votes(tmp_path / "l.json").votes
    assert (votes.outcome.tolist(), votes.left_image.tolist(), votes.game.tolist()) == ([-1, -1], [0, 0], [0, 1])
    (tmp_path / "l.json").write_text(json.dumps([*lists, {**lists[0], "human_preference": [1]}]))
    with pytest.raises(InputError, match="object 1: 2 images and 1 judgements"):
        read_votes(tmp_path / "l.json")
    assert len(read_pair_ids(tmp_path / "l.json")[0]) == 1


def test_a_row_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row more is read by both views."""
    roles = {"left": ("system_1",), "right": ("system_2",), "winner": ("verdict",)}
    pictures = {"left_image": ("file_1",), "right_image": ("file_2",)}
    row = Dialect(
        name="crowd",
        roles={**COMMON, **roles, **pictures},
        signature=(("system_1",), ("system_2",), ("verdict",)),
        words={"first": LEFT, "second": RIGHT, "no preference": TIE},
    )
    monkeypatch.setattr("finepref.formats.detection.DIALECTS", {**DIALECTS, "crowd": row})
    save_images(tmp_path, 2)
    head = ("system_1", "system_2", "verdict", "file_1", "file_2", "prompt")
    rows = [("x", "y", word, "0.png", "1.png", "p") for word in ("First", "second", "no preference", "tie", "y")]
    path = write_csv(tmp_path / "c.csv", head, *rows)
    assert detect_format(path) == "crowd"
    assert both(path) == ([1.0, 0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.5, 0.5, 0.0])
    assert next(iter(read_preferences(path))).image_1.read() == png(1)


def test_a_vote_beside_an_implied_winner_is_not_ignored(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", ("chosen", "rejected", "prompt", "winner"), ("a.png", "b.png", "p", "right"))
    for read in (read_votes, read_pair_ids):
        with pytest.raises(InputError, match=r"column 'winner' looks like an outcome|is missing|no known"):
            read(path)


def test_no_vote_and_missing_values_are_one_in_every_format(tmp_path: Path) -> None:
    rows = [{"left": "A", "right": "B", "winner": "left", "prompt": "p", "voter": voter} for voter in ("v", "", None)]
    write(tmp_path / "v.parquet", rows)
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_csv(tmp_path / "v.csv", tuple(rows[0]), *(tuple(row.values()) for row in rows))
    for name in ("v.parquet", "v.jsonl", "v.csv"):
        votes = read_votes(tmp_path / name).votes
        assert (votes.voter.tolist(), votes.voters) == ([0, -1, -1], ("v",))
        assert [pair.voter for pair in read_preferences(tmp_path / name, images=False)] == ["v", None, None]


def test_unread_tables_of_a_folder_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = ("left", "right", "winner", "prompt")
    for name in ("preferences.csv", "b.CSV", ".hidden.csv", ".cache/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_csv(tmp_path / name, head, ("A", "B", "left", "p"))
    assert [table.path.name for table in tables(tmp_path)] == ["preferences.csv"]
    assert "b.CSV not read" in capsys.readouterr().err
    (tmp_path / "preferences.csv").unlink()
    assert len(read_votes(tmp_path).votes) == 1


def test_objects_one_after_the_other_in_json(tmp_path: Path) -> None:
    row = {"left": "A", "right": "B", "winner": "tie", "prompt": "p"}
    for text in (json.dumps(row), json.dumps(row) + "\n" + json.dumps(row) + "\n"):
        (tmp_path / "v.json").write_text(text)
        rated, labels = both(tmp_path / "v.json")
        assert rated == labels == [0.5] * text.count("left")
    assert not math.isnan(labels[0])
