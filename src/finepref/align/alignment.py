"""From pairs to a better model and a report: the plan, and its stages one after the other."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from finepref.align.choice import Choice, choose
from finepref.align.stages import LAYER, PROMPTS, Request, judging_stages, signal_stages, training_stages
from finepref.align.timed import Stage, run_stage
from finepref.core.device import default_device
from finepref.core.errors import ConfigError, InputError
from finepref.core.files import write_json, write_text
from finepref.core.rows import PROMPTS as PROMPT_SETS
from finepref.data.inspect import DataReport, inspect
from finepref.data.latents import LatentCache
from finepref.data.tokens import prompt_texts
from finepref.evaluate.scorers.scorer_rows import parse
from finepref.formats.cache import CACHE, read_cache
from finepref.formats.layers import shipped_names
from finepref.formats.preferences import Preferences
from finepref.formats.reading import Reading
from finepref.models.family import family_of
from finepref.models.quantized import check_quantization
from finepref.models.source import locate
from finepref.plan.cards import Gpu, gpu_of
from finepref.plan.methods import get
from finepref.plan.needs import Plan
from finepref.plan.plan import plan_run
from finepref.plan.stage_memory import caching, stage_words
from finepref.train.config import RunConfig, load_config
from finepref.train.unseen import held_out_ids

RECIPES = (50, 300, 3000, 100_000)
LAB = "lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """A planned alignment. before: stages up to the run; after: those that judge it. why: a line a decision."""

    asked: Request
    choice: Choice
    config: RunConfig
    plan: Plan | None
    before: list[list[str]]
    after: list[list[str]]
    why: tuple[str, ...]


def plan_alignment(
    base: str, data: Sequence[str], out: Path, *,
    reading: Reading, words: Sequence[str], card: str | None, method: str, signal: Sequence[str],
    scorers: Sequence[str] | None, judges: Sequence[str], prompts: str | None, overrides: Sequence[str], seed: int,
    run: Path | None = None, place: Path | None = None,
) -> Alignment:  # fmt: skip
    """Look at the data, the base and the card, and decide; writes the layer that holds what was decided.

    Args:
        run: the run folder; None for `run` in `out`. place: of that layer, where it is not written into `out`: a plan
            that is only looked at.
        words: how the data are read, as words of a command; reading: the same. card: None for what is in this machine.
        scorers: rewards to learn from; None: the lab's own where all prompts are the lab's, else none.
        judges: scorers of the pictures before and after; none: those of the lab in the same case, else `scorers`.

    Raises:
        InputError: no decided vote, a base that no recipe is for, or a card that nothing fits on.
        ConfigError: nothing is held out, and no prompts are named; a quantisation that this machine cannot do.
    """
    report = inspect(list(data), reading=reading)
    pairs = report.decided
    if not pairs:
        raise InputError("nobody decided one of its pairs", where=", ".join(data), remedy="see `finepref data inspect`")
    layer = base_layer(base)
    for spec in (*(scorers or ()), *judges):
        parse(spec)
    at_home = layer == LAB and _of_the_lab(data, reading)
    rewards = scorers if scorers is not None else ("lab-reward",) if at_home else ()
    choice = choose(report, method=method, signal=signal, scorers=rewards)
    recipe = min(RECIPES, key=lambda size: abs(math.log(size / pairs)))
    written = (place or out) / LAYER
    layers = (layer, choice.method, f"pairs_{recipe}", str(written))
    gpu, shaped = _card(card), 0 if get(choice.method).listed else _not_square(report, out / "cache")
    held = {
        "model": {"base": base},
        "data": {"paths": list(data), **_read_as(reading), **({"buckets": True} if shaped else {})},
        "cache": {"folder": str(out / "cache")},
        "signal": {"file": str(out / "signals.parquet") if choice.kinds else None},
        "train": {"seed": seed, "mixed_precision": "no" if gpu is None else "bf16" if gpu.bf16 else "fp16"},
    }
    write_text(written, yaml.safe_dump(held, sort_keys=False, allow_unicode=True))
    own, plan = _fitting(layers, tuple(overrides), gpu)
    config, drawn = load_config(layers, own), list[str]()
    if plan is not None:
        caches, drawn = stage_words(config, plan.counts, plan.cards[0])
        own = (*own, *caches)
        config = load_config(layers, own)
        plan = replace(plan, caching=caching(config, plan.counts))
    if place is None:
        check_quantization(config.model.quantize, default_device())
        drawn = drawn if default_device() != "cpu" else [word for word in drawn if word != "--offload"]
    if prompts is None and not (config.data.validation_share or config.validation.pairs):
        what = "no pair is held out, so there are no prompts for pictures before and after"
        raise ConfigError(what, where="data.validation_share", remedy="name some with --prompts, or hold pairs out")
    asked = Request(
        data=tuple(data), reading=tuple(words), layers=(*layers[:-1], str(out / LAYER)), own=own, out=out,
        run=run or out / "run", prompts=prompts,
        judges=tuple(judges) or (("lab-true", "lab-reward", "lab-diversity") if at_home else tuple(rewards)),
        sampling=(*(("--steps", "10", "--guidance", "3") if layer == LAB else ()), *drawn), seed=seed,
    )  # fmt: skip
    return Alignment(
        asked=asked, choice=choice, config=config, plan=plan,
        before=[*signal_stages(asked, choice), *training_stages(asked)], after=judging_stages(asked),
        why=_reasons(report, pairs, choice, recipe, gpu, own, shaped),
    )  # fmt: skip


def run_alignment(planned: Alignment) -> None:
    """Run the stages, each a command of its own; what is finished is skipped.

    Raises:
        FineprefError: a stage failed; its own message is on stderr.
    """
    every = [*planned.before, *planned.after]
    for number, words in enumerate(every, start=1):
        if number == len(planned.before) + 1 and planned.asked.prompts is None:
            _write_prompts(planned)
        run_stage(Stage(words[0], (tuple(words),)), workers=1, number=f"{number}/{len(every)}")


def _write_prompts(planned: Alignment) -> None:
    """The prompts of the held-out pairs, of which pictures are made before and after."""
    config = planned.config
    cache = LatentCache(str(config.cache.folder))
    wanted = {cache.pairs[each].prompt for each in held_out_ids(config, cache.pairs)}
    texts = prompt_texts(config.data.paths, reading=config.data.reading(), wanted=sorted(wanted))
    write_json(planned.asked.out / PROMPTS, [texts[sha] for sha in sorted(wanted)])


def _of_the_lab(data: Sequence[str], reading: Reading) -> bool:
    """Whether the lab's scorers know all prompts."""
    known = {*PROMPT_SETS["lab-train"].load(), *PROMPT_SETS["lab-eval"].load()}
    return all(pair.prompt in known for pair in Preferences(data=list(data), reading=reading, images=False))


def base_layer(base: str) -> str:
    """The shipped layer that a base is trained by: that of its name, or of its family."""
    source = locate(base)
    family = family_of(source).name
    layer = LAB if base == LAB else family
    if layer not in shipped_names("base"):
        known = ", ".join(shipped_names("base"))
        raise InputError(f"no recipe is shipped for the family {family}", where=base, remedy=f"there are: {known}")
    return layer


def _card(name: str | None) -> Gpu | None:
    """The card of that name, or the one in this machine; None for a CPU."""
    if name is not None:
        return None if name.lower() == "cpu" else gpu_of(name)
    import torch

    if not torch.cuda.is_available():
        return None
    about = torch.cuda.get_device_properties(0)
    return Gpu(about.name, about.total_memory / 1e9, None, None, "this machine", bf16=torch.cuda.is_bf16_supported())


def _fitting(layers: Sequence[str], own: tuple[str, ...], gpu: Gpu | None) -> tuple[tuple[str, ...], Plan | None]:
    """The overrides with which a run fits the card, and what it will need."""
    if gpu is None:
        return own, None
    config = load_config(layers, own)
    plan = plan_run(config, gpus=[gpu], processes=1)
    (found,) = plan.gpus
    alone = [words for words in found.remedies if "GPUs" not in words]
    if found.fits:
        return own, plan
    if not alone:
        what = f"it needs {found.needed_gb:.0f} GB, and nothing that is known makes it fit {gpu.memory_gb:.0f} GB"
        raise InputError(what, where=gpu.name, remedy="use a larger card, or a smaller base")
    chosen = (*own, *alone[0].split())
    return chosen, plan_run(load_config(layers, chosen), gpus=[gpu], processes=1)


def _not_square(report: DataReport, cache: Path) -> int:
    """How many pictures have sides of two lengths; none where there is a cache in which all were cropped."""
    if (cache / CACHE).is_file() and not read_cache(cache).shaping.buckets:
        return 0
    return sum(count for size, count in report.sizes.items() if len({*size.split(" x ")}) == 2)


def _read_as(reading: Reading) -> dict[str, Any]:
    """How the data are read, as keys of the section `data`."""
    said = {name: getattr(reading, name) for name in ("format", "columns", "outcomes", "encoding", "split", "question")}
    said["images"] = None if reading.images is None else os.fspath(reading.images)
    return {name: value for name, value in said.items() if value not in (None, {}, "auto")}


def _reasons(
    report: DataReport, pairs: int, choice: Choice, recipe: int, gpu: Gpu | None, own: Sequence[str], shaped: int
) -> tuple[str, ...]:
    signal = " + ".join(choice.kinds) or "the votes"
    card = "no GPU: float32 on the CPU" if gpu is None else f"{gpu.name}, {gpu.memory_gb:.0f} GB"
    return (
        f"data: {pairs:,} decided pairs of {report.prompts:,} prompts, {report.images:,} pictures"
        + (f"; {shaped:,} are no squares and keep their shape (data.buckets)" if shaped else ""),
        f"signal: {signal}, trained by {choice.method}; {choice.why}",
        f"recipe: pairs_{recipe}, the nearest one",
        f"card: {card}" + (f"; to fit it: {' '.join(own)}" if own and gpu is not None else ""),
    )
