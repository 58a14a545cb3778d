"""How tables are read, beyond the cases: both views agree, shares and counts train, faults keep their place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.unit.test_dialects import save_images, write_csv

from finepref.core.errors import InputError
from finepref.core.text import as_typed, clean_name, inert, visible
from finepref.data.convert import convert
from finepref.data.inspect import inspect
from finepref.formats.pairrows import Preference
from finepref.formats.preferences import Preferences, Quarantined, read_preferences
from finepref.formats.prompts import read_prompts
from finepref.formats.reading import Reading
from finepref.formats.votefiles import read_votes
from finepref.signals.make import make_signals

CASES = Path(__file__).parents[1] / "cases"
TWO_VIEWS = [
    ("export_label_studio_json", "label_studio.json"),
    ("export_label_studio_choices_json", "label_studio_choices.json"),
    ("export_label_studio_csv", "label_studio.csv"),
    ("export_open_image_preferences_jsonl", "open_image_preferences.jsonl"),
    ("export_argilla_v2_json", "argilla_v2.json"),
    ("export_genai_bench_jsonl", "genai_bench.jsonl"),
    ("export_rapidata_counts_csv", "rapidata_counts.csv"),
    ("vote_counts", "v.csv"),
    ("choice_beside_paths", "v.csv"),
]


def points(path: Path, reading: Reading) -> tuple[list[float], list[Preference]]:
    """The left's points of every vote by the columns, and the preferences by the rows."""
    how = {"columns": reading.columns, "outcomes": reading.outcomes}
    votes = read_votes(path, **how).votes
    shares = np.full(len(votes), np.nan) if votes.share is None else votes.share
    labels = np.where(np.isnan(shares), 0.5 + 0.5 * votes.outcome, shares).tolist()
    left_out: list[Quarantined] = []
    pairs = [
        pair for pair in read_preferences(path, images=False, quarantine=left_out, **how) if pair.label == pair.label
    ]
    return labels, pairs


@pytest.mark.parametrize(("case", "file"), TWO_VIEWS, ids=lambda name: str(name))
def test_both_views_of_an_export_agree(case: str, file: str) -> None:
    columns = {"winner": "choice"} if case == "choice_beside_paths" else {}
    words = {"1": "left", "2": "right"} if columns else {}
    labels, pairs = points(CASES / case / file, Reading(columns=columns, outcomes=words))
    assert [pair.label for pair in pairs] == labels
    assert len(labels) > 1


def test_shares_and_weights_survive_and_train(tmp_path: Path) -> None:
    """17 of 26, a tie and a weight: through `convert`, then as weights 2p - 1 of the kind `shares`."""
    names = save_images(tmp_path, 2)
    head = ("image1", "image2", "prompt", "model1", "model2", "votes_image1", "votes_image2", "question")
    rows = [(*names, f"p{k}", "a", "b", *votes, "taste") for k, votes in enumerate([(17, 9), (5, 5), (0, 8), (0, 0)])]
    path = write_csv(tmp_path / "c.csv", head, *rows)
    assert convert(path, tmp_path / "pairs.parquet") == (4, 0)
    pairs = list(read_preferences(tmp_path / "pairs.parquet"))
    assert [pair.label for pair in pairs[:3]] == pytest.approx([17 / 26, 0.5, 0.0])
    assert np.isnan(pairs[3].label)
    assert [pair.weight for pair in pairs] == [26, 10, 8, 0]
    assert {pair.question for pair in pairs} == {"taste"}
    signals = make_signals(pairs, kind="shares")
    assert signals.weight.tolist() == pytest.approx([2 * 17 / 26 - 1, 1.0])
    assert signals.winner.tolist() == [0, 1]
    votes = read_votes(tmp_path / "pairs.parquet").votes
    assert votes.weight is not None
    assert votes.weight.tolist() == [26, 10, 8]


def test_faults_keep_their_place_and_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text('path1,path2,prompt\n0.png,1.png,"two\nlines"\n0.png,1.png\n0.png,1.png,NaN\n1.png,0.png,p\n')
    save_images(tmp_path, 2)
    left_out: list[Quarantined] = []
    assert [pair.prompt for pair in read_preferences(path, quarantine=left_out)] == ["two\nlines", "p"]
    assert [(each.where, each.reason) for each in left_out] == [
        (f"{path}, line 4", "it has 2 cells and the header 3"),
        (f"{path}, line 5", "the prompt is empty ('NaN')"),
    ]
    with pytest.raises(InputError, match="line 4: it has 2 cells"):
        list(read_preferences(path))
    report = inspect(path)
    assert (report.pairs, report.sources, len(report.problems)) == (2, {str(path): 4}, 2)


def test_what_was_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "v.csv.gz"
    path.write_bytes(gzip.compress(b"left;right;winner;prompt\n a ;b;Left;p\nb;a;1;p\n"))
    found = read_votes(path, outcomes={"1": "tie"})
    assert found.outcome_words == {"Left": "left", "1": "tie"}
    assert found.notes == (
        f"{path}: its columns are separated by semicolons",
        "left ' a ' is read as 'a' (trimmed, composed)",
    )
    assert [(source.rows, source.used) for source in found.sources] == [(2, 2)]


@pytest.mark.parametrize("word", ["hex", "rot13", "utf-99"])
def test_an_encoding_is_one_of_text(tmp_path: Path, word: str) -> None:
    with pytest.raises(InputError, match="unknown encoding"):
        read_votes(tmp_path, encoding=word)


def test_an_option_without_effect_is_refused(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"left": ["a"], "right": ["b"], "winner": ["left"]}), tmp_path / "v.parquet")
    with pytest.raises(InputError, match="no effect on parquet"):
        read_votes(tmp_path / "v.parquet", encoding="cp1252")
    with pytest.raises(InputError, match="name no question"):
        read_votes(tmp_path / "v.parquet", question="taste")


def test_times_order_and_missing_ones_are_said(tmp_path: Path) -> None:
    head = ("left", "right", "winner", "time")
    rows = [("a", "b", "left", "2026-01-02T10:00:00Z"), ("a", "b", "left", "2026-01-02 09:00:00+00:00")]
    votes = read_votes(write_csv(tmp_path / "v.csv", head, *rows)).votes
    assert votes.time is not None
    assert np.argsort(votes.time).tolist() == [1, 0]
    assert int(votes.time[0] - votes.time[1]) == 3600 * 10**6
    found = read_votes(write_csv(tmp_path / "w.csv", head, *rows, ("a", "b", "tie", "")))
    assert found.votes.time is None
    assert any("no time" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"prompt\nnan\n", "line 2"),
        ("b.txt", b"a cat\na \x00 dog\n", "line 2"),
        ("c.json", b'["a cat", {"prompt": false}]', "object 1"),
        ("d.jsonl", b'"a cat"\n{"prompt": {"en": "a dog"}}\n', "line 2"),
        ("e.csv", b'prompt,style\n"open,x\n', "line 2"),
        ("f.csv", b"prompt,prompt\na,b\n", "stands twice"),
        ("g.txt", "naïve".encode("cp1252"), "not utf-8"),
        ("h.json", b'["\\ud800"]', "ud800"),
    ],
)
def test_prompts_that_are_none(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_prompts(tmp_path / name)


def test_prompts_with_line_breaks_of_unicode_are_one(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a\u2028b\nc\x85d\n", encoding="utf-8")
    assert len(read_prompts(tmp_path / "p.txt")) == 2


def test_text() -> None:
    assert visible("a\x1b[31m\u202eb\n") == "a\\x1b[31m\\u202eb\\n"
    assert clean_name(" cafe\u0301 ") == "caf\u00e9"
    for cell in ("=1+1", "@SUM(A1)", "+1", "-2", "\tx"):
        assert inert(cell) == f"'{cell}"
        assert as_typed(inert(cell)) == cell
    assert (inert("a=b"), inert(-2.5), as_typed("'quoted")) == ("a=b", -2.5, "'quoted")


DEEP_CELLS = ("prompt", "left", "right", "left_image", "winner", "tie", "voter", "weight", "question", "pair_id")


@pytest.mark.parametrize("column", DEEP_CELLS)
def test_a_cell_that_is_nested_too_deeply_is_a_sentence(column: str) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    row = {"prompt": "p", "left": "A", "right": "B", "left_image": "a", "right_image": "b", "winner": "left"}
    row |= {"voter": "v", "question": "q"}
    left_out: list[Quarantined] = []
    try:
        found = list(read_preferences([row | {column: deep}, row], images=False, quarantine=left_out))
    except InputError:
        return
    assert len(found) + len(left_out) == 2


@pytest.mark.parametrize(("word", "means"), [("A", {}), ("A", {"A": "name"}), ("1", {"1": "tie"}), ("left", {})])
def test_both_readers_say_the_same_of_a_word(tmp_path: Path, word: str, means: dict[str, str]) -> None:
    path = tmp_path / "v.csv"
    path.write_text(f"left,right,winner,prompt,left_image,right_image\nA,B,{word},p,a.png,b.png\n")
    pairs = Preferences(data=path, reading=Reading(outcomes=means), images=False)
    assert len(list(pairs)) == 1
    assert pairs.account.words == read_votes(path, outcomes=means).outcome_words


def test_records_of_other_shapes_are_faults(tmp_path: Path) -> None:
    """A record that is not of its format does not stop a reader that may leave rows out."""
    good = {
        "instruction": "i",
        "output_1": "x",
        "generator_1": "a",
        "output_2": "y",
        "generator_2": "b",
        "preference": 1,
    }
    rows = [good, {**good, "preference": [1]}, {**good, "preference": "x"}, {"instruction": "i", "preference": 2}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match="object 1"):
        read_votes(tmp_path / "a.json")
    found = read_votes(tmp_path / "a.json", skip_bad_rows=True)
    assert len(found.votes) == 1
    assert [place for place, _ in found.rejected] == [f"{tmp_path / 'a.json'}: object {k}" for k in (1, 2, 3)]


def rankings(data: Path | list[Path], **how: str) -> tuple[list[tuple[Any, ...]], list[tuple[str, str]]]:
    """(pairs, bad rows) of rankings, which both readers must see: models, left's points, voter, weight of each pair."""
    found = read_votes(data, skip_bad_rows=True, **how)
    votes, n = found.votes, len(found.votes)
    voters = [None] * n if votes.voter is None else [None if v < 0 else votes.voters[v] for v in votes.voter]  # type: ignore[index]
    weights = [1.0] * n if votes.weight is None else votes.weight.tolist()
    names = ([votes.models[k] for k in side] for side in (votes.left, votes.right))
    by_columns = [*zip(*names, (0.5 + 0.5 * votes.outcome).tolist(), voters, weights, strict=True)]
    left_out: list[Quarantined] = []
    pairs = list(read_preferences(data, images=False, quarantine=left_out, **how))  # type: ignore[arg-type]
    assert [(p.model_0, p.model_1, p.label, p.voter, p.weight) for p in pairs] == by_columns
    assert sum(found.left_out.values()) == len(left_out)
    bad = [(each.where, each.reason) for each in left_out]
    assert {place for place, _ in found.rejected} <= {place for place, _ in bad}
    return by_columns, bad


def test_rankings_of_two_files_are_two(tmp_path: Path) -> None:
    head = ("system1Id", "system2Id", "system1rank", "system2rank", "prompt", "group")
    one = write_csv(tmp_path / "w1.csv", head, ("a", "b", 1, 2, "p", "same"))
    two = write_csv(tmp_path / "w2.csv", head, ("c", "d", 2, 1, "p", "same"))
    assert rankings([one, two]) == ([("a", "b", 1.0, None, 1.0), ("c", "d", 0.0, None, 1.0)], [])
    assert len({pair.game for pair in read_preferences([one, two], images=False)}) == 2
    for read in (read_votes, lambda *a, **k: list(read_preferences(*a, images=False, **k))):
        with pytest.raises(InputError, match="no column can be its group"):
            read([one, two], format="wide_ranking", columns={"group": "prompt"})


@pytest.mark.parametrize(("dialect", "group"), [("kwise", "group"), ("imagereward", "prompt_id")])
def test_a_ranking_in_two_files_is_refused(tmp_path: Path, dialect: str, group: str) -> None:
    head = (group, "model", "rank", "prompt", "image")
    one = write_csv(tmp_path / "1.csv", head, ("g", "a", 1, "p", "x"), ("g", "b", 2, "p", "y"))
    two = write_csv(tmp_path / "2.csv", head, ("h", "a", 1, "p", "x"), ("h", "b", 2, "p", "y"), ("g", "c", 1, "p", "z"))
    for read in (read_votes, lambda path: list(read_preferences(path, images=False))):
        with pytest.raises(InputError, match=f"2.csv: .*{group}.* is a ranking of .*1.csv too; .*apart"):
            read([one, two])
        assert len(getattr(found := read(one), "votes", found)) == 1


def test_questions_of_rankings_and_of_other_files(tmp_path: Path) -> None:
    head = ("group", "model", "rank", "prompt", "question")
    taste = [("g", "a", 1, "p", "cafe\u0301"), ("g", "b", 2, "p", "caf\u00e9")]
    sharp = [("h", "a", 1, "p", "sharp"), ("h", "b", 2, "p", "sharp"), ("h", "c", 3, "p", "sharp")]
    one, two = write_csv(tmp_path / "1.csv", head, *taste), write_csv(tmp_path / "2.csv", head, *sharp)
    both = write_csv(tmp_path / "3.csv", head, *taste, *sharp)
    for data in (both, [one, two]):
        for read in (read_votes, lambda path: list(read_preferences(path, images=False))):
            with pytest.raises(InputError, match="several questions"):
                read(data)  # type: ignore[operator]
        pairs, bad = rankings(data, question="sharp")
        assert (len(pairs), [reason for _, reason in bad]) == (3, ["another question"] * 2)
    assert len(list(read_preferences(one, images=False, question=" cafe\u0301"))) == 1
    again = read_preferences(one, images=False)
    assert len(list(again)) == len(list(again)) == 1
    bare = write_csv(tmp_path / "4.csv", head[:4], *(row[:4] for row in taste))
    with pytest.raises(InputError, match="name no question"):
        list(read_preferences(bare, images=False, question="x"))


def test_bad_rows_end_no_ranking(tmp_path: Path) -> None:
    path = tmp_path / "k.csv"
    rows = (
        *("g,a,1,,v,2", "g,b", "g,b,2,p,v,3", "g,,1,p,v,1", "g,c,inf,p,v,1", "g,c,first,p,v,1", "g,c,,p,v,1"),
        *("g,c,1,p,v,-1", "g,d,-1,p,v,1", ",e,1,p,v,1", "g,f,2,p,v,", "alone,a,1,p,v,1"),
    )
    path.write_text("\n".join(["group,model,rank,prompt,voter,weight", *rows, ""]))
    pairs, bad = rankings(path)
    assert pairs == [("a", "b", 1.0, "v", 2.0), ("a", "f", 1.0, "v", 2.0), ("b", "f", 0.5, "v", 3.0)]
    assert [(place.removeprefix(f"{path}, "), reason) for place, reason in bad] == [
        ("line 3", "it has 2 cells and the header 6"),
        ("line 5", "model is missing (empty, null, nan or n/a)"),
        ("line 6", "rank 'inf' is not a number"),
        ("line 7", "rank 'first' is not a number"),
        ("line 8", "rank is missing (empty, null, nan or n/a)"),
        ("line 9", "weight is not a number of 0 or above"),
        ("line 10", "rank -1: not ranked"),
        ("line 11", "group is missing (empty, null, nan or n/a)"),
        ("line 13", "alone in its ranking"),
    ]
    left_out: list[Quarantined] = []
    assert {pair.prompt for pair in read_preferences(path, images=False, quarantine=left_out)} == {"p"}
    assert [each.row for each in left_out] == [1, 3, 4, 5, 6, 7, 8, 9, 11]
    found = read_votes(path, skip_bad_rows=True)
    assert found.votes.prompt is not None
    assert len({*found.votes.prompt.tolist()} - {-1}) == 1
    assert found.votes.prompt.min() >= 0
    assert [(source.rows, source.used) for source in found.sources] == [(12, 3)]
    for name, word in (("model", "a\u200fb"), ("voter", "v\u2028w")):
        row = {"group": "g", "model": "a", "rank": 1, "prompt": "p", "voter": "v"}
        given = [row, {**row, name: word}, {**row, "model": "z"}]
        left_out.clear()
        assert len(list(read_preferences(given, images=False, quarantine=left_out))) == 1
        assert "is no name" in left_out[0].reason


def test_a_vote_without_a_winner_is_a_bad_row(tmp_path: Path) -> None:
    head = ("left", "right", "winner", "prompt")
    path = write_csv(tmp_path / "v.csv", head, ("a", "b", "", "p"), ("a", "b", "left", "p"))
    left_out: list[Quarantined] = []
    assert [pair.label for pair in read_preferences(path, images=False, quarantine=left_out)] == [1.0]
    assert [(each.where, each.reason) for each in left_out] == [*read_votes(path, skip_bad_rows=True).rejected]
    with pytest.raises(InputError, match="winner is missing"):
        list(read_preferences(path, images=False))


def test_types_of_parquet_are_text_in_both_views(tmp_path: Path) -> None:
    """The oracle is Arrow's own cast to text."""
    times = pa.array([1_700_000_000_123_456_789, 1_700_000_001_000_000_001], pa.timestamp("ns"))
    told = ([12.0, 12.5], [True, False], [7, 8], pa.array([3.0, None], pa.float32()))
    for voters in map(pa.array, told):
        path = tmp_path / "v.parquet"
        columns = {"left": ["a", "a"], "right": ["b", "b"], "winner": ["left", "right"], "prompt": ["p", "p"]}
        pa.parquet.write_table(pa.table({**columns, "voter": voters, "time": times}), path)
        pairs = list(read_preferences(path, images=False))
        assert [pair.voter for pair in pairs] == voters.cast(pa.string()).to_pylist()
        assert str(pairs[0].time).endswith(".123456")
        named = read_votes(path).votes
        assert list(named.voters or ()) == [pair.voter for pair in pairs if pair.voter is not None]
    pa.parquet.write_table(pa.table({**columns, "voter": pa.array([b"v", b"w"])}), path)
    assert [pair.voter for pair in read_preferences(path, images=False)] == [None, None]
    assert read_votes(path).votes.voter is None


def test_a_second_label_that_says_nothing_is_listed(tmp_path: Path) -> None:
    head = ("label_0", "label_1", "has_label", "model_0", "model_1", "caption", "question")
    said = [(1, "zz", "true", "q"), (1, 0, "true", "q"), (0, 1, "false", "r")]
    rows = ((*label, "a", "b", "p", question) for *label, question in said)
    path = write_csv(tmp_path / "p.csv", head, *rows)
    left_out: list[Quarantined] = []
    labels = [pair.label for pair in read_preferences(path, images=False, quarantine=left_out)]
    assert labels[0] == 1.0
    assert np.isnan(labels[1:]).all()
    assert [(each.where, each.reason) for each in left_out] == [
        (f"{path}, line 2", "label_0 1 and label_1 zz do not add up to 1")
    ]
    found = read_votes(path, skip_bad_rows=True)
    assert ([place for place, _ in found.rejected], len(found.votes)) == ([f"{path}, line 2"], 1)
