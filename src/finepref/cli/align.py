"""`finepref align`: from pairs to a better model and a report, in one command."""

from __future__ import annotations

import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from finepref.cli.asked import with_reading, words_of
from finepref.cli.config import Overrides
from finepref.cli.ending import beside, ends
from finepref.formats.reading import AS_IT_IS, Reading


@with_reading()
def command(
    data: Annotated[list[str], typer.Option(help="Your pairs: a file or folder of preferences, repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder of everything that is made; a second call goes on in it.")],
    base: Annotated[str, typer.Option(help="The model to improve: a folder, a .safetensors file, a hub name, or lab.")],
    overrides: Overrides = None,
    card: Annotated[
        str | None, typer.Option(help="RTX4090, T4, 24GB, ..., or cpu; by default what this machine has.")
    ] = None,
    method: Annotated[str, typer.Option(help="auto, or a row of `finepref methods`.")] = "auto",
    signal: Annotated[
        list[str] | None,
        typer.Option(help="Kind of signal, repeatable; by default what the data allow, or the method's."),
    ] = None,
    scorer: Annotated[
        list[str] | None, typer.Option(help="A reward to learn from beside the votes, repeatable.")
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="A scorer that judges pictures before and after, repeatable.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="Prompts to judge on; by default those of the held-out pairs.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of training and pictures.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Go from pairs to a better model and a report.

    Looks at the data, chooses the signal and the recipe, trains, and says what came of it.
    """
    from finepref.align.alignment import plan_alignment
    from finepref.align.carrying import begun, run_alignment
    from finepref.align.outcome import outcome
    from finepref.core.outfolders import check_folder, own_folder
    from finepref.core.progress import say
    from finepref.formats.folders import ALIGNMENT
    from finepref.formats.run import read_run
    from finepref.formats.sources import named_inputs, stamp_of
    from finepref.plan.cards import gpus_of
    from finepref.plan.plan import plan_run
    from finepref.plan.printed import describe

    given: dict[str, Any] = {
        "reading": reading, "words": words_of(reading), "card": card, "method": method, "signal": signal or (),
        "scorers": scorer, "judges": judge or (), "prompts": prompts, "overrides": overrides or (),
        "seed": seed,
    }  # fmt: skip
    asked = {name: str(value) for name, value in given.items() if name not in ("reading", "judges")} | {"base": base}
    if dry_run:
        check_folder(out, ALIGNMENT, inputs=named_inputs(data))
        begun(out, asked, stamp_of(data, reading))
        with TemporaryDirectory() as place:
            planned = plan_alignment(base, data, out, place=Path(place), **given)
        print("\n".join([*planned.why, *(f"finepref {shlex.join(each)}" for each in planned.before + planned.after)]))
        plan = planned.plan or plan_run(planned.config, gpus=gpus_of(["cpu"]), processes=1)
        scored = any(not name.startswith("lab-") for name in (*planned.asked.judges, *planned.choice.scorers))
        print(describe(plan, prices={}, scored=scored))
        say("nothing was done; without --dry-run the layer that they read is written, and they run one after the other")
        return
    with own_folder(out, ALIGNMENT, inputs=named_inputs(data)):
        record = begun(out, asked, stamp_of(data, reading))
        planned = plan_alignment(base, data, out, **given)
        for why in planned.why:
            say(why)
        run_alignment(planned, record)
    run = planned.asked.run
    changed = read_run(run).kept != 0
    ends("\n".join(outcome(planned, base)), *([("publish", run, "--to", beside(run, "published"))] if changed else []))
