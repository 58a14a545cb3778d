"""The board of an open study is that of `finepref arena` on its folder, to the last digit; games of pairs are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finepref.arena.engines import rate
from finepref.collect.tally import VoteTally
from finepref.formats import answers as kept
from finepref.formats.answers import Answer, PictureRow, ShownSet
from finepref.formats.collection import CollectionRecord, StudyQuestion, write_study
from finepref.formats.preferences import Quarantined, read_preferences
from finepref.formats.votefiles import read_votes

MODELS, PROMPTS = ("zebra", "apple", "mid", "xx", "yy"), 30


def answer(mode: str, size: int, chance: np.random.Generator) -> Any:
    if mode == "pair":
        return str(chance.choice(["left", "right", "tie", "both_bad", "skip"], p=[0.4, 0.3, 0.1, 0.1, 0.1]))
    return int(chance.integers(size)) if mode == "best" else [int(rank) + 1 for rank in chance.permutation(size)]


@pytest.mark.parametrize(("mode", "size"), [("pair", 2), ("rank", 4), ("best", 3)])
def test_the_board_is_that_of_the_file(tmp_path: Path, mode: Any, size: int) -> None:
    """Of two questions, with repeats, undone answers, skipped sets and a voter who is excluded."""
    chance, count = np.random.default_rng(0), len(MODELS)
    pictures = [PictureRow(i, i % count, i // count, f"{i}.png", f"s{i}", 8, 8) for i in range(count * PROMPTS)]
    kept.create(tmp_path / kept.VOTES, pictures)
    questions = (StudyQuestion("overall", "?"), StudyQuestion("text", "?"))
    # several seeds of a prompt are several places with one text; a folder without prompts has empty ones
    prompts = tuple("" if i % 7 == 3 else f"p{i // 2}" for i in range(PROMPTS))
    about = CollectionRecord(
        mode=mode, images=size, questions=questions, models=MODELS, prompts=prompts, sources=()
    )  # fmt: skip
    write_study(tmp_path, about)
    connection = kept.connect(tmp_path / kept.VOTES)
    for number in range(6):
        kept.add_voter(connection, name=f"v{number}", token=f"t{number}", at=0.0)
    kept.change_voter(connection, 3, state="excluded")
    tally = VoteTally(about, pictures)
    connection.execute("BEGIN")
    for number in range(300):
        prompt, models = int(chance.integers(PROMPTS)), chance.permutation(count)[:size]
        shown = ShownSet(
            f"{number:032x}", int(chance.integers(1, 7)), tuple(int(prompt * count + m) for m in models),
            "plain" if number % 17 else "repeat", "", float(number), number,
        )  # fmt: skip
        kept.add_shown(connection, shown)
        said = [kept.as_json(answer(mode, size, chance)) for _ in questions]
        made = [Answer(0, shown.id, q, text, 0, 1000.0 + number, 10, 10, "phone", "key") for q, text in enumerate(said)]
        made = kept.add_answers(connection, made)
        for each in made:
            tally.add(each, shown)
        if number % 13 == 0:
            kept.undo_set(connection, shown.id)
            tally.undone([each.id for each in made])
    connection.execute("COMMIT")
    connection.close()
    for number, question in enumerate(questions):
        table = read_votes(tmp_path, question=question.name)
        there, live = rate(table), tally.board(number, excluded={3})
        assert live is not None
        assert replace(live, agreement=None).table() == there.table()
        assert (table.votes.game is None) == (mode == "pair")
        faults: list[Quarantined] = []
        read = read_preferences(tmp_path, question=question.name, images=False, quarantine=faults)
        pairs = list(read)
        faults = [each for each in faults if each.reason != "another question"]
        assert len(pairs) + len(faults) == len(table.votes)
        assert {each.reason for each in faults} == {"the prompt is empty"}
        assert len({pair.pair_id for pair in pairs}) == len(pairs)


def test_pairs_of_a_ranking_go_together_where_a_file_names_it(tmp_path: Path) -> None:
    """`game` of the house format: those without one stand by themselves; where no row names one there are none."""
    rows = ["pair_id,prompt,image_0,image_1,label,model_0,model_1,voter,game"]
    rows += [f"{i},p,a{i}.png,b{i}.png,1,A,B,v,{game}" for i, game in enumerate(["g1", "g1", "", "g2", ""])]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    game = read_votes(tmp_path / "a.csv").votes.game
    assert game is not None
    assert game[0] == game[1]
    assert len(set(game.tolist())) == 4
    (tmp_path / "b.csv").write_text("\n".join([rows[0], *(f"{i},p,a{i}.png,b{i}.png,1,A,B,v," for i in range(3))]))
    assert read_votes(tmp_path / "b.csv").votes.game is None
