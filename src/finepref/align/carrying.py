"""Carrying an alignment out: its stages one after the other, in a folder that knows what it was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from finepref.align.alignment import Alignment
from finepref.align.stages import LAYER, PROMPTS
from finepref.align.starter import Starter
from finepref.align.timed import Stage, run_stage
from finepref.core.errors import InputError
from finepref.core.files import write_json
from finepref.core.memory import give_back
from finepref.core.progress import say
from finepref.core.text import asked_otherwise
from finepref.data.latents import LatentCache
from finepref.data.tokens import prompt_texts
from finepref.evaluate.scorers.scorer_rows import make, parse
from finepref.formats.alignmentrecord import ALIGNED, AlignmentRecord, read_alignment, write_alignment
from finepref.formats.cache import CACHE
from finepref.formats.comparison import COMPARISON
from finepref.formats.manifest import RECORD
from finepref.formats.ratings import RATINGS
from finepref.formats.run import is_finished, read_run
from finepref.formats.scores import SCORES
from finepref.train.unseen import held_out_ids

COMPARING = ("generate", "score", "compare")
"""Stages that pictures before and after are for."""


def begun(out: Path, asked: Mapping[str, str], data: str) -> AlignmentRecord:
    """The record of a folder in which an alignment goes on, or begins.

    Args:
        asked: what decides the result, by name. data: the version of its tables.

    Raises:
        InputError: the folder holds another one; nothing was written.
    """
    if (out / ALIGNED).is_file():
        record = read_alignment(out)
        other = asked_otherwise(record.asked, asked)
        if record.data != data and not other:
            other = ["state of its data (their files were written again since)"]
        if other:
            what = f"it holds an alignment that was asked for otherwise: {', '.join(other)}"
            raise InputError(what, where=out, remedy="name a new --out, or ask for the same; nothing was changed")
        return record
    if (out / LAYER).is_file():
        what = f"it holds an alignment without {ALIGNED}, as an older version made it"
        raise InputError(what, where=out, remedy="name a new --out; nothing was changed")
    return AlignmentRecord(dict(asked), data)


def run_alignment(planned: Alignment, record: AlignmentRecord) -> None:
    """Run the stages, each a command of its own; what has ended and is there is not run again.

    Where the run left the base as it was, there is nothing to compare, and no pictures are made.

    Raises:
        InputError: a judge that cannot be opened, before anything is made.
        FineprefError: a stage failed; its own message is on stderr.
    """
    out, every = planned.asked.out, [*planned.before, *planned.after]
    if not all(tuple(words) in record.done for words in planned.after):
        open_judges([name for name in planned.asked.judges if name not in planned.choice.scorers])
    write_alignment(out, record)
    with Starter() as starter:
        for number, words in enumerate(every, start=1):
            place = f"{number}/{len(every)}"
            if number > len(planned.before) and words[0] in COMPARING and read_run(planned.asked.run).kept == 0:
                say(f"[{place}] {words[0]}: left out, since the run left the base as it was")
                continue
            if tuple(words) in record.done and _is_there(words, planned):
                say(f"[{place}] {words[0]}: done before")
                continue
            if words[0] == "generate" and planned.asked.prompts is None:
                _write_prompts(planned)
            run_stage(Stage(words[0], (tuple(words),)), starter, workers=1, number=place)
            record = replace(record, done=(*record.done, tuple(words)))
            write_alignment(out, record)


def open_judges(named: Sequence[str]) -> None:
    """Open scorers that only the last stages need, so that one that cannot be had is refused before hours of training.

    Those that have no files of their own are left alone.

    Raises:
        InputError: of the first that cannot be opened.
    """
    for spec in named:
        chosen = parse(spec)
        if chosen.path is not None or chosen.kind.weights is not None:
            say(f"opening {spec}, which is needed at the end")
            make(spec, device="cpu")
    give_back()


def _is_there(words: Sequence[str], planned: Alignment) -> bool:
    """Whether what a command makes is there."""
    out = Path(words[words.index("--out") + 1]) if "--out" in words else Path(words[1])
    files = {
        "arena": out / RATINGS, "cache": Path(str(planned.config.cache.folder)) / CACHE, "generate": out / RECORD,
        "compare": out / COMPARISON,
    }  # fmt: skip
    if words[0] == "train":
        return is_finished(out)
    if words[0] == "score" and "--out" not in words:
        return (out / SCORES).is_file()
    return files.get(words[0], out).is_file()


def _write_prompts(planned: Alignment) -> None:
    """The prompts of the held-out pairs, of which pictures are made before and after."""
    config = planned.config
    cache = LatentCache(str(config.cache.folder))
    wanted = {cache.pairs[each].prompt for each in held_out_ids(config, cache.pairs)}
    texts = prompt_texts(config.data.paths, reading=config.data.reading(), wanted=sorted(wanted))
    write_json(planned.asked.out / PROMPTS, [texts[sha] for sha in sorted(wanted)])
