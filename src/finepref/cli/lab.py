"""`finepref lab`: the embedded world - its votes, its model, its study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finepref.cli.ending import beside, ends

command = typer.Typer(help="The embedded world, whose true quality is known.", no_args_is_help=True)


@command.command("votes")
def votes(
    out: Annotated[Path, typer.Option(help="The parquet file, in the Pick-a-Pic v2 schema.")] = Path("votes.parquet"),
    count: Annotated[int, typer.Option(min=1, help="Number of votes.")] = 4200,
    prompts: Annotated[int | None, typer.Option(min=1, help="Only the first training prompts [all].")] = None,
    seed: Annotated[int, typer.Option(help="Decides images, pairs, voters and their noise.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make the votes again.")] = False,
) -> None:
    """Make preference data.

    Of image makers of different strength and noisy voters, with ties.
    """
    from finepref.core.errors import InputError
    from finepref.core.files import parquet_meta
    from finepref.core.ownership import has_footer, own_file
    from finepref.core.progress import say
    from finepref.formats.pickapic import SCHEMA
    from finepref.lab.ballots import make_votes
    from finepref.lab.world import prompts as prompt_set

    with own_file(out, has_footer(*SCHEMA.names), what="votes of the lab"):
        chosen = prompt_set("train")[:prompts]
        held = parquet_meta(out) if out.is_file() and not overwrite else {}
        wanted = {"seed": seed, "votes": count, "prompts": len(chosen)}
        other = [
            f"{name} {held[name]}, now {value}" for name, value in wanted.items() if held.get(name, value) != value
        ]
        if other:
            what = f"other votes are there already ({', '.join(other)})"
            raise InputError(what, where=out, remedy="name another file, or --overwrite")
        if held:
            say(f"{out} is there already (--overwrite makes it again)")
        else:
            make_votes(out, seed=seed, votes=count, prompts=chosen)
    ends(out, ("data", "inspect", out), ("arena", out))


@command.command("voters")
def voters(
    url: Annotated[str, typer.Option(help="The owner's link of a study; or a personal link, for one person.")],
    count: Annotated[int, typer.Option(min=0, help="Honest people.")] = 1,
    careless: Annotated[int, typer.Option(min=0, help="People who deal half of their answers.")] = 0,
    one_sided: Annotated[int, typer.Option(min=0, help="People who take the first picture in four of five sets.")] = 0,
    random: Annotated[int, typer.Option(min=0, help="People who deal all of their answers.")] = 0,
    votes: Annotated[int, typer.Option(min=1, help="Sets that each answers at most.")] = 100,
    pace: Annotated[float, typer.Option(min=0, help="Seconds between two sets of a person, on average.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides the people, and what they see.")] = 0,
) -> None:
    """Let simulated people vote on a study.

    On the lab's pictures, over HTTP as browsers do.
    """
    from finepref.core.errors import InputError
    from finepref.core.progress import progress
    from finepref.lab.people import CARELESS, HONEST, ONE_SIDED, RANDOM
    from finepref.lab.voting import people, vote

    found = people({HONEST: count, CARELESS: careless, ONE_SIDED: one_sided, RANDOM: random}, seed=seed)
    if not found:
        raise InputError("nobody votes", where="--count", remedy="ask for one person or more")
    with progress([], "votes", total=votes * len(found), unit="set") as bar:
        visits = vote(url, found, votes=votes, seed=seed, pace=pace, told=lambda visit: bar.update())
    print(f"{sum(len(visit.kept) for visit in visits)} sets answered by {len(visits)} people")


@command.command("model")
def model(
    out: Annotated[Path, typer.Option(help="The diffusers folder to write.")] = Path("lab-model"),
    variant: Annotated[str, typer.Option(help="base or early.")] = "base",
) -> None:
    """Write the lab's model as a plain diffusers pipeline folder."""
    from finepref.lab.model import materialise

    written = materialise(out, variant)
    pictures = beside(Path(written), "eval")
    ends(written, ("generate", "--model", f"{variant}={written}", "--prompts", "lab-eval", "--out", pictures))


@command.command("study")
def study(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="The study; the shipped one by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the rows: one JSON file an arm.")] = Path(
        "benchmarks/results/study"
    ),
    work: Annotated[Path, typer.Option(help="Folder of votes, caches and runs; may be removed afterwards.")] = Path(
        "study-work"
    ),
    workers: Annotated[int, typer.Option(min=0, help="Trials side by side, one thread each; 0 = one a core.")] = 0,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Start no trial after so many minutes; go on with the same command.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Run nothing; write the page from the rows that are there.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the rows and start again.")] = False,
) -> None:
    """Train every method at equal cost; compare true quality.

    What is finished is not run again.
    """
    import os

    from finepref.core.errors import CheckFailed, InputError
    from finepref.core.outfolders import check_folder
    from finepref.formats.folders import STUDY, WORK
    from finepref.report.own import check_study
    from finepref.study.design import load_study

    if report is not None:
        from finepref.study.document import write_page
        from finepref.study.ground import lab_fingerprint

        if overwrite or minutes is not None:
            raise InputError("it has no effect with --report", where="--overwrite, --minutes", remedy="leave it out")
        check_study(report)
        named = "" if config is None else config.as_posix()
        write_page(load_study(config), rows=out, page=report, world=lab_fingerprint(), config=named)
        print(report)
        return
    from finepref.study.schedule import run_study

    check_folder(out, STUDY)
    check_folder(work, WORK)
    plan = load_study(config)
    limit = None if minutes is None else 60 * minutes
    workers = workers or os.cpu_count() or 1
    if not run_study(plan, out=out, work=work, workers=workers, limit=limit, overwrite=overwrite):
        raise CheckFailed("not every trial has run", where=out, remedy="go on with the same command")
    print(out)
