"""A study whose files are lost, damaged, mixed up or asked for twice: refused in a sentence, and no vote is lost."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tests.evaluation_folder import make_folder
from tests.unit.test_vote_site import Voter, desk_of, folders, study
from typer.testing import CliRunner

from finepref.cli.collect import _address, _check_served, _names
from finepref.cli.main import build
from finepref.collect.choices import chooser_of
from finepref.collect.desk import open_desk
from finepref.collect.founding import StudyOptions, found_study
from finepref.collect.keeping import copy_votes, export_votes, forget_voter
from finepref.collect.pictures import find_pictures
from finepref.core.errors import InputError
from finepref.formats import answers as kept
from finepref.formats.collection import GoldSet, is_study, read_study
from finepref.formats.studyvotes import study_table, voted_on


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def voted(place: Path, *, sets: int = 4, name: str = "anna", **options: Any) -> Path:
    """A study that one voter answered, the server stopped."""
    place.mkdir(exist_ok=True)
    folder = study(place, **options)
    answered(folder, sets=sets, name=name)
    return folder


def answered(folder: Path, *, sets: int, name: str) -> None:
    desk = desk_of(folder)
    voter = Voter(desk, name, monotonic=itertools.count(0.0, 1.0).__next__).enter()
    for _ in range(sets):
        voter.answer(voter.sets()[0], "left")
    desk.connection.close()


def answers_in(file: Path) -> int:
    with kept.reading_votes(file) as connection:
        return sum(1 for _ in kept.answered_after(connection))


def files_of(folder: Path) -> dict[str, bytes]:
    """What is in a folder, but for the empty log that SQLite's readers leave."""
    found = {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    return {name: held for name, held in found.items() if held and not name.endswith("-shm")}


def refused(*words: object) -> str:
    """What the command says that refuses these words."""
    found = CliRunner().invoke(build(), ["collect", *map(str, words)])
    assert isinstance(found.exception, InputError), (found.output, found.exception)
    return str(found.exception)


# What is lost


def test_votes_without_study_json_are_not_replaced(tmp_path: Path) -> None:
    folder = voted(tmp_path)
    (folder / "study.json").unlink()
    before = files_of(folder)
    with pytest.raises(InputError, match=r"4 answers of 1 voters, whose study\.json is gone; put study\.json back"):
        found_study(folder, folders(tmp_path / "in"), StudyOptions())
    assert files_of(folder) == before


def test_an_invited_voter_is_reason_enough(tmp_path: Path) -> None:
    folder = voted(tmp_path, sets=0)
    (folder / "study.json").unlink()
    with pytest.raises(InputError, match="0 answers of 1 voters"):
        found_study(folder, folders(tmp_path / "in"), StudyOptions())


def test_answers_that_are_only_in_the_log_count(tmp_path: Path) -> None:
    folder, killed = study(tmp_path), tmp_path / "killed"
    desk = desk_of(folder)
    voter = Voter(desk, monotonic=itertools.count(0.0, 1.0).__next__).enter()
    voter.answer(voter.sets()[0], "left")
    shutil.copytree(folder, killed)  # as a killed process leaves it
    desk.connection.close()
    assert (killed / "votes.sqlite-wal").stat().st_size > 0
    (killed / "study.json").unlink()
    with pytest.raises(InputError, match="1 answers of 1 voters"):
        found_study(killed, folders(tmp_path / "in"), StudyOptions())


def test_a_study_without_answers_is_made_anew_and_no_old_log_is_played(tmp_path: Path) -> None:
    folder, killed = study(tmp_path), tmp_path / "killed"
    connection = kept.connect(folder / "votes.sqlite")
    kept.put_setting(connection, "state", "closed")
    shutil.copytree(folder, killed)
    connection.close()
    (killed / "study.json").unlink()
    found_study(killed, folders(tmp_path / "in"), StudyOptions())
    assert not (killed / "votes.sqlite-wal").exists()
    with kept.reading_votes(killed / "votes.sqlite") as found:
        assert kept.setting(found, "state", "open") == "open"
        assert len(kept.pictures_of(found)) == 15


@pytest.mark.parametrize(("gone", "said"), [("votes.sqlite", "votes.sqlite is gone"), ("both", "log of votes")])
def test_a_study_without_votes_is_not_begun_again(tmp_path: Path, gone: str, said: str) -> None:
    folder = voted(tmp_path)
    (folder / "votes.sqlite").unlink()
    if gone == "both":
        (folder / "study.json").unlink()
        (folder / "votes.sqlite-wal").write_bytes(b"answers")
    before = files_of(folder)
    with pytest.raises(InputError, match=said):
        found_study(folder, folders(tmp_path / "in"), StudyOptions())
    assert files_of(folder) == before
    assert not is_study(folder)


# Backups


def test_a_backup_over_another_studys_votes(tmp_path: Path) -> None:
    one, other = study(tmp_path), voted(tmp_path / "other")
    with pytest.raises(InputError, match=r"beside a study\.json"):
        copy_votes(one, other / "votes.sqlite")
    with pytest.raises(InputError, match=r"beside a study\.json"):
        copy_votes(one, one / "copy.sqlite")
    assert answers_in(other / "votes.sqlite") == 4


def test_a_backup_over_another_studys_backup(tmp_path: Path) -> None:
    one, pictures, people = voted(tmp_path), voted(tmp_path / "2", prompts=4), voted(tmp_path / "3")
    out = tmp_path / "copy.sqlite"
    for other in (pictures, people):
        copy_votes(other, out)
        if other == people:  # the same pictures, but another voter
            with sqlite3.connect(out) as connection:
                connection.execute("UPDATE voter SET made_at = 7.0")
        before = out.read_bytes()
        with pytest.raises(InputError, match="not a copy of this study's votes"):
            copy_votes(one, out)
        assert out.read_bytes() == before
        out.unlink()


def test_a_backup_over_an_older_one_and_put_back_as_documented(tmp_path: Path) -> None:
    folder, out, killed = voted(tmp_path, sets=2), tmp_path / "copy.sqlite", tmp_path / "killed"
    copy_votes(folder, out)
    answered(folder, sets=3, name="ben")
    copy_votes(folder, out)
    assert answers_in(out) == 5
    desk = desk_of(folder)
    voter = Voter(desk, "eve", monotonic=itertools.count(0.0, 1.0).__next__).enter()
    voter.answer(voter.sets()[0], "left")
    shutil.copytree(folder, killed)
    desk.connection.close()
    assert answers_in(killed / "votes.sqlite") == 6
    for name in ("votes.sqlite-wal", "votes.sqlite-shm"):
        (killed / name).unlink(missing_ok=True)
    shutil.copy(out, killed / "votes.sqlite")
    assert answers_in(killed / "votes.sqlite") == 5
    assert "remove votes.sqlite-wal and -shm first" in kept.REMEDY
    (tmp_path / "copy.sqlite-wal").write_bytes(b"log")
    with pytest.raises(InputError, match="a log lies beside it"):
        copy_votes(folder, out)


# Prompts


def said_by_models(place: Path, **said: str) -> list[str]:
    for model, prompt in said.items():
        info = PngInfo()
        if prompt:
            info.add_text("parameters", prompt)
        (place / model).mkdir(parents=True)
        Image.new("RGB", (8, 8), (9, 9, ord(model))).save(place / model / "0.png", pnginfo=info)
    return [f"{model}={place / model}" for model in said]


@pytest.mark.parametrize("said", [{"A": "a cat", "B": ""}, {"A": "", "B": "a cat"}])
def test_a_picture_that_says_nothing_takes_no_prompt_away(tmp_path: Path, said: dict[str, str]) -> None:
    (tmp_path / "s").mkdir()
    assert found_study(tmp_path / "s", said_by_models(tmp_path, **said), StudyOptions()).prompts == ("a cat",)


def test_prompts_that_contradict_each_other(tmp_path: Path) -> None:
    sources = said_by_models(tmp_path, A="a cat " + "x" * 500, B="a dog")
    (tmp_path / "s").mkdir()
    with pytest.raises(
        InputError, match=r"B.0\.png: its prompt is 'a dog', that of .* 'a cat x{30,60}\.\.\.'; .*--prompts"
    ):
        found_study(tmp_path / "s", sources, StudyOptions())
    assert not any((tmp_path / "s").iterdir())
    (tmp_path / "p.csv").write_text("file,prompt\n0.png,a cow\n")
    assert found_study(tmp_path / "s", sources, StudyOptions(prompts=tmp_path / "p.csv")).prompts == ("a cow",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("000,a\n000.png,b\n001,c\n", "row 2: '000' stands twice"),
        (",x\n000,a\n001,b\n", "row 1: '' is no name of a file"),
        ("000,a\n/,x\n001,b\n", "row 2: '/' is no name of a file"),
        ("000,a\n001,b\x1b[31m\n", r"row 2: the prompt holds the character \\x1b"),
        ("000,a\x00\n001,b\n", r"row 1: the prompt holds the character \\x00"),
        ("000,a\u202eb\n001,b\n", r"row 1: the prompt holds the character \\u202e"),
        ("000,a\u2067b\n001,b\n", r"row 1: the prompt holds the character \\u2067"),
        ("000,a\x9bb\n001,b\n", r"row 1: the prompt holds the character \\x9b"),
    ],
)
def test_rows_of_prompts_that_cannot_be(tmp_path: Path, rows: str, said: str) -> None:
    (tmp_path / "p.csv").write_text("file,prompt\n" + rows, encoding="utf-8")
    (tmp_path / "s").mkdir()
    with pytest.raises(InputError, match=said):
        found_study(tmp_path / "s", folders(tmp_path / "in", prompts=2), StudyOptions(prompts=tmp_path / "p.csv"))


def test_lines_of_prompts_and_rows_of_unknown_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = folders(tmp_path / "in", prompts=2)
    (tmp_path / "s").mkdir()
    (tmp_path / "p.txt").write_text("a\nb\u202e\n", encoding="utf-8")
    with pytest.raises(InputError, match="prompt 2: the prompt holds"):
        found_study(tmp_path / "s", sources, StudyOptions(prompts=tmp_path / "p.txt"))
    (tmp_path / "p.csv").write_text("file,prompt\n000,\u200fa\n001,b\nzz,c\nzy,d\n", encoding="utf-8")
    found = found_study(tmp_path / "s", sources, StudyOptions(prompts=tmp_path / "p.csv"))
    assert found.prompts == ("\u200fa", "b")  # a mark of one direction turns nothing
    assert "2 of 4 rows are of files that no folder has, such as 'zy'" in capsys.readouterr().err


def test_a_study_without_prompts_says_what_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = said_by_models(tmp_path / "in", A="", B="")
    folder = tmp_path / "s"
    folder.mkdir()
    found_study(folder, sources, StudyOptions())
    assert "written as .csv, but not as .parquet" in capsys.readouterr().err
    answered(folder, sets=1, name="anna")
    assert export_votes(folder, tmp_path / "v.csv") == 1
    with pytest.raises(InputError, match="the prompt is empty"):
        export_votes(folder, tmp_path / "v.parquet")


# Forgetting


def test_a_forgotten_voter_is_called_as_nobody_else(tmp_path: Path) -> None:
    folder = voted(tmp_path, sets=2)
    answered(folder, sets=3, name="voter 1")
    assert "forgotten voter 1" in forget_voter(folder, "anna", votes=False)
    names = [line.cells["voter"] for line in study_table(folder).lines(["voter"])]
    assert {name: names.count(name) for name in names} == {"forgotten voter 1": 2, "voter 1": 3}
    forget_voter(folder, "forgotten voter 1", votes=True)
    assert {line.cells["voter"] for line in study_table(folder).lines(["voter"])} == {"voter 1"}
    for name in ("", " "):
        with pytest.raises(InputError, match="--forget: no name"):
            forget_voter(folder, name, votes=True)
    assert answers_in(folder / "votes.sqlite") == 3


# The same study again


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("--target", {"votes": 5}), ("--target", {"error": 0.5, "votes": None}), ("--target", {"votes": None}),
        ("--purpose", {"purpose": "training"}), ("--choice", {"choice": "fewest-first"}), ("--seed", {"seed": 9}),
        ("--mode", {"mode": "best", "images": 2}), ("--preset", {"preset": "ksort"}), ("--gold", {"gold": None}),
        ("--gold-every", {"gold_every": 5}),
    ],
)  # fmt: skip
def test_an_option_that_differs_is_named(tmp_path: Path, option: str, changed: dict[str, Any]) -> None:
    gold = gold_file(tmp_path, "prompt 0,A,B,model_a")
    options: dict[str, Any] = {"votes": 3, "gold": gold, "gold_every": 7}
    folder = study(tmp_path, prompts=3, **options)
    if "preset" in changed or "mode" in changed or changed.get("gold", gold) is None:
        changed = changed | {"gold": None, "gold_every": None}
    before = files_of(folder)
    assert found_study(folder, folders(tmp_path / "in", prompts=3), StudyOptions(**options)) == read_study(folder)
    with pytest.raises(InputError, match=r"was made with|known answers") as found:
        found_study(folder, folders(tmp_path / "in", prompts=3), StudyOptions(**(options | changed)))
    named = {"--gold": "--gold-every", "--preset": "--mode"}.get(option, option)
    assert str(found.value).startswith(f"{named}: ")
    assert files_of(folder) == before


def test_other_pictures_change_nothing(tmp_path: Path) -> None:
    folder = study(tmp_path, prompts=3)
    before = files_of(folder)
    with pytest.raises(InputError, match="other pictures or prompts"):
        found_study(folder, folders(tmp_path / "more", prompts=4), StudyOptions())
    assert files_of(folder) == before


def test_an_evaluation_folder_of_one_model_may_have_another_name(tmp_path: Path) -> None:
    prompts = {"own": ["a cat", "a dog"]}
    for name in ("one", "two"):
        make_folder(tmp_path / name, prompts, models=["base"])
    make_folder(tmp_path / "both", prompts, models=["base", "new"])
    found = find_pictures([f"old={tmp_path / 'one'}", f"now={tmp_path / 'two'}"])
    assert {(each.model, each.prompt) for each in found} == {(m, p) for m in ("old", "now") for p in prompts["own"]}
    with pytest.raises(InputError, match="cannot name the 2 models"):
        find_pictures([f"x={tmp_path / 'both'}"])


# Known answers


def gold_file(place: Path, *rows: str) -> Path:
    file = place / "gold.csv"
    file.write_text("\n".join(["prompt,model_a,model_b,winner", *rows, ""]))
    return file


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (("prompt 1,A,B,model_a", "prompt 0,A,A,model_a"), "row 2: 'prompt 0' with 'A' and 'A' is no pair"),
        (("prompt 0,A,B,model_a", "prompt 0,A,B,model_b"), "row 2: another row says the opposite"),
        (("prompt 0,A,B,model_a", "prompt 0,B,A,model_a"), "row 2: another row says the opposite"),
        (("prompt 0,A,B,tie",), "row 1: 'prompt 0' with 'A' and 'B' is no pair of this study with a winner"),
        (("prompt 7,A,B,model_a",), "row 1: 'prompt 7'"),
    ],
)
def test_rows_of_gold_that_cannot_be(tmp_path: Path, rows: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        study(tmp_path, gold=gold_file(tmp_path, *rows))


def test_gold_of_a_prompt_of_several_pictures(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("file,prompt\n000,same\n001,same\n002,own\n")
    options = {"prompts": tmp_path / "p.csv", "gold": gold_file(tmp_path, "own,A,B,model_b", "same,A,B,model_a")}
    (tmp_path / "s").mkdir()
    with pytest.raises(InputError, match="row 2: 2 pictures of a model have the prompt 'same'"):
        found_study(tmp_path / "s", folders(tmp_path / "in", prompts=3), StudyOptions(**options))
    options["gold"] = gold_file(tmp_path, "own,A,B,model_b", "own,B,A,model_a", "own,A,C,model_a")
    found = found_study(tmp_path / "s", folders(tmp_path / "in", prompts=3), StudyOptions(**options))
    assert found.gold == (GoldSet((6, 7), 1), GoldSet((6, 8), 0))  # pictures by prompt, then model


# Damage


RECORDS: dict[str, dict[str, Any]] = {
    "one model": {"models": ["A"]}, "models twice": {"models": ["A", "A", "B"]}, "no prompt": {"prompts": []},
    "no question": {"questions": []}, "seven pictures": {"images": 7}, "three of a pair": {"images": 3},
    "a ranking of two": {"mode": "rank"}, "no mode": {"mode": "foo"}, "votes": {"votes": -1}, "error": {"error": -0.5},
    "seed": {"seed": -3}, "gold without": {"gold_every": 5}, "gold_every": {"gold_every": -1},
    "repeat_every": {"repeat_every": -5}, "version": {"version": 2},
    "gold": {"gold": [{"pictures": [99, 100], "better": 0}], "gold_every": 5},
    "gold twice": {"gold": [{"pictures": [3, 3], "better": 0}], "gold_every": 5},
    "gold of three": {"gold": [{"pictures": [0, 1], "better": 2}], "gold_every": 5},
}  # fmt: skip
ROWS = {
    "no word": "UPDATE answer SET answer = '\"foo\"' WHERE id = 2",
    "no JSON": "UPDATE answer SET answer = '{' WHERE id = 2",
    "null": "UPDATE answer SET answer = 'null' WHERE id = 2",
    "of another mode": "UPDATE answer SET answer = '1' WHERE id = 2",
    "spaced": "UPDATE answer SET answer = ' \"skip\"' WHERE id = 2",
    "question": "UPDATE answer SET question = 9 WHERE id = 2",
    "late": "UPDATE answer SET answered_at = 1e300 WHERE id = 2",
    "endless": "UPDATE answer SET answered_at = 9e999 WHERE id = 2",
    "no time": "UPDATE answer SET answered_at = 'x' WHERE id = 2",
    "twice": "UPDATE answer SET shown = (SELECT shown FROM answer WHERE id = 1), revision = 9 WHERE id = 2",
    "picture": "UPDATE shown SET pictures = '[0,99]' WHERE id = (SELECT shown FROM answer WHERE id = 2)",
    "one picture": "UPDATE shown SET pictures = '[0]' WHERE id = (SELECT shown FROM answer WHERE id = 2)",
    "kind": "UPDATE shown SET kind = 'odd' WHERE id = (SELECT shown FROM answer WHERE id = 2)",
    "known": "UPDATE shown SET kind = 'gold' WHERE id = (SELECT shown FROM answer WHERE id = 2)",
    "repeat": "UPDATE shown SET kind = 'repeat', pictures = '[0,13]', known = (SELECT shown FROM answer WHERE id = 1) "
    "WHERE id = (SELECT shown FROM answer WHERE id = 2)",
}
WHOLE = {
    "no list": "UPDATE shown SET pictures = 'x'",
    "words": "UPDATE shown SET pictures = '[\"a\"]'",
    "no voter": "DELETE FROM voter",
    "no picture": "DELETE FROM picture WHERE id = 3",
    "other pictures": "UPDATE picture SET id = id + 1000",
    "no such model": "UPDATE picture SET model = 7 WHERE id = 4",
    "no column": "ALTER TABLE answer DROP COLUMN device",
    "no table": "DROP TABLE setting",
    "newer": "PRAGMA user_version = 9",
    "older": "PRAGMA user_version = 0",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return voted(tmp_path_factory.mktemp("whole"), sets=4)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "study"))


def opened(folder: Path) -> None:
    """As a server opens a study."""
    open_desk(folder, lambda pictures: chooser_of(pictures, read_study(folder)), lambda: 0.0).connection.close()


def readers(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: opened(folder)
    yield lambda: list(study_table(folder).lines(None))
    yield lambda: export_votes(folder, folder.parent / "x.csv")
    yield lambda: voted_on(folder)


def damage(folder: Path, *queries: str) -> None:
    connection = sqlite3.connect(folder / "votes.sqlite")
    for query in queries:
        connection.execute(query)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("case", RECORDS)
def test_a_damaged_record(folder: Path, case: str) -> None:
    about = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**about, **RECORDS[case]}))
    for read in readers(folder):
        with pytest.raises(InputError, match=r"study\.json: .*; "):
            read()


@pytest.mark.parametrize("case", ROWS)
def test_a_damaged_answer_is_named(folder: Path, case: str) -> None:
    damage(folder, ROWS[case])
    for read in readers(folder):
        with pytest.raises(InputError, match=r"votes\.sqlite: answer 2\b.*; put the last backup"):
            read()


@pytest.mark.parametrize("case", WHOLE)
def test_a_damaged_file(folder: Path, case: str) -> None:
    damage(folder, WHOLE[case])
    for read in readers(folder):
        with pytest.raises(InputError, match=r"votes\.sqlite: .*; "):
            read()


def test_bytes_that_are_cut_or_foreign(folder: Path) -> None:
    held = (folder / "votes.sqlite").read_bytes()
    for content in (b"", held[:6000], held[:4096] + b"\xa5" * (len(held) - 4096)):
        (folder / "votes.sqlite").write_bytes(content)
        for read in readers(folder):
            with pytest.raises(InputError, match=r"votes\.sqlite"):
                read()


def test_columns_that_were_added_are_left(folder: Path) -> None:
    damage(folder, *(f"ALTER TABLE {table} ADD COLUMN zzz TEXT" for table in ("picture", "voter", "shown", "answer")))
    for read in readers(folder):
        read()
    connection = kept.connect(folder / "votes.sqlite")
    shown = kept.ShownSet("new", 1, (0, 1), "plain", "", 1.0, 99)
    kept.add_shown(connection, shown)
    assert kept.shown_by_id(connection, "new") == shown
    connection.close()


def test_a_set_that_is_out_and_a_picture_that_is_gone(folder: Path) -> None:
    connection = kept.connect(folder / "votes.sqlite")
    kept.add_shown(connection, kept.ShownSet("new", 1, (0, 99), "plain", "", 1.0, 99))
    connection.close()
    with pytest.raises(InputError, match="set 'new': a picture that is not there"):
        opened(folder)
    damage(folder, "DELETE FROM shown WHERE id = 'new'")
    opened(folder)
    sorted((folder / "pictures").iterdir())[0].unlink()
    with pytest.raises(InputError, match=r"\.png: the picture is gone"):
        opened(folder)


def test_a_study_that_may_only_be_read(whole: Path) -> None:
    """As another user, who may not write the folder: SQLite cannot make its files there."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(whole, Path(place) / "study"))
        Path(place).chmod(0o755)
        for each in folder.rglob("*"):
            each.chmod(0o755 if each.is_dir() else 0o644)
        folder.chmod(0o555)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if os.getuid() == 0:
                    os.setuid(65534)
                read = len(list(study_table(folder).lines(None)))
                with pytest.raises(InputError, match="may not be written"):
                    kept.connect(folder / "votes.sqlite")
                code = 0 if read == 4 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        folder.chmod(0o755)


def test_damaged_pictures_are_made_anew(tmp_path: Path) -> None:
    folder = study(tmp_path, prompts=3)
    before = files_of(folder)
    first, second, third, *_ = sorted((folder / "pictures").iterdir())
    first.write_bytes(b"junk")
    second.write_bytes(third.read_bytes())  # whole, but another
    third.rename(tmp_path / "moved.png")
    third.symlink_to(tmp_path / "moved.png")
    found_study(folder, folders(tmp_path / "in", prompts=3), StudyOptions())
    assert files_of(folder) == before
    assert not third.is_symlink()


def test_a_link_at_the_folder_of_pictures(tmp_path: Path) -> None:
    sources, folder = folders(tmp_path / "in", prompts=2), tmp_path / "s"
    folder.mkdir()
    (folder / "pictures").symlink_to(tmp_path / "in")
    before = files_of(tmp_path / "in")
    with pytest.raises(InputError, match="pictures: it is no folder but a link"):
        found_study(folder, sources, StudyOptions())
    assert files_of(tmp_path / "in") == before


# Words of the command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--forget", ""], "--forget: no name"),
        (["--export", "x.csv", "--host", "127.0.0.1"], "--host: it has no effect with --export"),
        (["--backup", "x.sqlite", "--port", "0"], "--port: it has no effect with --backup"),
        (["--forget", "anna", "--voters", "ben"], "--voters: it has no effect with --forget"),
        (["--by", "lab", "--sets", "3", "--admin-token", "a" * 16], "--admin-token: it has no effect with --by"),
        (["--people", "4"], "--people: it has no effect without --by"),
        (["--host", ""], "--host: no address"),
        (["--admin-token", "ab/cd?ef#gh ij;kl"], "--admin-token: it is not of 16 or more"),
        (["--admin-token", "short"], "--admin-token: it is not of 16 or more"),
        (["--admin-token", "a" * 16 + "é"], "--admin-token: it is not of 16 or more"),
        (["--images", "0"], "--images: it has no effect on a study that is there"),
        (["--seed", "0"], "--seed: it has no effect on a study that is there"),
        (["--purpose", "order"], "--purpose: it has no effect on a study that is there"),
        (["--preset", ""], "--preset: it has no effect on a study that is there"),
    ],
)
def test_words_without_effect(folder: Path, words: list[str], said: str) -> None:
    before = files_of(folder)
    assert refused(folder, *words).startswith(said)
    assert files_of(folder) == before


def test_words_of_a_new_study(tmp_path: Path) -> None:
    a, b, _ = (each.partition("=")[2] for each in folders(tmp_path / "in", prompts=2))
    out = ["--out", tmp_path / "s"]
    assert "--images: 0 pictures a set" in refused(f"a={a}", f"b={b}", *out, "--mode", "best", "--images", "0")
    for text in ("which\x1b[31m?", "which\u202e?", "which\x00?"):
        assert "the question 'q': it holds the character" in refused(
            f"a={a}", f"b={b}", *out, "--question", f"q={text}"
        )
    for length in (101, 10_000):
        said = refused(f"{'n' * length}={a}", f"b={b}", *out)
        assert f"it has {length} characters, more than 100" in said
        assert len(said) < 500
    assert "no name" in refused(f"a={a}", f"b={b}", *out, "--preset", "")
    assert not (tmp_path / "s").exists()


def test_addresses_and_voters() -> None:
    assert _address("::1", 80) == "http://[::1]:80"
    assert [_address(host, 80) for host in ("127.0.0.1", "0.0.0.0", "a.test")] == [
        "http://localhost:80", "http://localhost:80", "http://a.test:80",
    ]  # fmt: skip
    assert [_names(said) for said in ("2", "²", "a, b")] == [["voter 1", "voter 2"], ["²"], ["a", " b"]]
    for none in ("", " , ", "0"):
        with pytest.raises(InputError, match="--voters: no voter"):
            _names(none)
    _check_served({"--host": "::1", "--port": 0, "--voters": "a", "--admin-token": "Az09_-" * 3}, None, ending=[])


@pytest.mark.parametrize("names", ["anna,anna", "anna,\u200b", ","])
def test_names_are_checked_before_a_study_is_made(tmp_path: Path, names: str) -> None:
    assert "--voters" in refused(*folders(tmp_path / "in"), "--out", tmp_path / "study", "--voters", names)
    assert not (tmp_path / "study").exists()
