"""`finepref align`: from pairs to a better model and a report, in one command."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from finepref.cli.asked import with_reading
from finepref.cli.config import Overrides
from finepref.formats.comparison import Comparison
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
    """Look at the data, choose the signal and the recipe, train, and say what came of it."""
    from finepref.align.alignment import plan_alignment, run_alignment
    from finepref.align.stages import loading
    from finepref.core.outfolders import check_folder, own_folder
    from finepref.core.progress import say
    from finepref.formats.comparison import COMPARISON, read_comparison
    from finepref.formats.folders import ALIGNMENT
    from finepref.formats.sources import named_inputs
    from finepref.plan.printed import describe
    from finepref.train.diagnose import diagnose

    given: dict[str, Any] = {
        "reading": reading, "words": _words(reading), "card": card, "method": method, "signal": signal or (),
        "scorers": scorer, "judges": judge or (), "prompts": prompts, "overrides": overrides or (),
        "seed": seed,
    }  # fmt: skip
    if dry_run:
        check_folder(out, ALIGNMENT, inputs=named_inputs(data))
        with TemporaryDirectory() as place:
            planned = plan_alignment(base, data, out, place=Path(place), **given)
        print("\n".join([*planned.why, *(f"finepref {shlex.join(each)}" for each in planned.before + planned.after)]))
        if planned.plan is not None:
            print(describe(planned.plan, prices={}))
        return
    with own_folder(out, ALIGNMENT, inputs=named_inputs(data)):
        planned = plan_alignment(base, data, out, **given)
        for why in planned.why:
            say(why)
        run_alignment(planned)
    run = out / "run"
    compared = read_comparison(out / "eval") if (out / "eval" / COMPARISON).is_file() else None
    print("\n".join([*_held_out(run), *map(str, diagnose(run, compared)), *_judged(compared)]))
    print("\n".join(loading(run, lora=planned.config.lora is not None, base=base)))
    print(f"report: {(out / 'report.html').resolve().as_uri()}")


def _words(reading: Reading) -> list[str]:
    """How the data are read, as the words of a command."""
    found = [] if reading.format == "auto" else ["--format", reading.format]
    found += [word for key, value in reading.columns.items() for word in ("--column", f"{key}={value}")]
    found += [word for key, value in reading.outcomes.items() for word in ("--outcome", f"{key}={value}")]
    for name in ("encoding", "split", "question", "images"):
        value = getattr(reading, name)
        found += [] if value is None else [f"--{name}", str(value)]
    return found


def _judged(compared: Comparison | None) -> list[str]:
    """What the scorers say of the pictures after against those before."""
    if compared is None:
        return ["no scorer judged the pictures: look at them in the report, where you can vote blind"]
    found = []
    for row in compared.pairs_of(model="after"):
        limits = "" if row.win_low is None or row.win_high is None else f" [{row.win_low:.0%}, {row.win_high:.0%}]"
        trained = " (which it learned from)" if compared.trained(row) else ""
        found.append(f"{row.metric}{trained}: the picture after is better in {row.win_rate:.0%}{limits} of {row.n}")
    return found


def _held_out(run: Path) -> list[str]:
    """What held-out pairs say of the run."""
    from finepref.formats.heldout import look_of, read_agreement, read_heldout
    from finepref.formats.run import read_run

    record, lines = read_run(run), read_heldout(run)
    if not lines:
        return []
    kept = look_of(lines, record.kept)
    where = "the start" if kept.step == 0 else f"step {kept.step} of {record.steps}"
    rate = kept.accuracy
    limits = "" if math.isnan(rate.low) else f" [{rate.low:.0%}, {rate.high:.0%}]"
    how = "against what people did" if record.swapped else "as people did"
    found = [f"kept: {where}", f"held-out pairs that it ranks {how}: {rate.value:.0%}{limits} of {kept.pairs}"]
    found[1] += " (the start: 50%)"
    agreement = read_agreement(run)
    if agreement is not None and agreement.pairs:
        found.append(f"two people agree on {agreement.share:.0%} of {agreement.pairs} pairs that several judged")
    return found
