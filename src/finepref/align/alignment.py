"""From pairs to a better model and a report: what is decided, and the stages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from finepref.align.choice import Choice, choose
from finepref.align.stages import LAYER, Request, judging_stages, signal_stages, training_stages
from finepref.core.device import default_device
from finepref.core.errors import ConfigError, InputError
from finepref.core.files import write_text
from finepref.core.rows import PROMPTS as PROMPT_SETS
from finepref.data.inspect import DataReport, inspect
from finepref.data.prompt_sets import load_prompt_set
from finepref.evaluate.scorers.scorer_rows import parse
from finepref.formats.cache import CACHE, read_cache
from finepref.formats.folders import LAB_MODEL
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
from finepref.train.diagnose import FEW, FEWEST
from finepref.train.method import check_data, make_method

RECIPES = (50, 300, 3000, 100_000)
OPTIONS = {
    "model.base": "--base", "data.paths": "--data", "cache.folder": "--out", "signal.file": "--signal",
    "train.seed": "--seed",
}  # fmt: skip
"""What a run is told by options of `align`, and by which."""
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
    _check_scorers(tuple(scorers or ()), judges)
    if prompts is not None:
        load_prompt_set(prompts)
    at_home = layer == LAB and _of_the_lab(data, reading)
    rewards = scorers if scorers is not None else ("lab-reward",) if at_home else ()
    choice = choose(report, method=method, signal=signal, scorers=rewards)
    if scorers and not choice.scorers:
        what = f"{choice.method} with {' + '.join(choice.kinds) or 'the votes alone'} learns from no scorer"
        raise InputError(what, where="--scorer", remedy="name it with --judge, or leave --method and --signal out")
    recipe = min(RECIPES, key=lambda size: abs(math.log(size / pairs)))
    written = (place or out) / LAYER
    layers = (layer, choice.method, f"pairs_{recipe}", str(written))
    gpu = _card(card)
    if gpu is not None and place is None and default_device() == "cpu":
        what = f"this machine has no GPU, and {card} is the card of another one"
        raise InputError(what, where="--card", remedy="see the plan for it with --dry-run, or leave --card out")
    shaped = 0 if get(choice.method).listed else _not_square(report, out / "cache")
    held = {
        "model": {"base": base},
        "data": {"paths": list(data), **reading.section(), **({"buckets": True} if shaped else {})},
        "cache": {"folder": str(out / "cache")},
        "signal": {"file": str(out / "signals.parquet") if choice.kinds else None},
        "train": {"seed": seed, "mixed_precision": "no" if gpu is None else "bf16" if gpu.bf16 else "fp16"},
    }
    text = yaml.safe_dump(held, sort_keys=False, allow_unicode=True)
    if written.is_file() and written.read_text(encoding="utf-8") != text:
        what = "it is not as this alignment wrote it: it was changed, or the card is another one"
        raise InputError(what, where=written, remedy="put it back, or name a new --out; nothing was changed")
    write_text(written, text)
    _check_own(load_config(layers, tuple(overrides)), held)
    own, plan = _fitting(layers, tuple(overrides), gpu)
    config, drawn = load_config(layers, own), list[str]()
    check_data(config, make_method(config))
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
    if prompts is None and config.data.validation_share and report.prompts < 2:
        what = "all pairs have one prompt, so that none can be held out"
        remedy = "take pairs of several prompts; or give data.validation_share=0 train.stop=null and --prompts"
        raise InputError(what, where=", ".join(data), remedy=remedy)
    asked = Request(
        data=tuple(data), reading=tuple(words), layers=(*layers[:-1], str(out / LAYER)), own=own, out=out,
        run=run or out / "run", prompts=prompts,
        judges=tuple(judges) or (("lab-true", "lab-reward", "lab-diversity") if at_home else tuple(rewards)),
        sampling=(*(("--steps", "10", "--guidance", "3") if layer == LAB else ()), *drawn), seed=seed,
    )  # fmt: skip
    return Alignment(
        asked=asked, choice=choice, config=config, plan=plan,
        before=[*signal_stages(asked, choice), *training_stages(asked)], after=judging_stages(asked),
        why=_reasons(report, pairs, choice, recipe, gpu, own[len(overrides) :], shaped, config, asked=asked),
    )  # fmt: skip


def _check_scorers(scorers: Sequence[str], judges: Sequence[str]) -> None:
    """Refuse what is no scorer, is named twice, or may not be learned from."""
    for option, specs in (("--scorer", scorers), ("--judge", judges)):
        if len({*specs}) < len(specs):
            raise InputError("a scorer is named twice", where=option, remedy="name it once")
        for spec in specs:
            kind = parse(spec).kind
            if option == "--scorer" and kind.judges_only:
                what = f"no training may read {kind.name}: it is the truth, or says nothing of a picture alone"
                raise InputError(what, where=option, remedy="name it with --judge")


def _check_own(config: RunConfig, held: Mapping[str, Any]) -> None:
    """Refuse overrides of what the options of `align` say.

    Raises:
        ConfigError: names the option.
    """
    said = config.model_dump()
    for section, keys in held.items():
        for key, value in keys.items():
            found = said[section][key]
            if f"{section}.{key}" in OPTIONS and (list(found) if isinstance(value, list) else found) != value:
                what = "align looks at the data and the base, and sets this itself"
                raise ConfigError(what, where=f"{section}.{key}", remedy=f"use {OPTIONS[f'{section}.{key}']}")


def _of_the_lab(data: Sequence[str], reading: Reading) -> bool:
    """Whether the lab's scorers know all prompts."""
    known = {*PROMPT_SETS["lab-train"].load(), *PROMPT_SETS["lab-eval"].load()}
    return all(pair.prompt in known for pair in Preferences(data=list(data), reading=reading, images=False))


def base_layer(base: str) -> str:
    """The shipped layer that a base is trained by: that of its name, or of its family."""
    source = locate(base)
    family = family_of(source).name
    layer = LAB if base == LAB or (source.folder / LAB_MODEL).is_file() else family
    if layer not in shipped_names("base"):
        known = ", ".join(shipped_names("base"))
        raise InputError(f"no recipe is shipped for the family {family}", where=base, remedy=f"there are: {known}")
    return layer


def _card(name: str | None) -> Gpu | None:
    """The card of that name, or the one in this machine; None for a CPU."""
    if name is not None:
        try:
            return None if name.lower() == "cpu" else gpu_of(name)
        except ConfigError as error:
            raise InputError(error.what, where="--card", remedy=error.remedy) from None
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


NOBODY = "judged: by nobody; a scorer that --judge names compares the pictures before and after"


def _of_few(pairs: int) -> str:
    if pairs < FEWEST:
        return f"; under {FEWEST} pairs nothing was tried, and they are likely too few"
    return f"; with {FEW} pairs or fewer every run that was tried left the base as it was" if pairs <= FEW else ""


def _reasons(
    report: DataReport, pairs: int, choice: Choice, recipe: int, gpu: Gpu | None, own: Sequence[str], shaped: int,
    config: RunConfig, *, asked: Request,
) -> tuple[str, ...]:  # fmt: skip
    signal = " + ".join(choice.kinds) or "the votes"
    train, share = config.train, config.data.validation_share
    steps = f"{train.max_steps} steps of {train.pairs_per_step} pairs at rate {train.learning_rate:g}"
    held = f"{share:.0%} of the pairs held out" if share else "the pairs of validation.pairs held out"
    card = "no GPU: float32 on the CPU" if gpu is None else f"{gpu.name}, {gpu.memory_gb:.0f} GB"
    return (
        f"data: {pairs:,} decided pairs of {report.prompts:,} prompts, {report.images:,} pictures in its tables"
        + (f"; {report.repeated:,} pairs are there more than once" if report.repeated else "")
        + (f"; {shaped:,} are no squares and keep their shape (data.buckets)" if shaped else ""),
        f"signal: {signal}, trained by {choice.method}; {choice.why}",
        f"recipe: pairs_{recipe}, the nearest one: at most {steps}, {held}" + _of_few(pairs),
        f"card: {card}" + (f"; to fit it: {' '.join(own)}" if own and gpu is not None else ""),
        *(() if asked.judges else (NOBODY,)),
    )
