"""Whatever happened to a file, reading it gives a result or one sentence in one line; never another exception."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from damage import damages, failure, strange_json, strange_tables
from evaluation_folder import make_folder
from finepref.arena.boards import load_board
from finepref.arena.engines import rate
from finepref.arena.ratings import load_ratings, save_ratings
from finepref.core.errors import InputError
from finepref.core.files import write_json
from finepref.core.provenance import sha256_bytes
from finepref.data.latents import LatentCache
from finepref.data.shards import write_shard
from finepref.evaluate.published_counts import read_counts
from finepref.evaluate.scorers.judge_scorer import JudgeSettings, read_settings
from finepref.evaluate.scorers.ksort_data import load_benchmark
from finepref.evaluate.scorers.tokenizer import bert_text, clip_text
from finepref.evaluate.scorers.weights import read_state, weights_id
from finepref.formats import cache as stored
from finepref.formats import cachetables, comparison, frozenfolder, metrics, rewards, scores, signals
from finepref.formats.manifest import read_manifest
from finepref.formats.prompts import read_prompts
from finepref.formats.run import RunIdentity, read_run, write_run
from finepref.formats.votes import Votes
from finepref.models import lora
from finepref.models.source import locate, part_class
from finepref.report.inputs import read_samples
from finepref.train.checkpoint import Counters, load_checkpoint, take_checkpoint
from finepref.train.config import load_config
from finepref.train.frozen import ERRORS, open_frozen
from run_record import run_record
from tiny_ksort import write_data
from tiny_scorers import bert_vocabulary, clip_vocabulary

Made = tuple[Path, Callable[[Path], Any]]
"""A file, and what reads it; a reader takes the path of the file."""


def ratings(folder: Path) -> Made:
    votes = Votes.from_columns(left=["a", "b", "c"] * 4, right=["b", "c", "a"] * 4, outcome=["left", "left", "tie"] * 4)
    save_ratings(folder / "ratings.json", rate(votes), provenance={"seed": 1})
    return folder / "ratings.json", lambda path: (
        (held := load_ratings(path)).table(),
        held.rank_interval(),
        load_board(str(path)),
    )


def board(folder: Path) -> Made:
    path = folder / "board.csv"
    path.write_text("rank,model,mu\n1,a,26.5\n2,b,24\n")
    return path, lambda path: load_board(str(path))


def counts(folder: Path) -> Made:
    path = folder / "counts.csv"
    path.write_text("comparison,metric,prompts,n,win_rate\nx vs y,PickScore,parti,500,61.2\nx vs z,HPS,parti,500,50\n")
    return path, read_counts


def run_json(folder: Path) -> Made:
    write_run(folder, run_record())
    return folder / "run.json", lambda path: read_run(path.parent)


def comparison_json(folder: Path) -> Made:
    model = comparison.ModelRow("p", "m", "a", 2, 2, 0, 1.0, 0.5, 1.5, 1.0, 0.1, {"0": 1.0})
    pair = comparison.PairRow("p", "m", "b", "a", 2, 2, 0, 0.1, 0.0, 0.2, 0.5, 0.1, 0.9, 1, 0, 1, 1.0, 1.0)
    made = comparison.Comparison(
        "a", ("a", "b"), ("p",), {"m": comparison.Metric(("f",), True, ("b",))}, 0.95, 100, False,
        (model,), (pair,), (), {"inputs": {}},
    )  # fmt: skip
    comparison.write_comparison(folder / "comparison.json", made)

    def read(path: Path) -> Any:
        found = comparison.read_comparison(path)
        return [found.trained(row) for row in found.pairs], found.in_order

    return folder / "comparison.json", read


def manifest_lines(folder: Path) -> Made:
    make_folder(folder, {"p": ["one", "two"]})
    return folder / "manifest.jsonl", lambda path: read_manifest(path.parent)


def manifest_record(folder: Path) -> Made:
    make_folder(folder, {"p": ["one", "two"]})
    return folder / "manifest.json", lambda path: read_manifest(path.parent)


def scores_table(folder: Path) -> Made:
    make_folder(folder, {"p": ["one", "two"]})
    rows = tuple(scores.Score("a", "p", n, "s", 0, "i", "m", "f", float(n)) for n in range(3))
    scores.write_scores(folder, scores.Scores(rows, {"m": scores.ScoredBy("f")}))
    return folder / "scores.parquet", lambda path: scores.read_scores(path.parent)


def rewards_table(folder: Path) -> Made:
    path = folder / "rewards.parquet"
    rows = [rewards.Reward(pair, side, "m", "f", 0.5, "", "i", "p") for pair in "ab" for side in (0, 1)]
    rewards.write_rewards(path, rows, {"m": scores.ScoredBy("f", device_seconds=1.0)})
    return path, lambda path: (rewards.read_rewards(path, ["a", "b"]), [*rewards.iterate_rewards(path)])


def signals_table(folder: Path) -> Made:
    path = folder / "signals.parquet"
    columns = {"winner": np.array([0, 1]), "weight": np.array([1.0, 0.5])}
    meta = {"kinds": ["arena"], "arena.scorer": "m", "arena.device_seconds": 3.0}
    signals.write_signals(path, signals.from_columns(["a", "b"], columns, meta), provenance={"inputs": {}})

    def read(path: Path) -> Any:
        found = signals.read_signals(path)
        signals.is_of(path, {"inputs": {}, "config_hash": ""})
        return found.kinds, found.rewards, found.device_seconds

    return path, read


def steps(folder: Path) -> Made:
    bucket = metrics.BucketMetrics(4, {"loss": 0.5})
    for step in (1, 2, 3):
        record = metrics.StepMetrics(step=step, means={"loss": 0.5}, pairs=4, by_t=(bucket,), grad_norm=1.0, lr=1e-5)
        metrics.append_metrics(folder, record)

    def read(path: Path) -> Any:
        content = path.read_bytes() if path.is_file() else None
        try:
            found = [step.numbers() for step in metrics.read_metrics(path.parent)]
        finally:
            metrics.cut_after(path.parent, 2)
            if content is not None:
                path.write_bytes(content)
        return found

    return folder / "metrics.jsonl", read


def seconds(folder: Path) -> Made:
    for step in (1, 2, 3):
        metrics.append_line(folder / metrics.TIMING, asdict(metrics.StepTiming(step, 0.5, 0.5 * step)))
    return folder / "timing.jsonl", lambda path: metrics.read_timing(path.parent)


def prompts(suffix: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        path = folder / f"prompts{suffix}"
        rows = [{"prompt": "a cat", "style": "photo"}, {"prompt": "a dog", "style": "anime"}]
        texts = {
            ".json": json.dumps(rows),
            ".jsonl": "".join(json.dumps(row) + "\n" for row in rows),
            ".csv": 'prompt,style\n"a cat, grey",photo\na dog,anime\n',
            ".tsv": "prompt\tstyle\na cat\tphoto\na dog\tanime\n",
            ".txt": "a cat\na dog\n",
        }
        path.write_text(texts[suffix]) if suffix in texts else pq.write_table(pa.Table.from_pylist(rows), path)
        return path, read_prompts

    return make


def latent_cache(name: str) -> Callable[[Path], Made]:
    first, second, prompt = (sha256_bytes(each) for each in (b"first", b"second", b"prompt"))

    def make(folder: Path) -> Made:
        shaping = stored.Shaping(
            fingerprint={"vae": "v"}, resolution=8, crop=stored.CROP, dtype="float16", flips=False, posterior="mode"
        )
        size = {"bucket": "8x8", "original_height": 8, "original_width": 8, "crop_top": 0, "crop_left": 0}
        images = stored.IMAGES.table([{"image_sha256": sha, "flip": False, **size} for sha in (first, second)])
        texts = stored.PROMPTS.table([stored.prompt_row(prompt, 3)])
        tensors = ({"mean": torch.ones(2, 4, 2, 2)}, {"prompt_embeds": torch.ones(1, 3, 2)})
        for kind, index, held in zip(stored.KINDS, (images, texts), tensors, strict=True):
            (folder / kind.name).mkdir(parents=True)
            write_shard(folder / kind.name, "r0-00000", held, index)
            named = index.append_column(stored.SHARD, pa.array(["r0-00000"] * len(index)))
            cachetables.write_items(folder, kind, named)
        row = cachetables.CachedRow("a", prompt, first, second, "8x8", 1.0)
        cachetables.write_pairs(folder, pa.Table.from_pylist([row._asdict()]))
        stored.write_cache(folder, stored.CacheRecord(shaping=shaping, complete=True))

        def read(_: Path) -> Any:
            held = LatentCache(folder)
            held.require(shaping)
            found = [pair for pair in held.pairs.values() if pair.image_0 == first]
            return held.identity(), held.latents([first, second]) if found else None, held.prompts([prompt])

        return folder / name, read

    return make


def frozen(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        frozenfolder.write_frozen(folder / ERRORS.record, frozenfolder.FrozenRecord(identity="x", device_seconds=1.0))
        held = {f"{ERRORS.tensor}_{side}": torch.ones(2) for side in "wl"}
        write_shard(folder, "draws-000000000", held, frozenfolder.draws_table([("a", 0), ("b", 0)]))
        read = lambda _: open_frozen(folder, ERRORS, identity="x", draws=2).read(["a", "b"], [0, 0])  # noqa: E731
        return folder / name.format(record=ERRORS.record), read

    return make


def checkpoint(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        layer = torch.nn.Linear(2, 2)
        named, optimizer = list(layer.named_parameters()), torch.optim.AdamW(layer.parameters())
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        average = {key: value.detach().clone() for key, value in named}
        counters = Counters(step=3, skipped=0, calls={"policy": 3})
        held = {"named": named, "optimizer": optimizer, "scaler": torch.amp.GradScaler("cpu")}
        held |= {"beside": {"average": average}}
        known = RunIdentity(settings={}, base={}, cache="", signal="")
        take_checkpoint(folder, counters, known, **held, leaving=lambda _: lambda _: False, keep=2)()

        def read(path: Path) -> Any:
            return load_checkpoint(path.parent, **held)

        return folder / "checkpoints" / "step-000003" / name, read

    return make


def lora_file(folder: Path) -> Made:
    about = {"unet.r": 2, "unet.lora_alpha": 2, "unet.target_modules": ["to_q"]}
    tensors = {f"unet.to_q.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    save_file(tensors, folder / lora.FILE, metadata={"lora_adapter_metadata": json.dumps(about), "format": "pt"})
    return folder / lora.FILE, lambda path: lora.read(path.parent, "unet")


def weights(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        state = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
        (save_file if name.endswith("safetensors") else torch.save)(state, folder / name)
        return folder / name, lambda path: (read_state(path), weights_id(path))

    return make


def weight_index(folder: Path) -> Made:
    save_file({"weight": torch.ones(2)}, folder / "a.safetensors")
    path = folder / "model.safetensors.index.json"
    write_json(path, {"metadata": {"total_size": 8}, "weight_map": {"weight": "a.safetensors"}})
    return path, lambda path: read_state(path.parent)


def vocabulary(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        (bert_vocabulary if name == "vocab.txt" else clip_vocabulary)(folder)
        read = bert_text if name == "vocab.txt" else lambda path: clip_text(path, cleaned=True).ids(["a cat"])
        return folder / name, lambda path: read(path.parent)

    return make


def ksort(name: str) -> Callable[[Path], Made]:
    return lambda folder: (write_data(folder / "data") / name, lambda _: load_benchmark(folder / "data").mean_sigma)


def samples(folder: Path) -> Made:
    write_json(folder / "samples.json", {"prompts": ["a"], "seeds": [3], "steps": 2})
    return folder / "samples.json", lambda path: read_samples(path.parent)


def judge(folder: Path) -> Made:
    path = folder / "judge.yaml"
    path.write_text(
        "base_url: http://localhost:8000/v1\nmodel: m\nlow: 1\nhigh: 5\n"
        "question: 'Rate {prompt}'\nnumber_after: 'Score:'\n"
    )
    return path, lambda path: read_settings(path, JudgeSettings)


def config(folder: Path) -> Made:
    path = folder / "config.yaml"
    path.write_text("model:\n  base: lab\ntrain:\n  max_steps: 3\n  seed: 1\nlora:\n  rank: 4\n")
    return path, lambda path: load_config([path])


def pipeline(folder: Path) -> Made:
    index = {
        "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"], "safety_checker": [None, None],
    }  # fmt: skip
    write_json(folder / "model_index.json", index)

    def read(path: Path) -> Any:
        source = locate(path.parent)
        source.absent()
        return part_class(source, "unet"), part_class(source, "vae")

    return folder / "model_index.json", read


KINDS: dict[str, Callable[[Path], Made]] = {
    "ratings.json": ratings,
    "board.csv": board,
    "counts.csv": counts,
    "run.json": run_json,
    "comparison.json": comparison_json,
    "manifest.jsonl": manifest_lines,
    "manifest.json": manifest_record,
    "scores.parquet": scores_table,
    "rewards.parquet": rewards_table,
    "signals.parquet": signals_table,
    "metrics.jsonl": steps,
    "timing.jsonl": seconds,
    **{f"prompts{suffix}": prompts(suffix) for suffix in (".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet")},
    **{
        f"cache/{name}": latent_cache(name)
        for name in (
            *("cache.json", "images.parquet", "prompts.parquet", "pairs.parquet"),
            *("images/r0-00000.safetensors", "prompts/r0-00000.safetensors"),
        )
    },
    **{
        f"frozen/{name}": frozen(name)
        for name in ("{record}", "draws-000000000.parquet", "draws-000000000.safetensors")
    },
    **{
        f"checkpoint/{name}": checkpoint(name)
        for name in ("state.json", "trainable.safetensors", "optimizer.safetensors", "average.safetensors")
    },
    "lora.safetensors": lora_file,
    "weights.safetensors": weights("a.safetensors"),
    "weights.pt": weights("a.pt"),
    "weights.index.json": weight_index,
    "vocab.json": vocabulary("vocab.json"),
    "merges.txt": vocabulary("merges.txt"),
    "vocab.txt": vocabulary("vocab.txt"),
    "ksort/leaderboard": ksort("Image_meta/Arena-Leaderboard-Image.json"),
    "ksort/names": ksort("Image_meta/subfolders.npy"),
    "ksort/capability": ksort("Image_meta/avg_capacitys.npy"),
    "ksort/instance": ksort("Image/inst000/result.json"),
    "samples.json": samples,
    "judge.yaml": judge,
    "config.yaml": config,
    "model_index.json": pipeline,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_a_result_or_a_sentence(kind: str, tmp_path: Path) -> None:
    path, read = KINDS[kind](tmp_path)
    read(path)  # whole
    content = path.read_bytes()
    tried = list(damages(content))
    if content[:1] == b"{" or content[:2] == b"[{":
        tried += strange_json(content, most=30)
    faults = {}
    for what, damaged in tried:
        path.write_bytes(damaged)
        if said := failure(lambda: read(path)):
            faults[what] = said
    if path.suffix == ".parquet":
        path.write_bytes(content)
        for what, table in list(strange_tables(path)):
            pq.write_table(table, path)
            if said := failure(lambda: read(path)):
                faults[what] = said
    assert not faults, "\n".join(f"{what}: {said}" for what, said in faults.items())


@pytest.mark.parametrize("covariance", [[[1.0]], [[1.0, 0.0, 0.0]], [[], [], []], [[1.0] * 4] * 4])
def test_a_covariance_of_other_models_is_refused(covariance: list[list[float]], tmp_path: Path) -> None:
    path, read = ratings(tmp_path)
    write_json(path, {**json.loads(path.read_text()), "covariance": covariance})
    with pytest.raises(InputError, match="not that of its 3 models"):
        read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_a_file_s_place_is_a_sentence(kind: str, tmp_path: Path) -> None:
    path, read = KINDS[kind](tmp_path)
    content = path.read_bytes()
    path.unlink()
    assert not failure(lambda: read(path)), "nothing"
    path.symlink_to(tmp_path / "nowhere")
    assert not failure(lambda: read(path)), "a link to nothing"
    path.unlink()
    path.mkdir()
    assert not failure(lambda: read(path)), "a folder"
    path.rmdir()
    path.write_bytes(content)
    path.chmod(0)
    if os.geteuid():
        assert not failure(lambda: read(path)), "a file that may not be read"
    path.unlink()
    if path.suffix != ".jsonl":  # those of a run are read where they are files, and are none of the others
        os.mkfifo(path)
        assert not failure(lambda: read(path)), "a pipe that nobody writes to"
