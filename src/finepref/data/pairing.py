"""Preference sets made from scores alone: images of one prompt, compared by a scorer. No torch."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from finepref.core.errors import InputError, nearest
from finepref.core.files import parquet_meta, read_parquet, write_parquet
from finepref.core.progress import say
from finepref.core.provenance import provenance, sha256_bytes
from finepref.data.convert import write_pairs

REWARDS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("side", pa.int8()),
        ("scorer", pa.string()),
        ("fingerprint", pa.string()),
        ("value", pa.float64()),
        ("reason", pa.string()),
        ("image_sha256", pa.string()),
        ("prompt_sha256", pa.string()),
    ]
)


def pair_from_scores(
    folder: str | Path,
    out: str | Path,
    *,
    scorer: str,
    choose: str = "all",
    min_gap: float = 0.0,
    overwrite: bool = False,
) -> dict[str, int]:
    """A preference set from an evaluation folder: images of one prompt compared by a scorer, no human needed.

    Writes `pairs.parquet` (house format) and `rewards.parquet` (the scores by pair and side) into `out`.

    Args:
        folder: with manifest.jsonl and scores.parquet (`finepref generate`, `finepref score`).
        scorer: whose values decide; its own direction (higher_is_better in the file's footer) is obeyed.
        choose: `all` pairs of a prompt's images, or `best_worst` alone.
        min_gap: pairs whose values differ by less are left out; equal values are ties.

    Returns:
        counts: pairs, prompts, skipped (images without a score).

    Raises:
        InputError: no such scorer in the file, or fewer than two scored images for every prompt.
    """
    folder, out = Path(folder), Path(out)
    if choose not in ("all", "best_worst"):
        raise InputError(f"unknown choice {choose!r}", where="--choose", remedy=nearest(choose, ("all", "best_worst")))
    if (out / "pairs.parquet").exists() and not overwrite:
        raise InputError("pairs.parquet is there already", where=out, remedy="use another folder, or --overwrite")
    groups, counts = _scored_images(folder, scorer)
    records: list[dict[str, Any]] = []
    rewards: list[dict[str, Any]] = []
    for prompt, images in groups.items():
        for a, b in _pairs_of(images, choose):
            if abs(a["value"] - b["value"]) < min_gap:
                continue
            label = 0.5 + 0.5 * ((a["better"] > b["better"]) - (a["better"] < b["better"]))
            pair_id = sha256_bytes("\x1f".join([prompt, a["image_sha256"], b["image_sha256"]]).encode())[:32]
            records.append({"pair_id": pair_id, "prompt": prompt, "label": label, "a": a, "b": b})
            rewards += [_reward(pair_id, side, each, scorer, prompt) for side, each in enumerate((a, b))]
    if not records:
        raise InputError("no prompt has two scored images that differ", where=folder, remedy="generate more seeds")
    write_pairs((_record(folder, each) for each in records), out / "pairs.parquet")
    meta = {"scorers": counts.pop("scorers"), **provenance(inputs=[folder / "scores.parquet"])}
    write_parquet(out / "rewards.parquet", pa.Table.from_pylist(rewards, REWARDS), meta)
    return {"pairs": len(records), "prompts": len({each["prompt"] for each in records}), **counts}


def _record(folder: Path, each: Mapping[str, Any]) -> dict[str, Any]:
    a, b = each["a"], each["b"]
    return {
        "pair_id": each["pair_id"],
        "prompt": each["prompt"],
        "image_0": (folder / a["path"]).read_bytes(),
        "image_1": (folder / b["path"]).read_bytes(),
        "label": each["label"],
        "model_0": a["model"],
        "model_1": b["model"],
        "voter": None,
    }


def _reward(pair_id: str, side: int, each: Mapping[str, Any], scorer: str, prompt: str) -> dict[str, Any]:
    return {
        "pair_id": pair_id,
        "side": side,
        "scorer": scorer,
        "fingerprint": each["fingerprint"],
        "value": each["value"],
        "reason": "",
        "image_sha256": each["image_sha256"],
        "prompt_sha256": sha256_bytes(prompt.encode()),
    }


def _pairs_of(images: list[dict[str, Any]], choose: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if choose == "all":
        return [(a, b) for a, b in itertools.combinations(images, 2) if a["image_sha256"] != b["image_sha256"]]
    ranked = sorted(images, key=lambda each: each["better"])
    return [(ranked[-1], ranked[0])] if len(images) > 1 and ranked[0]["better"] < ranked[-1]["better"] else []


def _scored_images(folder: Path, scorer: str) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Distinct images of each prompt with their value; `better` is the value turned so that more is better."""
    table = read_parquet(folder / "scores.parquet", ["scorer", "fingerprint", "image_sha256", "prompt_sha256", "value"])
    about = parquet_meta(folder / "scores.parquet").get("scorers", {})
    if scorer not in about:
        raise InputError(f"no scores of {scorer!r}", where=folder / "scores.parquet", remedy=nearest(scorer, about))
    print_, sign = about[scorer]["fingerprint"], 1.0 if about[scorer]["higher_is_better"] else -1.0
    values = {
        (row["image_sha256"], row["prompt_sha256"]): row["value"]
        for row in table.to_pylist()
        if row["scorer"] == scorer and row["fingerprint"] == print_ and row["value"] is not None
    }
    groups: dict[str, list[dict[str, Any]]] = {}
    seen: set[tuple[str, str]] = set()
    skipped = 0
    for row in _manifest(folder):
        key = (row["image_sha256"], row["prompt_sha256"])
        value = values.get(key, math.nan)
        if math.isnan(value):
            skipped += 1
        elif key not in seen:
            seen.add(key)
            held = {name: row[name] for name in ("path", "model", "image_sha256")}
            groups.setdefault(row["prompt"], []).append(
                {**held, "value": value, "better": sign * value, "fingerprint": print_}
            )
    if skipped:
        say(f"{skipped} images have no score of {scorer} and are left out")
    return groups, {"skipped": skipped, "scorers": {scorer: about[scorer]}}


def _manifest(folder: Path) -> list[dict[str, Any]]:
    path = folder / "manifest.jsonl"
    if not path.is_file():
        raise InputError("no manifest of images", where=path, remedy="run `finepref generate` into this folder first")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
