"""What may follow a stage: the method that a signal is for, and the scorer that knows some prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from finepref.cli.asked import words_of
from finepref.cli.ending import Words, beside
from finepref.formats.reading import Reading

SMALLEST = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def training(kinds: Sequence[str], votes: Sequence[Path], reading: Reading, signals: Path) -> Words:
    """The training on a signal: of the lab's model where the votes are the lab's, else of SD1.5, the smallest base."""
    method = method_of(kinds)
    layers = ("-c", f"lab/{method}") if all(map(_of_the_lab, votes)) else ("-c", "sd15", "-c", method)
    data = {"paths": [str(path) for path in votes], **reading.section()}
    words = [f"data.{name}={json.dumps(value, ensure_ascii=False)}" for name, value in data.items()]
    return ("train", *layers, *words, f"signal.file={signals}", "--out", Path("runs") / method)


def aligning(data: Sequence[str], reading: Reading) -> Words:
    """What one command would do with these pairs, for the smallest base; that is changed by who types it."""
    named = [word for each in data for word in ("--data", each)]
    return ("align", "--base", SMALLEST, *named, *words_of(reading), "--out", "aligned", "--dry-run")


def method_of(kinds: Sequence[str]) -> str:
    """The shipped method whose signal is of these kinds; where there is none, that of ratings, or of votes alone."""
    from finepref.formats.layers import about_method, shipped_names
    from finepref.signals.kinds import SIGNALS

    names = shipped_names("method")
    if len(kinds) == 1 and kinds[0] in names:
        return kinds[0]
    rated = any("ratings" in SIGNALS[kind].needs for kind in kinds)
    return next((name for name in names if {*about_method(name).signal} == {*kinds}), "arenapo" if rated else "dpo")


def judging(out: Path, protocol: str | None, prompts: Sequence[str], *, models: int) -> list[Words]:
    """How pictures may be judged: as their protocol says, else by a scorer that knows their prompts, or by people."""
    if protocol is not None:
        return [("score", out, "--protocol", protocol)]
    scorer = "lab-true" if {*prompts} <= {"lab-eval", "lab-train"} else "pickscore"
    people: list[Words] = [("collect", out, "--out", beside(out, "study"))] if models > 1 else []
    return [("score", out, "--scorer", scorer), *people]


def exporting(run: Path) -> Words:
    """How a run becomes a pipeline of its own; a network to guide away from is no pipeline."""
    from finepref.formats.run import read_run

    format = "diffusers" if read_run(run).swapped else "merged"
    return ("export", run, "--format", format, "--out", beside(run, format))


def _of_the_lab(votes: Path) -> bool:
    """Whether `finepref lab votes` wrote a file."""
    from finepref.core.files import parquet_meta
    from finepref.lab.crowd import VOTES

    return votes.suffix == ".parquet" and votes.is_file() and parquet_meta(votes).get("what") == VOTES
