"""`finepref rounds`: a model that learns from votes on its own pictures, round after round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finepref.cli.config import Overrides
from finepref.cli.ending import beside, ends


def command(
    base: Annotated[str, typer.Option(help="The model to improve: a folder, a .safetensors file, a hub name, or lab.")],
    out: Annotated[Path, typer.Option(help="Folder of all rounds; a second call goes on in it.")],
    prompts: Annotated[str, typer.Option(help="Prompts that pictures are made of and voted on, as in `generate`.")],
    held_out: Annotated[str, typer.Option(help="Prompts that the rounds are judged on; others than --prompts.")],
    judge: Annotated[
        list[str], typer.Option(help="Scorer that judges and is not learned from; the first one decides.")
    ],
    overrides: Overrides = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds at most.")] = 5,
    sets: Annotated[int, typer.Option(min=1, help="Pairs that are voted on in a round.")] = 300,
    by: Annotated[
        str, typer.Option(help="Who votes: people, lab (simulated), a scorer, or pair-judge@FILE.yaml.")
    ] = "people",
    people: Annotated[int, typer.Option(min=1, help="With --by lab: how many.")] = 12,
    images: Annotated[int, typer.Option(min=1, help="Pictures of a prompt that each model makes.")] = 1,
    also: Annotated[
        list[str] | None, typer.Option(help="NAME=MODEL whose pictures are voted on too, repeatable.")
    ] = None,
    scorer: Annotated[list[str] | None, typer.Option(help="A reward to learn from beside the votes.")] = None,
    method: Annotated[str, typer.Option(help="auto, or a row of `finepref methods`.")] = "auto",
    signal: Annotated[list[str] | None, typer.Option(help="Kind of signal, repeatable.")] = None,
    reference: Annotated[str, typer.Option(help="What a round is compared with: last (its start), or base.")] = "last",
    card: Annotated[str | None, typer.Option(help="RTX4090, T4, 24GB, ..., or cpu; by default what is here.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps of all pictures.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance of all pictures.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first prompts of each set.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of pictures, sets, simulated people and training.")] = 0,
) -> None:
    """Learn from votes on own pictures, round after round.

    Pictures, votes, ratings, signals, training, judging; until there is no gain.
    """
    from finepref.cli.answerers import check_by
    from finepref.core.outfolders import own_folder
    from finepref.formats.folders import LOOP
    from finepref.rounds.closed_loop import PEOPLE, RoundsRequest, Waiting, model_of, play

    if by != PEOPLE:
        check_by(by)

    sampling = [word for name, value in (("--steps", steps), ("--guidance", guidance)) if value is not None
                for word in (name, f"{value:g}")]  # fmt: skip
    asked = RoundsRequest(
        base=base, out=out, prompts=prompts, held_out=held_out, rounds=rounds, sets=sets, by=by, people=people,
        images=images, judges=tuple(judge), also=tuple(also or ()), scorers=tuple(scorer or ()),
        sampling=tuple(sampling), card=card, method=method, signal=tuple(signal or ()),
        overrides=tuple(overrides or ()), reference=reference, limit=limit, seed=seed,
    )  # fmt: skip
    with own_folder(out, LOOP):
        found = play(asked)
    if isinstance(found, Waiting):
        ends(found.what, ("collect", found.study))
        return
    print(f"ended: {found.ended}")
    result = model_of(asked, found.best)
    following = [("publish", result, "--to", beside(Path(result), "published"))] if found.best else []
    said = "" if found.best else " (the base: no round was better)"
    ends(f"result: {result}{said}", ("report", out, "--out", out / "report.html"), *following)
