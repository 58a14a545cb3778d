"""The vote server under load, and killed: simulated people of the lab vote over HTTP on pictures of known quality.

    python benchmarks/collect_load.py load  --work DIR [--answers 1000000] [--seconds 60]
    python benchmarks/collect_load.py kills --work DIR [--times 20]

load: 50 people, one set in two seconds each; the server's CPU per set answered (which pays for the set, its pictures,
the answer and the commit), waiting times, and memory, with so many answers in the file before. kills: SIGKILL at random
moments while 50 people vote; then every answer that was acknowledged is looked up in the file, and the board of the
export is compared. A JSON file with the date, versions and the machine's load goes to `benchmarks/results`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROWS = Path(__file__).parent / "results"
MODELS = {"weak": 0.25, "middling": 0.12, "good": 0.05, "best": 0.0}
"""Model -> noise on its pictures, of 1."""
PEOPLE, PACE, PROMPTS = 50, 2.0, 60
CORE = os.sysconf("SC_CLK_TCK")


def make_pictures(out: Path, prompts: int) -> list[str]:
    """A folder of PNG files a model, each with its prompt in the file; the sources as `finepref collect` takes them."""
    from finepref.lab import world

    for model, prompt in itertools.product(range(len(MODELS)), range(prompts)):
        name, text = list(MODELS)[model], world.prompts("train")[prompt]
        chance = np.random.default_rng([model, prompt])
        drawn = world.draw(text, chance) + 255 * MODELS[name] * chance.standard_normal((world.SIZE, world.SIZE, 3))
        said = PngInfo()
        said.add_text("prompt", text)
        file = out / name / f"{prompt:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(drawn, 0, 255).astype(np.uint8)).save(file, pnginfo=said)
    return [f"{name}={out / name}" for name in MODELS]


def free_port() -> int:
    """A port that nobody listens at, of those that no outgoing connection is given: it is taken again after a kill."""
    for port in np.random.default_rng().permutation(np.arange(20_000, 30_000)):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", int(port))):
                return int(port)
    raise RuntimeError("no port is free")


class Server:
    """`finepref collect` in a process of its own, on one port and with one owner's link whenever it is started."""

    def __init__(self, sources: Sequence[str], study: Path) -> None:
        self.study, self.token, self.port = study, "0123456789abcdef-owner", free_port()
        self.start([*sources, "--out", str(study), "--voters", "nobody", "--purpose", "training"])

    def start(self, words: Sequence[str] = ()) -> None:
        """Start it, on the study that is there if no words are given; return when it listens."""
        words = [*(words or [str(self.study)]), "--port", str(self.port), "--admin-token", self.token]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "finepref", "collect", *words],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("owner: "):
                return
        raise RuntimeError(f"the server ended with {self.process.wait()}")

    @property
    def owner(self) -> str:
        return f"http://localhost:{self.port}/admin/{self.token}"

    def end(self, how: int = signal.SIGINT) -> None:
        while self.process.poll() is None:  # one that comes while Python imports may be lost
            self.process.send_signal(how)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def seconds(self) -> float:
        """CPU seconds so far."""
        said = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(said[11]) + int(said[12])) / CORE

    def peak(self) -> float:
        """Most memory so far, MB."""
        said = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", said)[1]) / 1000  # type: ignore[index]


def fill(study: Path, answers: int) -> None:
    """Put answers of 500 earlier voters into a study that nobody serves."""
    from finepref.formats import answers as kept

    chance, per_voter = np.random.default_rng(0), -(-answers // 500)
    connection = kept.connect(study / kept.VOTES)
    pictures = kept.pictures_of(connection)
    by_prompt: dict[int, list[int]] = {}
    for picture in pictures:
        by_prompt.setdefault(picture.prompt, []).append(picture.id)
    prompts = list(by_prompt.values())
    connection.execute("BEGIN IMMEDIATE")
    for voter in range(500):
        who = kept.add_voter(connection, name=f"earlier {voter}", token=f"{voter:064d}", at=0.0)
        at, side = chance.integers(len(prompts), size=per_voter), chance.random(per_voter)
        new = []
        for number in range(min(per_voter, answers - voter * per_voter)):
            two = tuple(int(each) for each in chance.choice(prompts[at[number]], 2, replace=False))
            shown = kept.ShownSet(f"{voter:016d}{number:016d}", who.id, two, "plain", "", 1.0, number)
            kept.add_shown(connection, shown)
            said = kept.as_json("left" if side[number] < 0.5 else "right")
            new.append(kept.Answer(0, shown.id, 0, said, 0, 2.0, 1500, 20, "desktop", "key"))
        kept.add_answers(connection, new)
    connection.execute("COMMIT")
    connection.close()


def load(asked: argparse.Namespace) -> dict[str, Any]:
    """50 people for some seconds; what it costs the server."""
    from finepref.lab.people import HONEST
    from finepref.lab.voting import people, vote

    study = asked.work / "load"
    server = Server(make_pictures(asked.work / "pictures", PROMPTS), study)
    began = 0.0
    if asked.answers:
        server.end()
        fill(study, asked.answers)
        began = time.perf_counter()
        server.start()
        began = time.perf_counter() - began
    start, busy = server.seconds(), os.getloadavg()[0]
    votes = max(1, int(asked.seconds / PACE))
    visits = vote(server.owner, people({HONEST: PEOPLE}, seed=1), votes=votes, seed=1, pace=PACE)
    cpu, sets = server.seconds() - start, sum(len(visit.kept) for visit in visits)
    answered = [each.seconds for visit in visits for each in visit.kept]
    given = [seconds for visit in visits for seconds in visit.asked]
    row = {
        "answers before": asked.answers, "people": PEOPLE, "pace": PACE, "sets answered": sets,
        "start, s": round(began, 1), "server CPU per set answered, ms": round(1000 * cpu / sets, 2),
        "answer p50, p95, ms": [round(1000 * float(np.quantile(answered, q)), 1) for q in (0.5, 0.95)],
        "set p50, p95, ms": [round(1000 * float(np.quantile(given, q)), 1) for q in (0.5, 0.95)],
        "load of the machine": [round(busy, 2), round(os.getloadavg()[0], 2)], "memory, MB": round(server.peak()),
    }  # fmt: skip
    server.end()
    return row


def kills(asked: argparse.Namespace) -> dict[str, Any]:
    """SIGKILL while 50 people vote; then what was acknowledged is looked up."""
    from finepref.formats import answers as kept
    from finepref.lab.people import HONEST
    from finepref.lab.voting import people, vote

    study, chance = asked.work / "kills", np.random.default_rng(asked.times)
    server = Server(make_pictures(asked.work / "pictures", PROMPTS), study)
    over = threading.Event()
    done: list[float] = []

    def kill() -> None:
        while len(done) < asked.times and not over.wait(float(chance.uniform(0.3, 3.0))):
            server.end(signal.SIGKILL)
            server.start()
            done.append(time.time())

    killer = threading.Thread(target=kill)
    killer.start()
    visits = vote(server.owner, people({HONEST: PEOPLE}, seed=2), votes=asked.votes, seed=2, pace=0.5)
    over.set()
    killer.join()
    server.end()
    told = {(each.shown, each.revision): dict(each.answers) for visit in visits for each in visit.kept}
    with kept.reading_votes(study / kept.VOTES) as connection:
        held = [answer for answer, _ in kept.answered_after(connection)]
    there = {(each.shown, each.revision): json.loads(each.answer) for each in held}
    lost = [key for key, value in told.items() if there.get(key) != value["overall"]]
    return {
        "kills": len(done), "acknowledged": len(told), "in the file": len(held), "lost": len(lost),
        "never acknowledged": len(there.keys() - told.keys()), "twice": len(held) - len(there),
        "board equal": _boards_equal(study, asked.work / "export.csv"),
    }  # fmt: skip


def _boards_equal(study: Path, export: Path) -> bool:
    """Whether the owner's board is that of the exported votes, to the last digit."""
    from finepref.arena.agreement import agreement
    from finepref.arena.engines import rate
    from finepref.collect.keeping import export_votes
    from finepref.collect.tally import VoteTally
    from finepref.formats import answers as kept
    from finepref.formats.collection import read_study
    from finepref.formats.votefiles import read_votes

    export.unlink(missing_ok=True)
    export_votes(study, export)
    with kept.reading_votes(study / kept.VOTES) as connection:
        tally = VoteTally(read_study(study), kept.pictures_of(connection))
        for answer, shown in kept.answered_after(connection):
            if not answer.undone:
                tally.add(answer, shown)
    board, table = tally.board(0), read_votes(export)
    assert board is not None
    return replace(board, agreement=None).table() == rate(table).table() and board.agreement == agreement(table.votes)


def main() -> None:
    from finepref.core import provenance

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=["load", "kills"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--votes", type=int, default=60, help="of a person, with kills")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True)
    row = (load if asked.which == "load" else kills)(asked)
    print(json.dumps(row, indent=1))
    name = f"{datetime.now(UTC):%Y-%m-%d}-collect-{asked.which}" + (f"-{asked.answers}" if asked.answers else "")
    command = f"python benchmarks/collect_load.py {asked.which}" + (
        f" --answers {asked.answers}" if asked.answers else ""
    )
    made = {"command": command, "cores": os.cpu_count(), "versions": provenance.versions(), **row}
    (ROWS / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
