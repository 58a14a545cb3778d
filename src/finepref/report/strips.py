"""One row of pictures per validation prompt: how a run's images change over its training steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from finepref.core.errors import InputError
from finepref.core.files import read_json
from finepref.report.html import Raw, esc, heading, pair, paragraph
from finepref.report.inputs import Run
from finepref.report.thumbnails import data_uri

STEP = re.compile(r"step-(\d+)")
MOST_STEPS, MOST_PROMPTS = 8, 6


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures of one prompt and seed at some steps: (step, data URI)."""

    prompt: str
    seed: int
    pictures: tuple[tuple[int, str], ...]


def read_strips(run: Run) -> list[Strip]:
    """The strips of a run's `samples/step-*/` folders; at most 8 evenly spaced steps and 6 prompts.

    Raises:
        InputError: a samples folder without its list of prompts.
    """
    root = run.folder / "samples"
    folders = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        match = STEP.fullmatch(folder.name)
        if match and folder.is_dir():
            folders[int(match[1])] = folder
    if not folders:
        return []
    steps = _spaced(sorted(folders), MOST_STEPS)
    last = read_json(folders[steps[-1]] / "samples.json")
    if not isinstance(last, dict) or "prompts" not in last or "seeds" not in last:
        raise InputError("it lists no prompts", where=folders[steps[-1]] / "samples.json", remedy="train again")
    strips = []
    for number, prompt in enumerate(last["prompts"][:MOST_PROMPTS]):
        seed = last["seeds"][0]
        files = [(step, folders[step] / f"{number:03d}-{seed}.png") for step in steps]
        pictures = tuple((step, data_uri(path)) for step, path in files if path.is_file())
        strips.append(Strip(str(prompt), int(seed), pictures))
    return strips


def _spaced(values: Sequence[int], most: int) -> list[int]:
    if len(values) <= most:
        return list(values)
    return [values[round(k * (len(values) - 1) / (most - 1))] for k in range(most)]


def strips_block(runs: Sequence[Run]) -> Raw:
    """The strips of all runs that kept samples, one block a prompt with a row per run."""
    blocks: dict[tuple[str, int], list[str]] = {}
    for run in runs:
        for strip in read_strips(run):
            blocks.setdefault((strip.prompt, strip.seed), []).append(_row(run.name, strip))
    if not blocks:
        return Raw("")
    words = paragraph("Every row is one prompt from the same noise; the step of training grows to the right.", "soft")
    shown = [f"<p class=caption>{esc(prompt)}</p>{''.join(rows)}" for (prompt, _), rows in blocks.items()]
    return Raw(heading("Images over the steps of training") + words + pair(*shown))


def _row(name: str, strip: Strip) -> str:
    cells = "".join(
        f'<figure><img src="{esc(picture)}" alt="{esc(name)} at step {step}: {esc(strip.prompt)}">'
        f"<figcaption>{step:,}</figcaption></figure>"
        for step, picture in strip.pictures
    )
    tiny = " tiny" if all(picture.startswith("data:image/png") for _, picture in strip.pictures) else ""
    return f'<div class="steps{tiny}"><span>{esc(name)}</span>{cells}</div>'
