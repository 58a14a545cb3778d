"""`finepref collect`: a page on which people compare pictures, and the study that keeps their votes."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from finepref.cli.ending import ends
from finepref.core.errors import InputError, cut

HERE, PORT, PEOPLE = "127.0.0.1", 8080, 12
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")

ModeOption = Annotated[str | None, typer.Option(help="pair (default), rank (put in order), best (of several).")]
ImagesOption = Annotated[int | None, typer.Option(help="Pictures of a set: 3 to 6 to rank, 2 to 6 for the best.")]
QuestionOption = Annotated[
    list[str] | None,
    typer.Option(help='NAME="What is asked?", repeatable. With --export: whose votes are written.'),
]
PresetOption = Annotated[str | None, typer.Option(help="smpo-study (best of 4, three questions, 50 prompts), ksort.")]
PromptsOption = Annotated[
    Path | None, typer.Option(help="csv with the columns file and prompt, or prompts in order of file name.")
]
GoldOption = Annotated[Path | None, typer.Option(help="Votes whose answer is known, shown now and then as a check.")]
GoldEveryOption = Annotated[int | None, typer.Option(min=2, help="One set in so many is of --gold; 12 by default.")]
TargetOption = Annotated[str | None, typer.Option(help="Sets of a voter at most: 100; or a standard error: se=0.5.")]
PurposeOption = Annotated[str | None, typer.Option(help="order (of the models, default), or training (of pictures).")]
ChoiceOption = Annotated[str | None, typer.Option(help="Of the next set: information (default), fewest-first, ksort.")]
HostOption = Annotated[str | None, typer.Option(help=f"Address to listen at, {HERE} by default; others reach 0.0.0.0.")]
PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help=f"{PORT} by default; 0: any that is free.")]
AdminTokenOption = Annotated[
    str | None, typer.Option(help="Of the owner's page, 16 or more of A-Z a-z 0-9 _ -; a new one by default.")
]
ByOption = Annotated[
    str | None,
    typer.Option(help="Who answers in place of people: lab, a scorer, pair-judge@FILE.yaml; needs --sets."),
]
SetsOption = Annotated[int | None, typer.Option(min=1, help="With --by: sets of the study that have an answer then.")]
PeopleOption = Annotated[
    int | None, typer.Option(min=1, help=f"With --by lab: how many simulated people; {PEOPLE} by default.")
]
VotersOption = Annotated[str | None, typer.Option(help="Names with commas, or how many: a personal link each.")]


def command(
    sources: Annotated[
        list[str], typer.Argument(help="Evaluation folders, FOLDER or NAME=FOLDER; or a study, which goes on.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of a new study.")] = None,
    mode: ModeOption = None,
    images: ImagesOption = None,
    question: QuestionOption = None,
    preset: PresetOption = None,
    prompts: PromptsOption = None,
    voters: VotersOption = None,
    gold: GoldOption = None,
    gold_every: GoldEveryOption = None,
    target: TargetOption = None,
    purpose: PurposeOption = None,
    choice: ChoiceOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of what is drawn; 0 by default.")] = None,
    host: HostOption = None,
    port: PortOption = None,
    admin_token: AdminTokenOption = None,
    export: Annotated[Path | None, typer.Option(help="Write the votes (.parquet or .csv) and end.")] = None,
    backup: Annotated[Path | None, typer.Option(help="Copy votes.sqlite, also while it is served, and end.")] = None,
    forget: Annotated[str | None, typer.Option(help="Remove a voter's name, and end.")] = None,
    votes: Annotated[bool, typer.Option("--votes", help="With --forget: remove the votes too.")] = False,
    by: ByOption = None,
    sets: SetsOption = None,
    people: PeopleOption = None,
) -> None:
    """Serve a page on which people compare pictures.

    Every answer is on disk before the page goes on.
    """
    from finepref.formats.collection import is_study

    ways = {"--export": export, "--backup": backup, "--forget": forget, "--by": by}
    ending = [name for name, given in ways.items() if given is not None]
    _check_ending(ending, forget, by, sets, votes=votes)
    going_on = len(sources) == 1 and is_study(sources[0])
    made = {
        "--out": out, "--mode": mode, "--images": images, "--preset": preset, "--prompts": prompts, "--gold": gold,
        "--gold-every": gold_every, "--target": target, "--purpose": purpose, "--seed": None if by else seed,
        "--question": None if ending and by is None else question, "--choice": choice,
    }  # fmt: skip
    if going_on or (ending and by is None):
        _check_idle(sources, _given(made), going_on=going_on)
    _check_served(
        {"--host": host, "--port": port, "--voters": voters, "--admin-token": admin_token}, people, ending=ending
    )
    folder = Path(sources[0]) if going_on else out
    if folder is None and len(sources) == 1 and not Path(sources[0]).exists():
        raise InputError("no such study", where=sources[0], remedy="check its name; a new one needs --out")
    if folder is None:
        raise InputError("a new study needs a folder", where="--out", remedy="name one")
    if ending and by is None:
        _end(folder, export, backup, forget, question or [], votes=votes)
        return
    asked: dict[str, Any] = {} if going_on else _options(mode, images, question or [], target, purpose, choice)
    if not going_on:
        asked |= dict(preset=_preset(preset), prompts=prompts, gold=gold, gold_every=gold_every, seed=seed or 0)
    new = [] if going_on else sources
    if by is not None and sets is not None:
        _answer(folder, new, asked, by, sets=sets, people=PEOPLE if people is None else people, seed=seed or 0)
        return
    where = HERE if host is None else host, PORT if port is None else port
    _serve(folder, new, asked, voters, where, admin_token)


def _given(options: dict[str, Any]) -> list[str]:
    return [name for name, given in options.items() if given is not None and given != []]


def _preset(word: str | None) -> str:
    if word == "":
        raise InputError("no name", where="--preset", remedy="name a preset, or leave it out")
    return word or ""


def _check_ending(ending: list[str], forget: str | None, by: str | None, sets: int | None, *, votes: bool) -> None:
    if len(ending) > 1:
        raise InputError("only one of them at once", where=", ".join(ending), remedy="call it twice")
    if votes and forget is None:
        raise InputError("it has no effect without --forget", where="--votes", remedy="leave it out")
    if (by is None) != (sets is None):
        raise InputError("they go together", where="--by, --sets", remedy="say who answers, and how many sets")


def _check_served(serving: dict[str, Any], people: int | None, *, ending: list[str]) -> None:
    """Refuse options of a page where none is served, and those that nobody can use."""
    if ending and (idle := _given(serving)):
        what = f"it has no effect with {ending[0]}, which serves no page"
        raise InputError(what, where=", ".join(idle), remedy="leave it out")
    if people is not None and "--by" not in ending:
        raise InputError("it has no effect without --by", where="--people", remedy="leave it out")
    if serving["--host"] is not None and not serving["--host"].strip():
        raise InputError("no address", where="--host", remedy=f"write {HERE}, or leave it out")
    token = serving["--admin-token"]
    if token is not None and not TOKEN.fullmatch(token):
        what = "it is not of 16 or more letters, digits, _ and -, as an address can hold them"
        raise InputError(what, where="--admin-token", remedy="write such a one, or leave it out for a new one")


def _check_idle(sources: list[str], idle: list[str], *, going_on: bool) -> None:
    """Refuse options that only make a study."""
    if not going_on:
        raise InputError("it is no study", where=cut(sources[0]), remedy="give the folder of one study")
    if idle:
        what = "it has no effect on a study that is there"
        raise InputError(what, where=", ".join(idle), remedy="leave it out, or make another study")


def _options(
    mode: str | None,
    images: int | None,
    question: list[str],
    target: str | None,
    purpose: str | None,
    choice: str | None,
) -> dict[str, Any]:
    from finepref.core.errors import check_word
    from finepref.core.text import clean_name, fault_of_name
    from finepref.formats.collection import CHOICES, StudyQuestion

    if mode is not None:
        check_word(mode, ("pair", "rank", "best"), "mode", where="--mode")
    purpose = "order" if purpose is None else purpose
    check_word(purpose, ("order", "training"), "purpose", where="--purpose")
    if choice is not None:
        check_word(choice, CHOICES, "choice", where="--choice")
    asked = []
    for word in question:
        name, equals, text = word.partition("=")
        if not equals or not clean_name(name) or not text.strip() or fault_of_name(name):
            raise InputError(
                f"{word!r} is not NAME=TEXT", where="--question", remedy='write overall="Which is better?"'
            )
        asked.append(StudyQuestion(clean_name(name), text.strip()))
    if len({each.name for each in asked}) < len(asked):
        raise InputError("two questions of one name", where="--question", remedy="give each its own")
    found: dict[str, Any] = {"mode": mode, "images": images, "questions": tuple(asked), "purpose": purpose}
    found["choice"] = choice
    if target is not None:
        kind, _, number = target.rpartition("=")
        try:
            value = float(number) if kind == "se" else int(number)
        except ValueError:
            value = 0
        if kind not in ("", "se") or not 0 < value < 1e9:
            raise InputError(f"{target!r} is no target", where="--target", remedy="write 100, or se=0.5")
        found |= {"error": value} if kind == "se" else {"votes": value}
    return found


def _serve(
    folder: Path,
    sources: list[str],
    asked: dict[str, Any],
    voters: str | None,
    where: tuple[str, int],
    token: str | None,
) -> None:
    from finepref.core.progress import say

    try:
        from finepref.collect.serving import checked_names, listen, open_study, serve
    except ModuleNotFoundError as error:
        what = f"the page needs {error.name}, which is not installed"
        raise InputError(what, where="collect", remedy="pip install 'finepref[collect]'") from None
    if sources:
        checked_names(_names(voters))  # before a study is made for them
    with _held_study(folder, sources, asked):
        host, port = where
        listening = listen(host, port)
        opened = open_study(folder, voters=_names(voters), host=host, owner=token)
        place = _address(host, listening.getsockname()[1])
        for name, link in opened.links.items():
            print(f"{name}: {place}{link}")
        if opened.local is not None:
            print(f"vote: {place}/")
        print(f"owner: {place}{opened.owner}", flush=True)
        if host == HERE:
            say("only this machine opens these links; --host 0.0.0.0 and --voters let others in")
        say(f"every answer is kept in {folder}; Ctrl-C ends, `finepref collect {shlex.quote(str(folder))}` goes on")
        serve(opened, listening)


@contextmanager
def _held_study(folder: Path, sources: list[str], asked: dict[str, Any]) -> Iterator[None]:
    """Hold the folder of a study, which is made where there are sources."""
    from finepref.collect.founding import StudyOptions, found_study
    from finepref.core.outfolders import own_folder
    from finepref.formats.folders import COLLECTION

    inputs = [source.partition("=")[2] or source for source in sources]
    with own_folder(folder, COLLECTION, inputs=[each for each in inputs if os.path.exists(each)]):
        if sources:
            found_study(folder, sources, StudyOptions(**asked))
        yield


def _address(host: str, port: int) -> str:
    """Where a browser finds it."""
    shown = "localhost" if host in (HERE, "0.0.0.0") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def _names(voters: str | None) -> list[str]:
    if voters is None:
        return []
    names = [name for name in voters.split(",") if name.strip()]
    count = voters.strip()
    if count.isascii() and count.isdigit():
        names = [f"voter {number}" for number in range(1, 1 + int(count[:5]))]  # too many are refused as such
    if not names:
        raise InputError("no voter", where="--voters", remedy="write names with commas, or how many")
    return names


def _answer(
    folder: Path, sources: list[str], asked: dict[str, Any], by: str, *, sets: int, people: int, seed: int
) -> None:
    from finepref.cli.answerers import answerers_of
    from finepref.collect.answering import answer_sets
    from finepref.collect.choices import chooser_of
    from finepref.collect.desk import open_desk
    from finepref.formats.collection import read_study
    from finepref.formats.votebatch import EVERY

    voters, turned = answerers_of(by, people=people, seed=seed)
    with _held_study(folder, sources, asked):
        about = read_study(folder)
        desk = open_desk(folder, lambda pictures: chooser_of(pictures, about), time.time)
        try:
            done = answer_sets(desk, voters, sets=sets, turned=turned)
        finally:
            desk.connection.close()
    questions = [] if len(about.questions) < 2 else ["--question", EVERY]
    ends(f"{folder}: {done} sets have an answer", ("arena", folder, *questions))


def _end(
    folder: Path, export: Path | None, backup: Path | None, forget: str | None, question: list[str], *, votes: bool
) -> None:
    from finepref.collect.keeping import checks_beside, copy_votes, export_votes, forget_voter
    from finepref.formats.collection import read_study
    from finepref.formats.votebatch import EVERY

    if len(question) > 1 or (question and export is None):
        raise InputError("one question, with --export", where="--question", remedy="leave it out")
    if export is not None:
        print(f"{export}: {export_votes(folder, export, question=question[0] if question else None)} votes")
        several = not question and len(read_study(folder).questions) > 1
        words = ["--question", EVERY] if several else []
        ends(f"{checks_beside(export)}: checks on voters", ("arena", export, *words))
    elif backup is not None:
        copy_votes(folder, backup)
        print(backup)
    else:
        assert forget is not None
        print(forget_voter(folder, forget, votes=votes))
