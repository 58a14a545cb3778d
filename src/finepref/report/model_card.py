"""The model card of a run: the hub's metadata, what it was trained on, results with intervals, limits."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL.Image import Resampling

from finepref.core.errors import InputError
from finepref.core.images import open_rgb_file
from finepref.core.progress import say
from finepref.formats.comparison import COMPARISON, Comparison, read_comparison
from finepref.formats.heldout import HeldOutMetrics, looks_of, read_agreement
from finepref.formats.manifest import LINES, ImageRow, read_manifest
from finepref.formats.run import RunRecord, read_run
from finepref.report.kit import render
from finepref.train.diagnose import RunFinding, diagnose

GRID = 6  # rows of the picture
SIDE, GAP = 192, 12  # pixels of a picture in it, and between two
BEST = Resampling.LANCZOS
BASES: Mapping[str, str] = {
    "lab": "apache-2.0",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
}
"""Licences of bases, as their own cards say."""
LICENCES = frozenset({
    *("apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0"),
    *("bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "c-uda"),
    *("bsd-3-clause-clear", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
    *("cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0"),
    *("cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0"),
    *("cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0"),
    *("eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc"),
    *("lppl-1.3c", "ms-pl", "apple-ascl", "mpl-2.0", "odc-by", "odbl", "openrail++", "osl-3.0", "postgresql"),
    *("ofl-1.1", "ncsa", "unlicense", "zlib", "pddl", "lgpl-lr", "deepfloyd-if-license", "unknown", "other"),
})  # fmt: skip
"""The identifiers of licences that the hub knows (huggingface.co/docs/hub/repositories-licenses)."""
SHOWN = (
    *(("train", "learning_rate"), ("train", "max_steps"), ("train", "pairs_per_step"), ("train", "optimizer")),
    *(("train", "lr_scheduler"), ("train", "mixed_precision"), ("data", "resolution"), ("objective", "beta")),
)
PICKAPIC = (
    "The votes are Pick-a-Pic's: people of one web page, who typed the prompts themselves and saw two pictures of a "
    "few Stable Diffusion models. They are no sample of anybody else, and many prompts ask for portraits and fantasy."
)


def check_licence(name: str | None, base: str) -> str:
    """The licence of a card: the named one, else that of a known base.

    Raises:
        InputError: none is named for a base whose licence is not known here, or one that the hub does not know.
    """
    found = BASES.get(base) if name is None else name
    if found is None:
        raise InputError(f"the licence of {base} is not known here", where="license", remedy="name it with --license")
    if base in BASES and found != BASES[base]:
        say(f"licence {found}, though the card of {base} says {BASES[base]}")
    if found not in LICENCES:
        close = difflib.get_close_matches(found.lower(), sorted(LICENCES), n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "see huggingface.co/docs/hub/repositories-licenses"
        raise InputError(f"the hub knows no licence {found!r}", where="license", remedy=remedy)
    return found


def write_card(
    run: Path, out: Path, *,
    title: str, licence: str, code: str, also: Sequence[str], config: Mapping[str, Any], evaluation: Path | None,
    model: str,
) -> None:  # fmt: skip
    """Write README.md, and samples.png where pictures of the base and of the model are there.

    Args:
        title: of the page. code: python that loads the model. also: how other tools load it. config: of the run, as
            plain data. evaluation: folder with pictures of it and of others, their scores and comparison. model: its
            name there.
    """
    from huggingface_hub import ModelCardData

    record, looks = read_run(run), looks_of(run)
    compared = _compared(evaluation)
    picture = None if evaluation is None else _grid(evaluation, out / "samples.png", model, compared)
    held = _kept(looks, record)
    local = Path(record.base).exists()
    about = ModelCardData(
        base_model=None if local or record.base == "lab" else record.base,
        library_name="diffusers",
        license=licence,
        pipeline_tag="text-to-image",
        tags=["finepref", "text-to-image", "preference-optimisation", *(["lora"] if config.get("lora") else [])],
    )
    text = render(
        "model_card.md.j2", title=title, base=record.base, run=record, code=code, also=also,
        pairs=f"{record.signals.pairs or record.signals.images or 0:,} preferences",
        picture=picture, rows=_rows(record, config), compared=_lines(compared, model), judged=_judged(compared),
        held=held, share=None if held is None else _percent(**asdict(held.accuracy)),
        agreement=_agreement(run) if looks else None,
        limits=_limits(config, record, diagnose(run, compared, model=model)), licence=_licence(licence, record.base),
    )  # fmt: skip
    (out / "README.md").write_text(f"---\n{about.to_yaml()}\n---\n\n{text}", encoding="utf-8")


def _rows(record: RunRecord, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    seconds = record.device_seconds
    steps = f"{record.steps}" + ("" if record.kept is None else f", of which step {record.kept} was kept")
    found = [
        ("base", record.base), ("steps", steps), ("draws of pairs", f"{record.pairs:,}"),
        ("trained", "a LoRA of rank " + str(config["lora"]["rank"]) if config.get("lora") else "all weights"),
    ]  # fmt: skip
    for section, key in SHOWN:
        value = config.get(section, {}).get(key)
        found += [] if value is None else [(key.replace("_", " "), str(value))]
    found += [("seed", str(record.seed)), ("device", record.device)]
    found.append(("device time", "not measured" if seconds is None else f"{seconds / 3600:.2f} hours"))
    return found


def _compared(evaluation: Path | None) -> Comparison | None:
    there = evaluation is not None and (evaluation / COMPARISON).is_file()
    return read_comparison(evaluation) if there and evaluation is not None else None


def _lines(compared: Comparison | None, model: str) -> list[tuple[str, ...]]:
    if compared is None:
        return []
    return [
        (
            row.metric + (" (learned from)" if compared.trained(row) else ""),
            _percent(row.win_rate, row.win_low, row.win_high),
            f"{row.mean_difference:+.3g}{_limits_of(row.difference_low, row.difference_high)}",
            str(row.n),
        )
        for row in compared.pairs_of(model=model, against=compared.baseline)
    ]


def _judged(compared: Comparison | None) -> str:
    return "" if compared is None else f"judged by {', '.join(compared.metrics)}"


def _percent(value: float, low: float | None, high: float | None) -> str:
    known = low is not None and high is not None and not math.isnan(low + high)
    limits = f" [{100 * low:.0f}, {100 * high:.0f}]" if known else ""  # type: ignore[operator]
    return f"{100 * value:.0f} %{limits}"


def _limits_of(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:+.3g}, {high:+.3g}]"


def _kept(looks: Sequence[HeldOutMetrics], record: RunRecord) -> HeldOutMetrics | None:
    step = record.steps if record.kept is None else record.kept
    return next((line for line in looks if line.step == step), None)


def _agreement(run: Path) -> str | None:
    found = read_agreement(run)
    return f"{100 * found.share:.0f} %" if found is not None and found.pairs else None


def _limits(config: Mapping[str, Any], record: RunRecord, findings: Sequence[RunFinding]) -> list[str]:
    found = ["It likes what the people liked whose votes it learned from, and nothing tells what others like."]
    names = " ".join(map(str, (*config.get("data", {}).get("paths", ()), config.get("data", {}).get("format"))))
    if re.search("pick[-_ ]?a[-_ ]?pic", names.lower()):
        found.append(PICKAPIC)
    found += [each.text + "." for each in findings if not each.sound]
    if record.signals.rewards:
        found.append(
            f"A model that learned from {', '.join(record.signals.rewards)} scores high there for that reason."
        )
    return [*found, "Whatever the base does wrong or must not be used for holds for it too."]


def _licence(name: str, base: str) -> str:
    return f"{name}, that of the base {base}." if BASES.get(base) == name else f"{name}."


def _grid(evaluation: Path, out: Path, model: str, compared: Comparison | None) -> str | None:
    """A picture of some prompts, the base on the left; None where not both models have pictures."""
    names = ("before" if compared is None else compared.baseline, model)
    if not (evaluation / LINES).is_file():
        return None
    rows: dict[tuple[str, int, int], dict[str, ImageRow]] = {}
    for row in read_manifest(evaluation).rows:
        rows.setdefault((row.prompt_set, row.prompt_index, row.seed), {})[row.model] = row
    both = [each for each in rows.values() if {*names} <= {*each}]
    chosen = [both[int(place)] for place in np.unique(np.linspace(0, len(both) - 1, min(GRID, len(both))).astype(int))]
    if not chosen:
        return None
    pictures = [[open_rgb_file(evaluation / each[name].path) for name in names] for each in chosen]
    sheet = Image.new("RGB", (2 * SIDE + GAP, len(pictures) * (SIDE + GAP) - GAP), "white")
    for number, pair in enumerate(pictures):
        for place, picture in enumerate(pair):
            fitted = ImageOps.contain(picture, (SIDE, SIDE), Resampling.NEAREST if picture.width < SIDE else BEST)
            sheet.paste(fitted, (place * (SIDE + GAP), number * (SIDE + GAP)))
    sheet.save(out)
    return out.name
