"""`finepref plan`: what a run will need, before it starts."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from finepref.cli.config import Layers, Overrides
from finepref.core.terminal import folded_text


def command(
    config: Layers,
    overrides: Overrides = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(
            "--gpu", "--card", help="To plan for, repeatable: H200, RTX4090, T4, ..., memory, as 24GB, or cpu."
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many GPUs share the run.")] = 1,
    price: Annotated[
        list[str] | None, typer.Option(help="NAME=PRICE of one GPU hour, repeatable; adds what the run costs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON.")] = False,
) -> None:
    """Work, memory, disk and time of a run, and how it fits.

    Counts parameters too. Reads configs, no weights.
    """
    from finepref.core.errors import ConfigError
    from finepref.plan.cards import USUAL, gpus_of
    from finepref.plan.plan import plan_run
    from finepref.plan.printed import describe
    from finepref.train.config import load_config

    chosen = gpus_of(gpu or USUAL)
    prices: dict[str, float] = {}
    for word in price or ():
        name, _, value = word.partition("=")
        try:
            rate = float(value)
        except ValueError:
            raise ConfigError(f"{word!r} is not NAME=PRICE", where="--price", remedy="for example H200=3.5") from None
        prices[gpus_of([name])[0].name] = rate
    plan = plan_run(load_config(config, overrides or ()), gpus=chosen, processes=processes)
    if as_json:
        print(json.dumps(dataclasses.asdict(plan)))
    else:
        print(folded_text(describe(plan, prices=prices), indent="    "))
