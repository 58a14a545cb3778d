"""`finepref arena` and `finepref next` as a user runs them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from finepref import gaps, load_ratings, read_votes
from finepref.core.files import parquet_meta
from finepref.core.rng import numpy_generator

Run = Callable[..., tuple[int, str, str]]
FILES = ("ratings.json", "leaderboard.csv", "gaps.parquet", "arena.html")


def write(path: Path, *, n: int = 600, images: bool = True, evil: bool = False) -> Path:
    """Votes between five models with ties, voters and images that recur."""
    rng = numpy_generator(0, "cli", n)
    names = [
        "Stable-Diffusion-2-1",
        "Stable-Diffusion-XL-v2-2",
        "own model",
        "<script>alert(1)</script>" if evil else "x",
        "e",
    ]
    prompt = rng.integers(0, n // 12, n)
    left = rng.integers(0, 5, n)
    right = (left + rng.integers(1, 5, n)) % 5
    word = np.array(["right", "tie", "left"])[rng.choice(3, n, p=[0.4, 0.1, 0.5])]
    head = ["left", "right", "winner", "prompt", "voter"] + (["left_image", "right_image"] if images else [])
    with open(path, "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(head)
        for k in range(n):
            row = [names[left[k]], names[right[k]], word[k], f"p{prompt[k]}", f"v{k % 40}"]
            table.writerow(row + ([f"{prompt[k]}-{left[k]}", f"{prompt[k]}-{right[k]}"] if images else []))
    return path


def test_the_folder(finepref: Run, tmp_path: Path) -> None:
    votes, out = write(tmp_path / "votes.csv", evil=True), tmp_path / "arena"
    code, shown, said = finepref("arena", votes, "--out", out, "--validate", 3, "--compare-board", "arenapo-pickapic")
    assert code == 0, said
    assert sorted(p.name for p in out.iterdir()) == sorted([*FILES, "finepref.json", "validation.json"])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    found = json.loads((out / "ratings.json").read_text())
    assert {"engine", "settings", "models", "covariance", "warnings", "provenance"} <= set(found)
    for row in found["models"]:
        assert {"name", "mu", "sigma", "low", "high", "rank_low", "rank_high", "wins", "losses", "ties"} <= set(row)
        assert row["low"] < row["mu"] < row["high"]
        assert row["rank_low"] <= row["rank_high"]
    board = list(csv.DictReader((out / "leaderboard.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["model"] for row in board] == [row["name"] for row in found["models"]]
    table = pq.read_table(out / "gaps.parquet")
    assert table.column_names == ["row", "uniform", "paper", "truncated", "selection", "image"]
    assert table.num_rows == 600
    assert parquet_meta(out / "gaps.parquet")["fingerprint"] == found["provenance"]["fingerprint"]
    read = read_votes([votes]).votes
    for kind in ("uniform", "paper", "truncated", "selection", "image"):
        expected = gaps(read, load_ratings(out), kind=kind)
        assert table[kind].to_numpy() == pytest.approx(expected, abs=1e-9, nan_ok=True)
    scores = json.loads((out / "validation.json").read_text())
    assert set(scores["log_loss"]) == {"batch", "batch_drop", "online", "online_appendix_a"} == set(scores["brier"])
    assert scores["n"] == sum(row["winner"] != "tie" for row in csv.DictReader(votes.read_text().splitlines()))
    page = (out / "arena.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    for word in (
        "Leaderboard",
        "Who beats whom",
        "Compared with arenapo-pickapic",
        "Held-out",
        "Voters",
        "How much of the",
    ):
        assert word in page
    assert "rank" in shown
    assert "own model" in shown


def test_again_skips_and_other_settings_refuse(finepref: Run, tmp_path: Path) -> None:
    votes, out = write(tmp_path / "votes.csv", images=False), tmp_path / "arena"
    assert finepref("arena", votes, "--out", out)[0] == 0
    before = {name: (out / name).stat().st_mtime_ns for name in FILES}
    code, shown, said = finepref("arena", votes, "--out", out)
    assert (code, "already" in said) == (0, True)
    assert "own model" in shown
    code, _, said = finepref("arena", votes, "--out", out, "--engine", "online")
    assert code == 2
    assert "--overwrite" in said
    assert before == {name: (out / name).stat().st_mtime_ns for name in FILES}
    code, shown, _ = finepref("arena", votes, "--out", out, "--engine", "online", "--overwrite", "--json")
    assert code == 0
    assert json.loads(shown)["engine"] == "online"
    assert "image" not in pq.read_schema(out / "gaps.parquet").names


BAD = {
    "an unknown word": ("left,right,winner\nA,B,left\nA,B,better\n", (), "line 3: winner 'better' is no outcome"),
    "a missing column": ("left,right\nA,B\n", (), "column 'winner' is missing"),
    "an empty file": ("", (), "no rows"),
    "no rows": ("left,right,winner\n", (), "no votes"),
    "an empty name": ("left,right,winner\nA,,left\n", (), "right is missing"),
    "a repeated id": ("left,right,winner,k\nA,B,left,1\nA,B,left,1\n", ("--id", "k"), "'1' is repeated"),
    "two groups": (
        "left,right,winner\nA,B,left\nB,A,left\nC,D,left\nD,C,left\n",
        ("--prior", "flat"),
        "do not connect",
    ),
    "an always-winner": ("left,right,winner\nA,B,left\n", ("--prior", "flat"), "only ever won"),
    "an idle option": ("left,right,winner\nA,B,left\n", ("--preset", "appendix_a"), "no effect"),
    "an unknown board": ("left,right,winner\nA,B,left\n", ("--compare-board", "lmarena"), "unknown board"),
    "too many folds": ("left,right,winner\nA,B,left\n", ("--validate", "5"), "5 folds of 1"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_sentence(finepref: Run, tmp_path: Path, what: str) -> None:
    """Exit code 2, no traceback, nothing written and nothing overwritten."""
    text, words, says = BAD[what]
    (tmp_path / "votes.csv").write_text(text)
    out = tmp_path / "arena"
    out.mkdir()
    code, shown, said = finepref("arena", tmp_path / "votes.csv", "--out", out, *words)
    assert code == 2
    assert says in said
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("finepref: ")
    assert shown == ""
    assert [*out.iterdir()] == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["arena", "votes.csv"]


def test_bad_rows_can_be_left_out(finepref: Run, tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("left,right,winner\nA,B,left\nA,,left\nB,A,left\nA,B,left,right\n")
    code, _, said = finepref("arena", tmp_path / "v.csv", "--out", tmp_path / "a", "--skip-bad-rows")
    assert code == 0
    assert "2 rows left out" in said
    rows = [json.loads(line) for line in (tmp_path / "a" / "quarantine.jsonl").read_text().splitlines()]
    assert [row["where"].rsplit(" ", 1)[1] for row in rows] == ["5", "3"]
    assert pq.read_table(tmp_path / "a" / "gaps.parquet")["row"].to_pylist() == [0, 2]


def test_gaps_at_one_mean_margin(finepref: Run, tmp_path: Path) -> None:
    votes = write(tmp_path / "votes.csv")
    code, _, said = finepref("arena", votes, "--out", tmp_path / "a", "--normalise", "mean")
    assert code == 0, said
    table = pq.read_table(tmp_path / "a" / "gaps.parquet")
    for kind in ("uniform", "paper", "truncated", "selection", "image"):
        assert np.nanmean(table[kind].to_numpy()) == pytest.approx(1.0)
    assert parquet_meta(tmp_path / "a" / "gaps.parquet")["divided_by"]["uniform"] == 1.0
    assert finepref("arena", votes, "--out", tmp_path / "b", "--normalise", "sum")[0] == 2


def test_next(finepref: Run, tmp_path: Path) -> None:
    votes = write(tmp_path / "votes.csv", images=False)
    code, shown, _ = finepref("next", votes, "--count", 7)
    rows = list(csv.DictReader(shown.splitlines()))
    assert (code, len(rows)) == (0, 7)
    assert set(rows[0]) == {"rank", "left", "right", "gain", "votes"}
    for name in ("n.csv", "n.jsonl", "n.parquet"):
        assert finepref("next", votes, "--count", 7, "--out", tmp_path / name)[0] == 0
    assert (tmp_path / "n.csv").read_text() == shown
    assert [json.loads(line)["left"] for line in (tmp_path / "n.jsonl").read_text().splitlines()] == [
        r["left"] for r in rows
    ]
    assert pq.read_table(tmp_path / "n.parquet")["right"].to_pylist() == [r["right"] for r in rows]
    code, _, said = finepref("next", votes, "--out", tmp_path / "n.txt")
    assert (code, "unknown file type" in said) == (2, True)
    code, _, said = finepref("next", votes, "--images")
    assert (code, "do not say which images were compared" in said, said.count("\n")) == (2, True, 1)
    sure = tmp_path / "sure.csv"
    sure.write_text("left,right,winner\n" + "a,b,left\n" * 200)
    code, shown, said = finepref("next", sure)
    assert (code, shown) == (0, "rank,left,right,gain,votes\n")
    assert "the votes tell all models apart" in said


def test_next_asks_until_the_board_tells(finepref: Run, tmp_path: Path) -> None:
    """Five votes one way are certain by the order's own rule, and the board does not tell the models apart by them."""
    few = tmp_path / "few.csv"
    few.write_text("left,right,winner,voter\n" + "a,b,left,anna\n" * 5)
    code, shown, said = finepref("next", few, "--count", 3)
    assert (code, len(shown.splitlines()) > 1, "nothing to ask" in said) == (0, True, False)
    assert finepref("arena", few, "--out", tmp_path / "arena")[0] == 0
    models = json.loads((tmp_path / "arena" / "ratings.json").read_text())["models"]
    assert {model["tier"] for model in models} == {1}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_next_with_images_and_with_what_was_asked(finepref: Run, tmp_path: Path, suffix: str) -> None:
    """Names as in the votes, images of one prompt; a second batch knows the first."""
    votes = write(tmp_path / "votes.csv")
    first, second = (tmp_path / f"{name}.{suffix}" for name in ("first", "second"))
    assert finepref("next", votes, "--images", "--count", 4, "--out", first)[0] == 0
    assert finepref("next", votes, "--images", "--count", 4, "--out", second, "--asked", first)[0] == 0
    met, at = {}, {"Stable-Diffusion-2-1": 0, "Stable-Diffusion-XL-v2-2": 1, "own model": 2, "x": 3, "e": 4}
    for row in csv.DictReader(votes.read_text().splitlines()):
        met[frozenset((row["left_image"], row["right_image"]))] = row["prompt"]
    rows = [row for path in (first, second) for row in rows_of(path)]
    assert len({frozenset((row["left"], row["right"])) for row in rows}) == 8
    for row in rows:
        for side in ("left", "right"):
            prompt, model = row[f"{side}_image"].split("-")
            assert (f"p{prompt}", int(model)) == (row["prompt"], at[row[side]])
    never = [frozenset((row["left_image"], row["right_image"])) not in met for row in rows]
    assert sum(never) >= 4
    first.write_bytes(b"left,right\nnobody,x\n" if suffix == "csv" else b"{}")
    code, _, said = finepref("next", votes, "--asked", first)
    assert (code, said.count("\n")) == (2, 1)


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a file of proposals."""
    if path.suffix == ".parquet":
        return [*pq.read_table(path).to_pylist()]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return [*csv.DictReader(path.read_text().splitlines())]


def test_next_with_images_of_rankings(finepref: Run, tmp_path: Path) -> None:
    """One image column for both sides."""
    votes = tmp_path / "votes.csv"
    ranked = [(g, r, m) for g in range(6) for r, m in enumerate("cba" if g % 2 else "abc")]
    lines = [f"{g},{m},{r},{m}{g}.png,say \u201c{g}\u201d" for g, r, m in ranked]
    votes.write_text("\n".join(["group,model,rank,image,prompt", *lines]), encoding="utf-8")
    code, shown, said = finepref("next", votes, "--images", "--count", 3)
    rows = list(csv.DictReader(shown.splitlines()))
    assert (code, len(rows)) == (0, 3), said
    for row in rows:
        group = row["left_image"][1]
        assert (row["left_image"], row["right_image"]) == (f"{row['left']}{group}.png", f"{row['right']}{group}.png")
        assert row["prompt"] == f"say \u201c{group}\u201d"


def test_the_command_loads_no_torch(tmp_path: Path) -> None:
    """In a process of its own."""
    votes = write(tmp_path / "votes.csv", n=200)
    script = (
        "import sys; sys.argv = ['finepref', 'arena', sys.argv[1], '--out', sys.argv[2]]\n"
        "from finepref.cli.main import build\n"
        "build()(standalone_mode=False)\n"
        "print([m for m in ('torch', 'diffusers', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(votes), str(tmp_path / "a")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_real_crowd_votes(finepref: Run, shared: Path, tmp_path: Path) -> None:
    """59 models, 124 voters, 39 % ties: batch predicts held-out votes better than the published recipe."""
    code, shown, said = finepref(
        "arena", shared / "data" / "llmfao_votes.csv", "--out", tmp_path / "a", "--validate", 5
    )
    assert code == 0, said
    loss = json.loads((tmp_path / "a" / "validation.json").read_text())["log_loss"]
    assert loss["batch"] <= loss["online"] - 0.006
    assert loss["batch_drop"] < loss["online_appendix_a"]
    assert shown.splitlines()[1].split()[1:3] == ["GPT", "4"]
    assert "voters stand out" in (tmp_path / "a" / "arena.html").read_text()


def test_boards_of_several_questions(finepref: Run, tmp_path: Path) -> None:
    """One is refused; `--question all` writes an arena for each and a page with both; again changes nothing."""
    rows = "".join(
        f"A,B,{('left', 'right')[k % 3 == 0]},quality,v{k}\nB,A,{('left', 'right')[k % 4 == 0]},how true?,v{k}\n"
        for k in range(40)
    )
    (tmp_path / "v.csv").write_text("left,right,winner,question,voter\n" + rows + "A,B,left,,v1\n")
    out = tmp_path / "a"
    code, _, said = finepref("arena", tmp_path / "v.csv", "--out", out)
    assert (code, "several questions" in said) == (2, True)
    assert not out.exists()
    code, shown, said = finepref("arena", tmp_path / "v.csv", "--out", out, "--question", "all")
    assert code == 0, said
    boards = json.loads((out / "questions.json").read_text())["boards"]
    assert sorted((each["question"], each["folder"][2:]) for each in boards) == [
        ("how true?", "how-true"), ("quality", "quality"),
    ]  # fmt: skip
    best = {each["question"]: load_ratings(out / each["folder"]) for each in boards}
    assert {question: found.models[0] for question, found in best.items()} == {"quality": "A", "how true?": "B"}
    assert all(found.votes == 40 for found in best.values())
    assert all((out / each["folder"] / name).exists() for each in boards for name in FILES)
    page = (out / "arena.html").read_text()
    assert "how true?" in page
    assert all(f'href="{each["folder"]}/arena.html"' in page for each in boards)
    assert "all boards:" in shown
    before = {path: path.stat().st_mtime_ns for path in out.rglob("ratings.json")}
    code, shown, _ = finepref("arena", tmp_path / "v.csv", "--out", out, "--question", "all", "--json")
    assert code == 0
    assert set(json.loads(shown)) == {"quality", "how true?"}
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("ratings.json")}
    code, _, said = finepref("arena", tmp_path / "v.csv", "--out", out, "--question", "all", "--seed", 1)
    assert (code, "--overwrite" in said) == (2, True)


def test_a_question_without_a_board(finepref: Run, tmp_path: Path) -> None:
    """One with only ties, one without the voter who is left out: listed with the reason, the others rated."""
    rows = "".join(f"A,B,{('left', 'right')[k % 3 == 0]},quality,v{k % 9}\n" for k in range(40))
    rows += "A,B,tie,style,w\nB,A,tie,style,v1\n" + "A,B,left,truth,w\nA,B,right,truth,x\n"
    (tmp_path / "v.csv").write_text("left,right,winner,question,voter\n" + rows)
    out = tmp_path / "a"
    code, shown, said = finepref("arena", tmp_path / "v.csv", "--out", out, "--question", "all", "--drop-voter", "v1")
    assert code == 0, said
    held = json.loads((out / "questions.json").read_text())
    assert [each["question"] for each in held["boards"]] == ["quality"]
    reasons = {each["question"]: each["reason"] for each in held["refused"]}
    assert "is a tie" in reasons["style"]
    assert "'v1' did not vote" in reasons["truth"]
    page = (out / "arena.html").read_text()
    for question, reason in reasons.items():
        assert f"{question}: no board, because {reason}" in shown
        assert f"{question} has no board" in page
    assert not [path for path in out.rglob("*") if "style" in path.name or "truth" in path.name]
    code, _, said = finepref("arena", tmp_path / "v.csv", "--out", out, "--question", "all", "--drop-voter", "nobody")
    assert (code, "--overwrite" in said) == (2, True)
    again = ("--question", "all", "--drop-voter", "nobody", "--overwrite")
    code, _, said = finepref("arena", tmp_path / "v.csv", "--out", out, *again)
    assert (code, "did not vote" in said) == (2, True)
    assert json.loads((out / "questions.json").read_text()) == held


def test_boards_are_written_where_nobody_keeps_files(finepref: Run, tmp_path: Path) -> None:
    rows = "".join(f"A,B,{('left', 'right')[k % 3 == 0]},q{k % 2},v{k % 9}\n" for k in range(40))
    (tmp_path / "v.csv").write_text("left,right,winner,question,voter\n" + rows)
    asked = ("arena", tmp_path / "v.csv", "--question", "all", "--out")
    mine = tmp_path / "mine" / "arena.html"
    mine.parent.mkdir()
    mine.write_text("a person's page")
    code, _, said = finepref(*asked, mine.parent)
    assert (code, "nothing was changed" in said) == (2, True)
    assert [*mine.parent.iterdir()] == [mine]
    code, _, said = finepref(*asked, tmp_path / "a")
    assert code == 0, said
    (tmp_path / "a" / "notes.txt").write_text("mine")
    (tmp_path / "a" / "1-q0" / "notes.txt").write_text("mine")
    (tmp_path / "v.csv").write_text("left,right,winner,question,voter\n" + rows.replace("q0", "one"))
    code, _, said = finepref(*asked, tmp_path / "a", "--overwrite")
    assert code == 0, said
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "1-one", "1-q0", "2-q1", "arena.html", "finepref.json", "notes.txt", "questions.json"
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "a" / "1-q0").iterdir()] == ["notes.txt"]
    assert (tmp_path / "a" / "1-one" / "finepref.json").is_file()


def test_merge_into_a_name_that_cannot_be_seen(finepref: Run, tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("left,right,winner\n" + "A,B,left\nB,C,right\n" * 9)
    for name, what in (("x\x1b[31m", "x1b"), ("a\u202eb", "u202e"), ("a\nb", "n")):
        code, _, said = finepref("arena", tmp_path / "v.csv", "--out", tmp_path / "a", "--merge", f"A={name}")
        assert (code, "cannot name a model" in said, what in said) == (2, True, True)
        assert name not in said
        assert not (tmp_path / "a").exists()
