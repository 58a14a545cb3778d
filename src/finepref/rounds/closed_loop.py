"""Rounds of a closed loop, each a folder of what the stage commands wrote: a second call goes on where the first ended.

generate -> collect -> arena -> signals -> cache -> train -> generate, score, compare -> once more, or the end
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finepref.align.alignment import Alignment, base_layer, plan_alignment
from finepref.align.carrying import open_judges
from finepref.align.stages import comparing_stages
from finepref.align.starter import Starter
from finepref.align.timed import Stage, Timing, run_stage
from finepref.collect.founding import StudyOptions, found_study
from finepref.collect.pictures import OF_SEED
from finepref.core.errors import InputError, check_word
from finepref.core.outfolders import own_folder
from finepref.core.progress import say
from finepref.core.text import asked_otherwise
from finepref.data.prompt_sets import load_prompt_set
from finepref.evaluate.named_models import parse_models
from finepref.evaluate.scorers.scorer_rows import parse
from finepref.formats import answers as kept
from finepref.formats.collection import read_study
from finepref.formats.comparison import Comparison, read_comparison
from finepref.formats.folders import COLLECTION
from finepref.formats.reading import AS_IT_IS
from finepref.formats.rounds import (
    BASE,
    LAST,
    NOW,
    ROUNDS,
    PlayedRound,
    RoundGain,
    RoundsRecord,
    read_rounds,
    round_folder,
    write_rounds,
)
from finepref.formats.run import read_run
from finepref.formats.studyvotes import votes_of
from finepref.plan.methods import get
from finepref.rounds.verdict import best_of, why_ended
from finepref.train.config import load_config

PEOPLE = "people"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the rounds wait for: a sentence, and the study whose sets people are to answer."""

    what: str
    study: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsRequest:
    """What the rounds are asked for.

    also: NAME=MODEL, whose pictures are shown in every round. images: pictures of a prompt that each model makes.
    sets: answered in a round. by: people, or who answers in their place (`finepref collect --by`). held_out: prompts
    that the models are judged on. scorers: learned from beside the votes; judges: not. reference: last or base, what a
    run that starts from the last model is compared with. card, method, signal, overrides: as in `finepref align`.
    """

    base: str
    out: Path
    prompts: str
    held_out: str
    rounds: int
    sets: int
    by: str
    people: int
    images: int
    judges: tuple[str, ...]
    also: tuple[str, ...] = ()
    scorers: tuple[str, ...] = ()
    sampling: tuple[str, ...] = ()
    card: str | None = None
    method: str = "auto"
    signal: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    reference: str = LAST
    limit: int | None = None
    seed: int = 0

    def identity(self) -> dict[str, str]:
        """What a further call must not change: all but the numbers of rounds and of sets, the card and the place."""
        names = [name for name in self.__slots__ if name not in ("out", "rounds", "sets", "card")]
        return {name: str(getattr(self, name)) for name in names}


def play(asked: RoundsRequest) -> RoundsRecord | Waiting:
    """Play rounds in a folder that the caller holds, until a rule ends them; or say what they wait for.

    Raises:
        InputError: the folder holds rounds that were asked for otherwise, or no judge is named.
        FineprefError: a stage failed; the same call goes on.
    """
    check_asked(asked)
    there = (asked.out / ROUNDS).is_file()
    record = read_rounds(asked.out) if there else RoundsRecord(asked.identity())
    if record.asked != asked.identity():
        other = asked_otherwise(record.asked, asked.identity())
        what = f"it holds rounds that were asked for otherwise: {', '.join(other)}"
        raise InputError(what, where=asked.out, remedy="ask for the same, or name another folder")
    if not record.rounds:
        open_judges((*asked.judges, *asked.scorers))
    if not there:
        write_rounds(asked.out, record)
    with Starter() as starter:
        while not (ended := why_ended(record.rounds, most=asked.rounds)):
            played = play_round(asked, record, starter)
            if isinstance(played, Waiting):
                return played
            rounds = (*record.rounds, played)
            record = replace(record, rounds=rounds, best=best_of(rounds), ended="")
            write_rounds(asked.out, record)
            for line in lines_of(played):
                say(line)
    record = replace(record, ended=ended)
    write_rounds(asked.out, record)
    return record


def check_asked(asked: RoundsRequest) -> None:
    """Refuse what would only be found when people have voted.

    Raises:
        InputError: no judge, or one that is learned from; a scorer, method, reference, model or prompt set that is not
            there. ConfigError: an override that no run has.
    """
    check_word(asked.reference, (LAST, BASE), "reference", where="--reference")
    judges, scorers = ({parse(spec).name for spec in specs} for specs in (asked.judges, asked.scorers))
    if not judges:
        raise InputError("nobody judges the rounds", where="--judge", remedy="name a scorer that is not learned from")
    if both := judges & scorers:
        what = f"{', '.join(sorted(both))} would judge what is learned from it"
        raise InputError(what, where="--judge", remedy="name another judge")
    if not asked.also and asked.images < 2:
        what = "the first round has one model, and its pictures have nothing to be compared with"
        remedy = "let each model make two pictures of a prompt with --images 2, or name another model with --also"
        raise InputError(what, where="--images", remedy=remedy)
    if asked.prompts == asked.held_out:
        what = "the prompts that are judged on are those that are voted on"
        raise InputError(what, where="--held-out", remedy="name others")
    for name in (asked.prompts, asked.held_out):
        load_prompt_set(name)
    if taken := parse_models(asked.also).keys() & {BASE, *(f"round-{each}" for each in range(asked.rounds + 1))}:
        what = f"{', '.join(sorted(taken))} is a name of the rounds' own models"
        raise InputError(what, where="--also", remedy="give it another name")
    method = get("dpo" if asked.method == "auto" else asked.method)
    load_config((base_layer(asked.base), method.name, "pairs_300"), asked.overrides)


def folder_of(asked: RoundsRequest, number: int) -> Path:
    """Where a round lies."""
    return round_folder(asked.out, number)


def model_of(asked: RoundsRequest, number: int) -> str:
    """The model that a round trained; the base for 0."""
    return asked.base if number == 0 else str(folder_of(asked, number) / "run")


def standing(record: RoundsRecord) -> list[int]:
    """Numbers of the rounds whose models differ from the one before, the base (0) first."""
    return [0, *(played.number for played in record.rounds if played.kept)]


def play_round(asked: RoundsRequest, record: RoundsRecord, starter: Starter) -> PlayedRound | Waiting:
    """The next round, or what it waits for."""
    number = len(record.rounds) + 1
    folder, timings = folder_of(asked, number), list[Timing]()

    def stage(*words: str) -> None:
        timings.append(run_stage(Stage(words[0], (words,)), starter, workers=1, number=f"round {number}"))

    stage(*_pictures(asked, record, number))
    study = folder / "study"
    with own_folder(study, COLLECTION, inputs=[folder / "pictures"]):
        options = StudyOptions(purpose="training", seed=asked.seed + number, id=f"round-{number}")
        found_study(study, [str(folder / "pictures")], options)
    answered = count_answered(study)
    if answered < asked.sets:
        if asked.by == PEOPLE:
            said = f"round {number} waits for votes: {answered} of {asked.sets} sets have an answer"
            return Waiting(f"{said}; call `finepref rounds` again when they are answered", study)
        drawn = ["--people", str(asked.people), "--seed", str(asked.seed + number)]
        stage("collect", str(study), "--by", asked.by, "--sets", str(asked.sets), *drawn)
        answered = count_answered(study)
    studies = [str(folder_of(asked, each) / "study") for each in range(1, number + 1)]
    stage("arena", *studies, *_merges(studies), "--out", str(folder / "board"))
    before = standing(record)[-1]
    for words in _training(asked, number, before, study).before:
        stage(*words)
    eval_folder = folder / "eval"
    models = {BASE: asked.base, NOW: model_of(asked, number)}
    models |= {LAST: model_of(asked, before)} if before else {}
    judges, drawing = (*asked.judges, *asked.scorers), (*_limit(asked), *asked.sampling)
    for words in comparing_stages(models, asked.held_out, eval_folder, judges=judges, drawn=drawing, seed=asked.seed):
        stage(*words)
    compared = read_comparison(eval_folder)
    learned = {parse(spec).name for spec in asked.scorers}
    return PlayedRound(
        number=number, model=model_of(asked, number), sets=answered, kept=read_run(folder / "run").kept or 0,
        gains=tuple(
            _gain(compared, name, trained=name in learned, last=LAST if before else BASE)
            for name in compared.metrics
        ),
        seconds=sum(each.seconds for each in timings), processor_seconds=sum(each.cpu_seconds for each in timings),
    )  # fmt: skip


def _pictures(asked: RoundsRequest, record: RoundsRecord, number: int) -> Sequence[str]:
    """Pictures of the current model, the one before it, and others; new noise in every round."""
    named = [f"{f'round-{each}' if each else BASE}={model_of(asked, each)}" for each in standing(record)[-2:]]
    words = [word for model in (*named, *asked.also) for word in ("--model", model)]
    first = 1000 * number + asked.seed * 1_000_000
    seeds = ",".join(str(first + each) for each in range(asked.images))
    out = ["--out", str(folder_of(asked, number) / "pictures")]
    return ("generate", *words, "--prompts", asked.prompts, *_limit(asked), "--seeds", seeds, *asked.sampling, *out)


def _merges(studies: Sequence[str]) -> list[str]:
    """The seeds of a model that had nothing but its own pictures beside it are that model on the board."""
    names = {name for study in studies for name in read_study(study).models if OF_SEED in name}
    return [word for name in sorted(names) for word in ("--merge", f"{name}={name.rpartition(OF_SEED)[0]}")]


def _limit(asked: RoundsRequest) -> list[str]:
    return [] if asked.limit is None else ["--limit", str(asked.limit)]


def _training(asked: RoundsRequest, number: int, before: int, study: Path) -> Alignment:
    """The signals, the cache and the run of a round, which starts from the model of round `before`."""
    start = [f"model.init_from={model_of(asked, before)}"] if before else []
    start += ["train.reference={kind: base}"] if before and asked.reference == BASE else []
    return plan_alignment(
        asked.base, [str(study)], folder_of(asked, number), reading=AS_IT_IS, words=(), card=asked.card,
        method=asked.method, signal=asked.signal, scorers=asked.scorers, judges=asked.judges, prompts=asked.held_out,
        overrides=(*start, *asked.overrides), seed=asked.seed + number,
    )  # fmt: skip


def count_answered(study: Path) -> int:
    """Sets of a study with a vote: not skipped, known or repeated ones, nor those of excluded voters."""
    with kept.reading_votes(study / kept.VOTES) as connection:
        return len({shown.id for _, shown in votes_of(connection, read_study(study))})


def _gain(compared: Comparison, metric: str, *, trained: bool, last: str) -> RoundGain:
    sign = 1.0 if compared.metrics[metric].higher_is_better else -1.0

    def difference(against: str) -> tuple[float, float, float]:
        row = compared.pair(NOW, against, metric)
        low = row.mean_difference if row.difference_low is None else row.difference_low
        high = row.mean_difference if row.difference_high is None else row.difference_high
        low, high = sorted((sign * low, sign * high))
        return sign * row.mean_difference, low, high

    return RoundGain(metric, trained, *difference(last), *difference(BASE))


def lines_of(played: PlayedRound) -> list[str]:
    """A round in plain words."""
    head = f"round {played.number}: {played.sets} sets answered, {played.processor_seconds:.0f} CPU-s"
    if played.kept == 0:
        head += "; its votes did not show that it learned, so the model is left as it was"
    found = [head]
    for gain in played.gains:
        note = " (learned from)" if gain.trained else ""
        found.append(
            f"  {gain.metric}{note}: {gain.last:+.3f} [{gain.last_low:+.3f}, {gain.last_high:+.3f}] on the model "
            f"before, {gain.base:+.3f} [{gain.base_low:+.3f}, {gain.base_high:+.3f}] on the base"
        )
    return found
