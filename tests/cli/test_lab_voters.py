"""Simulated people vote over HTTP on a served study; the server is killed while they do."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from benchmarks.collect_load import Server, make_pictures
from scipy.stats import norm

from finepref.core.errors import InputError
from finepref.formats import answers as kept
from finepref.formats.collection import read_study
from finepref.formats.votefiles import read_votes
from finepref.lab import crowd as voters
from finepref.lab.people import CARELESS, HONEST, KINDS, ONE_SIDED, RANDOM, Person, answer_of, places
from finepref.lab.voting import people, vote
from finepref.lab.world import TASTE, Judgement


def shown(qualities: list[float]) -> Judgement:
    """Pictures of perfect form, whose size alone makes their quality."""
    zero, values = np.zeros(len(qualities)), np.array(qualities)
    return Judgement(values * TASTE["size"], zero, values, zero, zero)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_answers_as_it_is_said(kind: str) -> None:
    """2,000 pairs whose left picture is better by about two standard deviations of a look."""
    crowd, chance = voters.crowd(0, voters=1), np.random.default_rng(0)
    better = 2 * crowd.noise[0] / crowd.taste[0, 0]
    turns = [True, False] * 1000
    said = [
        answer_of(Person("p", kind, 0), crowd, shown([better, 0.0] if turn else [0.0, better]), "pair", chance)
        for turn in turns
    ]
    right = np.mean([word == ("left" if turn else "right") for word, turn in zip(said, turns, strict=True)])
    left = np.mean([word == "left" for word in said])
    sees = norm.sf((float(crowd.zone[0]) - 2 * crowd.noise[0]) / crowd.noise[0])
    wanted = {HONEST: (sees, sees / 2), CARELESS: (sees / 2 + 0.25, None), ONE_SIDED: (0.5, 0.8), RANDOM: (0.5, 0.5)}
    share, first = wanted[kind]
    assert right == pytest.approx(share, abs=0.045)
    assert first is None or left == pytest.approx(first, abs=0.06)


def test_places_and_the_best() -> None:
    assert places([0.0, 3.0, 2.9, -1.0], 0.2) == [3, 1, 1, 4]
    crowd, person = voters.crowd(0, voters=1), Person("p", HONEST, 0)
    for _ in range(20):
        chance = np.random.default_rng(_)
        assert answer_of(person, crowd, shown([0.0, 90.0, 30.0]), "best", chance) == 1
        assert answer_of(person, crowd, shown([0.0, 90.0, 30.0]), "rank", chance) == [3, 1, 2]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_pictures(tmp_path_factory.mktemp("pictures"), 12)


def test_a_study_is_made_and_answered_in_one_call(sources: list[str], tmp_path: Path) -> None:
    words = ["collect", *sources, "--out", str(tmp_path / "study"), "--by", "lab", "--sets", "5", "--seed", "3"]
    told = subprocess.run([sys.executable, "-m", "finepref", *words], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, f"{tmp_path / 'study'}: 5 sets have an answer\n"), told.stderr
    assert read_study(tmp_path / "study").seed == 3
    words[words.index("lab")] = "labb"
    told = subprocess.run([sys.executable, "-m", "finepref", *words], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (2, "finepref: --by: unknown voter 'labb'; did you mean 'lab'?\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_server_that_is_ended_says_where_the_answers_are(
    sources: list[str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    words = [sys.executable, "-m", "finepref", "collect", *sources, "--out", str(tmp_path / "study"), "--port", "0"]
    one = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert one.stdout is not None
    while not one.stdout.readline().startswith("owner: "):
        assert one.poll() is None
    two = subprocess.run(
        [*words[:4], str(tmp_path / "study"), "--port", "0"], capture_output=True, text=True, check=False
    )
    assert two.returncode == 2
    assert "another finepref serves this study, or writes it; end that one first" in two.stderr
    one.send_signal(number)
    _, said = one.communicate(timeout=300)
    kept_in = f"finepref: every answer is kept in {tmp_path / 'study'}; `finepref collect {tmp_path / 'study'}` goes on"
    assert (one.returncode, said.splitlines()[-1]) == (code, kept_in)


def test_the_command_votes_and_the_better_model_leads(sources: list[str], tmp_path: Path) -> None:
    server = Server(sources, tmp_path / "study")
    try:
        words = ["lab", "voters", "--url", server.owner, "--count", "4", "--careless", "1", "--votes", "24"]
        told = subprocess.run(
            [sys.executable, "-m", "finepref", *words], capture_output=True, text=True, check=True, timeout=300
        )
        assert told.stdout.startswith("120 sets answered by 5 people")
        with pytest.raises(InputError, match="2 people share one link"):
            vote(f"http://localhost:{server.port}/", people({HONEST: 2}, seed=0), votes=1, seed=0)
        with pytest.raises(InputError, match="401"):
            vote(f"http://localhost:{server.port}/admin/guess", people({HONEST: 2}, seed=0), votes=1, seed=0)
    finally:
        server.end()
    table = read_votes(tmp_path / "study")
    wins = {name: 0.0 for name in table.votes.models}
    for left, right, outcome in zip(table.votes.left, table.votes.right, table.votes.outcome, strict=True):
        wins[table.votes.models[left]] += (outcome + 1) / 2
        wins[table.votes.models[right]] += (1 - outcome) / 2
    assert max(wins, key=lambda name: wins[name]) in ("best", "good")
    assert min(wins, key=lambda name: wins[name]) == "weak"


def test_what_was_acknowledged_is_there_after_kills(sources: list[str], tmp_path: Path) -> None:
    """Killed three times while eight people vote: each acknowledged answer is in the file once, and no other."""
    server, chance = Server(sources, tmp_path / "study"), np.random.default_rng(0)
    over, kills = threading.Event(), []

    def kill() -> None:
        while len(kills) < 3 and not over.wait(float(chance.uniform(0.2, 0.6))):
            server.end(signal.SIGKILL)
            server.start()
            kills.append(1)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        visits = vote(server.owner, people({HONEST: 8}, seed=1), votes=15, seed=1, pace=0.3)
    finally:
        over.set()
        killer.join()
        server.end()
    told = {(each.shown, each.revision): each.answers["overall"] for visit in visits for each in visit.kept}
    with kept.reading_votes(tmp_path / "study" / kept.VOTES) as connection:
        held = [answer for answer, _ in kept.answered_after(connection)]
    assert len(kills) >= 1
    assert {(each.shown, each.revision): each.answer for each in held} == {
        key: kept.as_json(value) for key, value in told.items()
    }
    assert len(held) == len(told) == 8 * 15
