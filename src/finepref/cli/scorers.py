"""`finepref scorers`: list, convert, verify, and K-Sort Eval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finepref.cli.ending import ends
from finepref.core.errors import CheckFailed, InputError, nearest

if TYPE_CHECKING:
    from PIL.Image import Image

    from finepref.evaluate.scorers.ksort_data import Instance

command = typer.Typer(invoke_without_command=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command.callback()
def every_scorer(context: typer.Context, as_json: AsJson = False) -> None:
    """Scorers of images; without a command, their list."""
    if context.invoked_subcommand is None:
        list_scorers(as_json)
    elif as_json:
        remedy = f"write it after {context.invoked_subcommand}, where that knows it"
        raise InputError("it is of the list", where="--json", remedy=remedy)


@command.command("list")
def list_scorers(as_json: AsJson = False) -> None:
    """Print every scorer's name and what it is."""
    from finepref.core.terminal import table_lines
    from finepref.evaluate.scorers.scorer_rows import SCORERS

    if as_json:
        import json

        fields = ("name", "about", "preprocess", "family")
        print(json.dumps([{field: getattr(kind, field) for field in fields} for kind in SCORERS.values()], indent=2))
        return
    rows = [(kind.name, kind.preprocess, kind.about) for kind in SCORERS.values()]
    print("\n".join(table_lines(("scorer", "pictures", "what it is"), rows, bare=True)))


@command.command("convert")
def convert_file(
    file: Annotated[Path, typer.Argument(help="Official weights: .pt, .pth, .bin, .safetensors, or a folder.")],
    scorer: Annotated[str | None, typer.Option(help="Scorer; needed where hash and file name do not tell it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: ./NAME of the scorer.")] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="Tokenizer files to copy in (for use without hub).")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the folder.")] = False,
) -> None:
    """Convert official weights to a safetensors folder.

    With provenance; use it as NAME@FOLDER.
    """
    from finepref.evaluate.scorers.conversion import convert

    done = convert(file, out=out, scorer=scorer, vocabulary=vocabulary, overwrite=overwrite)
    dropped = f", left out {len(done.dropped)}" if done.dropped else ""
    print(f"{done.scorer}: {done.tensors} tensors, {done.parameters:,} parameters{dropped} -> {done.folder}")
    spec = f"{done.scorer}@{done.folder}"
    ends(f"use it as {spec}", ("scorers", "verify", spec))


@command.command("verify")
def verify_scorer(
    spec: Annotated[str, typer.Argument(help="NAME, NAME:PREPROCESS, NAME@PATH or NAME:PREPROCESS@PATH.")],
    expected: Annotated[Path | None, typer.Option(help="csv image,prompt,value of the original package.")] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest difference from --expected.")] = 2e-6,
    images: Annotated[Path | None, typer.Option(help="HPSv2's published SDXL Base 0.9 images (hpsv2.1).")] = None,
    prompts: Annotated[Path | None, typer.Option(help="HPSv2's benchmark prompts (hpsv2.1).")] = None,
    device: Annotated[str | None, typer.Option(help="torch device; default: the accelerator, else cpu.")] = None,
) -> None:
    """Compare a scorer with published or reference numbers.

    A scorer that has its real weights; exit 1 where they differ.
    """
    from finepref.evaluate.scorers.verify import verify

    given = {"expected": expected, "images": images, "prompts": prompts}
    checks = verify(spec, device=device, tolerance=tolerance, **given)
    for check in checks:
        mark = "" if check.tolerance != check.tolerance else ("ok  " if check.passed else "FAIL")
        print(f"{mark:<5}{check.what:<48} found {check.found:.6f}  wanted {check.wanted:.6f} +- {check.tolerance:g}")
    failed = sum(not check.passed for check in checks)
    if failed:
        raise CheckFailed(f"{failed} of {len(checks)} numbers differ", where=spec)


@command.command("ksort")
def ksort_eval(
    data: Annotated[Path, typer.Argument(help="Folder of the data set ksort/K-Sort-Eval (Image/, Image_meta/).")],
    write_prompts: Annotated[Path | None, typer.Option(help="Only write the prompts, for finepref generate.")] = None,
    images: Annotated[Path | None, typer.Option(help="Evaluation folder with images for those prompts.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of that folder; may be left out where it has one.")] = None,
    judge: Annotated[Path | None, typer.Option(help="YAML file of the judge's endpoint.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the result and the judge's transcripts.")] = Path("ksort"),
    limit: Annotated[int, typer.Option(min=1, help="Largest number of comparisons.")] = 150,
    seed: Annotated[int, typer.Option(help="Seed of the order in which images are shown.")] = 0,
) -> None:
    """Place a model on the K-Sort leaderboard with a judge.

    K-Sort Eval. Run again to resume.
    """
    import json

    from finepref.core.outfolders import own_folder
    from finepref.core.ownership import own_beside, write_beside
    from finepref.core.provenance import provenance
    from finepref.evaluate.scorers.judge import Endpoint, EndpointSettings
    from finepref.evaluate.scorers.judge_scorer import read_settings
    from finepref.evaluate.scorers.ksort import KSortSettings, run
    from finepref.evaluate.scorers.ksort_data import load_benchmark
    from finepref.formats.folders import KSORT

    benchmark = load_benchmark(data)
    if write_prompts is not None:
        rows = {instance.prompt: {"prompt": instance.prompt} for instance in benchmark.instances}
        with own_beside(write_prompts, kind="prompts", inputs=[data]):
            text = json.dumps([*rows.values()], indent=2, ensure_ascii=False) + "\n"
            write_beside(write_prompts, text, kind="prompts", provenance=provenance())
        print(write_prompts)
        return
    if images is None or judge is None:
        raise InputError("--images and --judge are needed", where="ksort", remedy="or --write-prompts to begin with")
    with own_folder(out, KSORT, inputs=[data, images, judge]):
        result = run(
            benchmark,
            _images(images, model),
            Endpoint(read_settings(judge, EndpointSettings), out / "transcripts"),
            out=out,
            settings=KSortSettings(limit=limit, seed=seed),
        )
    print(
        f"score {result['score']:.2f}  (mu {result['mu']:.3f}, sigma {result['sigma']:.3f}, "
        f"{result['comparisons']} comparisons, {result['unanswered']} unanswered) -> {out / 'ksort.json'}"
    )


def _images(folder: Path, model: str | None) -> Callable[[Instance], Image]:
    """Instance -> the image of its prompt in an evaluation folder (the lowest seed)."""
    from finepref.core.images import open_rgb_file
    from finepref.formats.manifest import read_rows

    rows = read_rows(folder)
    models = sorted({row.model for row in rows})
    if model is None and len(models) > 1:
        raise InputError("it has several models", where=folder, remedy="add --model " + "|".join(models))
    chosen = model or models[0]
    if chosen not in models:
        raise InputError(f"no images of {chosen!r}", where=folder, remedy=nearest(chosen, models))
    ordered = sorted((row for row in rows if row.model == chosen), key=lambda row: -row.seed)
    paths = {row.prompt: folder / row.path for row in ordered}

    def image_of(instance: Instance) -> Image:
        if instance.prompt not in paths:
            raise InputError(f"no image of {chosen!r} for the prompt of {instance.name}", where=folder)
        return open_rgb_file(paths[instance.prompt], root=folder)

    return image_of
