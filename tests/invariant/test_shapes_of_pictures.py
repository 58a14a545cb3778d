"""Runs whose pictures have several shapes: squares train as before, and how a step is split changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import own_pairs
import tiny
from damage import unsealed
from finepref.core.errors import ConfigError, InputError
from finepref.core.files import write_parquet
from finepref.core.images import upright_size
from finepref.data.latents import LatentCache
from finepref.formats.metrics import HELDOUT
from finepref.models.encoder import LatentEncoder
from finepref.train.batches import Draw, micro_batches
from finepref.train.config import RunConfig, load_config
from finepref.train.frozen import ERRORS
from finepref.train.identity import prepare
from finepref.train.opened import about_base, open_latents
from finepref.train.processes import World
from finepref.train.run import fill_run, make_run, train_run
from finepref.train.state import Run
from torchrun import FINEPREF, launched

BUCKETS = "data.buckets=true"
INVERTED = ("trajectory={name: ddim_inversion, network: reference}",)
STEADY = ("train.learning_rate=1e-3", "train.adam_epsilon=1e-2", "train.max_grad_norm=null", "objective.beta=2")


def train(world: Path, out: Path, *words: str, resume: bool = False) -> dict[str, torch.Tensor]:
    """A run of the world on its own pairs, whose pictures have six shapes; the cache lies in it."""
    cache = f"cache.folder={out.parent / 'cache'}"
    train_run(load_config(world / "run.yaml", [cache, *words]), out, resume=resume)
    return load_file(out / "unet" / "diffusion_pytorch_model.safetensors")


def opened(config: RunConfig, out: Path) -> Run:
    here = World(rank=0, size=1, device=torch.device("cpu"))
    prepared = prepare(config, cache=open_latents(config, out, world=here), base=about_base(config))
    return make_run(prepared, out, world=here)


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max((a[name] - b[name]).abs().max().item() for name in a)


def squares(folder: Path) -> Path:
    """The pairs of the world with every picture cut to a square."""
    own_pairs.make_folder(folder)
    for file in [*folder.glob("*.jpg"), *folder.glob("*.png"), *folder.glob("*.webp")]:
        image = Image.open(file)
        image.crop((0, 0, *[min(image.size)] * 2)).save(file)
    return folder


def test_squares_train_as_without(world: Path, tmp_path: Path) -> None:
    """Bit for bit: metrics, what is said of held-out pairs, and weights."""
    data = f"data.paths=[{squares(tmp_path / 'data')}]"
    runs = [tmp_path / name / "run" for name in ("off", "on")]
    for run, words in zip(runs, ([], [BUCKETS]), strict=True):
        train(world, run, data, "data.validation_share=0.3", "train.max_steps=4", *words)
    for name in ("metrics.jsonl", HELDOUT, "unet/diffusion_pytorch_model.safetensors"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes(), name


def test_nothing_is_cropped_that_a_bucket_can_hold(world: Path, tmp_path: Path) -> None:
    """A set of 3 : 2 pictures keeps all of every picture; the cache says at which shape each was encoded."""
    data = own_pairs.make_folder(tmp_path / "data", pairs=4)
    for number, file in enumerate(sorted(data.glob("*.*g")) + sorted(data.glob("*.webp"))):
        Image.open(file).resize([(90, 60), (60, 90)][number % 2]).save(file)
    train(world, tmp_path / "run", BUCKETS, f"data.paths=[{data}]", "train.max_steps=1")
    cache = LatentCache(tmp_path / "cache")
    rows = pq.read_table(tmp_path / "cache" / "images.parquet").to_pylist()
    assert {row["bucket"] for row in rows} <= {"36x24", "24x36", "32x32", "36x28", "28x36"}
    for pair in cache.pairs.values():
        mean, _, sizes = cache.latents([pair.image_0, pair.image_1], bucket=pair.bucket)
        assert mean.shape[2:] == (sizes[0].bucket.height // 4, sizes[0].bucket.width // 4)
        if sizes[0].original_height == sizes[1].original_height:
            assert sizes[0].bucket.lost(sizes[0].original_height, sizes[0].original_width) == 0


def test_splits_change_nothing(world: Path, tmp_path: Path) -> None:
    """Micro-batches of 1, 3 and 8, and one killed run that goes on, give equal weights."""
    runs = {
        size: train(world, tmp_path / f"run-{size}", BUCKETS, f"train.micro_batch={size}", *STEADY)
        for size in (1, 3, 8)
    }
    start = load_file(world / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert apart(runs[8], start) > 1e-3
    assert max(apart(runs[size], runs[8]) for size in (1, 3)) < 2e-6
    part = tmp_path / "part"
    shutil.copytree(tmp_path / "run-8", part)
    for file in ("run.json", "unet"):
        (shutil.rmtree if (part / file).is_dir() else os.unlink)(part / file)
    shutil.rmtree(part / "checkpoints" / "step-000008")
    assert apart(train(world, part, BUCKETS, "train.micro_batch=8", *STEADY, resume=True), runs[8]) == 0
    assert (part / "metrics.jsonl").read_bytes() == (tmp_path / "run-8" / "metrics.jsonl").read_bytes()


def test_inversions_of_all_shapes(world: Path, tmp_path: Path) -> None:
    """A step's pairs are placed in groups of one shape; how many are placed at once changes nothing."""
    words = [BUCKETS, *INVERTED, *STEADY, "train.max_steps=3"]
    runs = [train(world, tmp_path / f"run-{size}", f"train.place_batch={size}", *words) for size in (1, 8)]
    assert apart(*runs) < 2e-6


def test_two_processes_equal_one(world: Path, tmp_path: Path) -> None:
    """Whose shares of a step have other shapes."""
    one = train(world, tmp_path / "one", BUCKETS, "train.max_steps=3", *STEADY)
    words = [BUCKETS, "train.max_steps=3", f"cache.folder={tmp_path / 'cache'}", *STEADY]
    launched(*FINEPREF, "train", "-c", world / "run.yaml", "--out", tmp_path / "two", *words)
    two = load_file(tmp_path / "two" / "unet" / "diffusion_pytorch_model.safetensors")
    assert apart(one, two) < 1e-6


@pytest.mark.parametrize("words", [(), ("data.flip=false", "train.stratified_t=true")])
def test_a_cache_of_errors_is_the_same_run(world: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """The frozen reference's errors of pictures of all shapes, computed before and during the run."""
    plain = train(world, tmp_path / "plain", BUCKETS, *STEADY, *words)
    kept = [f"train.reference_cache={tmp_path / 'errors'}", BUCKETS, *STEADY, *words]
    config = load_config(world / "run.yaml", [f"cache.folder={tmp_path / 'cache'}", *kept])
    assert fill_run(config, ERRORS).computed == 64
    assert apart(train(world, tmp_path / "kept", *kept), plain) < 2e-6


def test_encoded_when_drawn(world: Path, tmp_path: Path) -> None:
    """Without a cache: the same pictures at the same shapes, the same weights."""
    kept = train(world, tmp_path / "kept", BUCKETS, *STEADY)
    words = ["cache.folder=null", "cache.online=true", BUCKETS, *STEADY]
    train_run(load_config(world / "run.yaml", words), tmp_path / "online")
    assert apart(load_file(tmp_path / "online" / "unet" / "diffusion_pytorch_model.safetensors"), kept) < 2e-6


def test_single_images(world: Path, tmp_path: Path) -> None:
    """KTO: an image of two pairs with other shapes comes in that of the first; splits change nothing."""
    pairs = list(LatentCache(_cached(world, tmp_path)).pairs)
    signal = tmp_path / "kto.parquet"
    zeros, ones = np.zeros(len(pairs), np.float32), np.ones(len(pairs), np.int8)
    columns = {"pair_id": pairs, "winner": 0 * ones, "label_0": ones, "label_1": 0 * ones}
    write_parquet(signal, pa.table({**columns, "margin_0": zeros, "margin_1": zeros, "weight": zeros + 1}))
    words = [BUCKETS, "objective={name: kto, beta: 2}", f"signal.file={signal}", "train.learning_rate=1e-3"]
    words += ["train.adam_epsilon=1e-2", "train.max_grad_norm=null"]
    runs = [train(world, tmp_path / f"kto-{size}", f"train.micro_batch={size}", *words) for size in (3, 16)]
    assert apart(*runs) < 2e-6


def test_an_image_in_pairs_of_other_shapes(world: Path, tmp_path: Path) -> None:
    """It is encoded once a shape, and each pair is drawn at its own."""
    data = own_pairs.make_folder(tmp_path / "data", pairs=2)
    shapes = {"chosen-000.jpg": (60, 60), "rejected-000.png": (90, 60), "chosen-001.webp": (60, 90)}
    for name, size in shapes.items():
        Image.open(data / name).resize(size).save(data / name)
    table = "chosen_file_name,rejected_file_name,prompt\n"
    table += "chosen-000.jpg,rejected-000.png,a dog\nchosen-000.jpg,chosen-001.webp,a dog\n"
    (data / "metadata.csv").write_text(table)
    train(world, tmp_path / "run", BUCKETS, f"data.paths=[{data}]", "train.max_steps=1", "data.flip=false")
    cache = LatentCache(tmp_path / "cache")
    lying, standing = cache.pairs.values()
    assert (lying.bucket, standing.bucket) == ("36x28", "28x36")
    assert lying.image_0 == standing.image_0
    assert cache.calls()["vae"] == 4
    with pytest.raises(InputError, match="no image"):
        cache.latents([lying.image_1], bucket=standing.bucket)


def test_sdxl_is_told_the_truth(tmp_path: Path, world: Path) -> None:
    """Size before, crop and shape of every picture, of the mirrored ones too."""
    tiny.sdxl(tmp_path / "model")
    words = [f"model.base={tmp_path / 'model'}", f"cache.folder={tmp_path / 'cache'}", BUCKETS, "train.micro_batch=2"]
    run = opened(load_config(world / "run.yaml", words), tmp_path / "run")
    order = run.source.order(step=0, per_step=24)
    sizes = {*own_pairs.SIZES}
    seen = 0
    for _, batch in micro_batches(run.source, order, range(24), size=5):
        for side, x0 in ((batch.cond_w, batch.x0_w), (batch.cond_l, batch.x0_l)):
            for height, width, top, left, down, across in side["time_ids"].int().tolist():
                seen += 1
                assert (width, height) in sizes
                assert (down, across) == (x0.shape[2] * 4, x0.shape[3] * 4)
                scale = max(down / height, across / width)
                assert top == pytest.approx((height * scale - down) / 2, abs=1)
                assert left == pytest.approx((width * scale - across) / 2, abs=1)
    assert seen == 48


def test_a_batch_has_one_shape(world: Path, tmp_path: Path) -> None:
    """And every draw of a step is in one of them, once."""
    run = opened(load_config(world / "run.yaml", [f"cache.folder={tmp_path / 'cache'}", BUCKETS]), tmp_path / "run")
    order = run.source.order(step=1, per_step=24)
    places = []
    for chunk, batch in micro_batches(run.source, order, range(24), size=4):
        assert len({run.source.table.bucket[order[place].index] for place in chunk}) == 1
        assert batch.pair_id == tuple(run.source.table.pair_id[order[place].index] for place in chunk)
        places += chunk
    assert sorted(places) == list(range(24))
    assert run.source.batch([Draw(0, 0)]).x0_w.shape[0] == 1


def test_a_cache_of_the_version_before(world: Path, tmp_path: Path) -> None:
    """Without buckets in its tables: it is complete, all its images are square, and its runs are the same ones."""
    folder = _cached(world, tmp_path, "data.buckets=false")
    identity = LatentCache(folder).identity()
    for file in [folder / "pairs.parquet", folder / "images.parquet", *(folder / "images").glob("*.parquet")]:
        table = pq.read_table(file)
        write_parquet(file, table.drop_columns(["bucket"]))
    record = unsealed((folder / "cache.json").read_bytes())
    del record["buckets"]
    (folder / "cache.json").write_text(json.dumps(record))
    before = (folder / "images.parquet").stat().st_mtime_ns
    assert LatentCache(folder).identity() == identity
    train(world, tmp_path / "run", "train.max_steps=1")
    assert (folder / "images.parquet").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"another buckets \(False, now True\)"):
        train(world, tmp_path / "other", BUCKETS)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["train.trajectory_cache=kept", *INVERTED], "train.trajectory_cache"),
        (["train.distributed=fsdp2"], "train.distributed"),
        (["objective.name=plackett_luce", "signal.file=x.parquet", "data.list_size=3"], "plackett_luce"),
    ],
)
def test_refused(world: Path, tmp_path: Path, words: list[str], what: str) -> None:
    """What takes one shape says so before anything is encoded."""
    with pytest.raises(ConfigError, match=r"data\.buckets: it does not go with") as error:
        train(world, tmp_path / "run", BUCKETS, *words)
    assert what in str(error.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("word", ["", "32", "32x", "axb", "0x32", "-4x8", "1x2x3"])
def test_a_bucket_that_is_none(world: Path, tmp_path: Path, word: str) -> None:
    """One sentence with the file."""
    file = _cached(world, tmp_path) / "images.parquet"
    table = pq.read_table(file)
    write_parquet(file, table.set_column(2, "bucket", pa.array([word] * table.num_rows)))
    with pytest.raises(InputError, match=r"images\.parquet.*buckets such as"):
        LatentCache(tmp_path / "cache")


def _cached(world: Path, folder: Path, *words: str) -> Path:
    opened(load_config(world / "run.yaml", [f"cache.folder={folder / 'cache'}", *(words or (BUCKETS,))]), folder / "it")
    return folder / "cache"


def test_sizes_are_those_of_the_files(world: Path, tmp_path: Path) -> None:
    """The pictures of these tests have six shapes."""
    files = [file for file in (world / "data").iterdir() if file.suffix in (".jpg", ".png", ".webp")]
    assert {upright_size(file.read_bytes())[::-1] for file in files} == {*own_pairs.SIZES}


def test_a_killed_cache_keeps_its_shards(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that wait for shards are bounded over all shapes together; what was written is not encoded again."""
    folder, words = tmp_path / "cache", [BUCKETS, "cache.shard_size=6", "cache.batch_size=1"]
    config = load_config(world / "run.yaml", [f"cache.folder={folder}", *words])
    real, seen = LatentEncoder.encode_images, []

    def counted(self: LatentEncoder, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(pixels.shape)
        if len(seen) == 20 * 2:  # every image, and its mirror
            raise KeyboardInterrupt
        return real(self, pixels)

    monkeypatch.setattr(LatentEncoder, "encode_images", counted)
    with pytest.raises(KeyboardInterrupt):
        open_latents(config, tmp_path, world=World(rank=0, size=1, device=torch.device("cpu")))
    written = sum(pq.read_metadata(file).num_rows for file in (folder / "images").glob("*.parquet"))
    assert written >= 2 * (19 - 6)
    seen.clear()
    cache = open_latents(config, tmp_path, world=World(rank=0, size=1, device=torch.device("cpu")))
    assert len(seen) == 2 * 24 - written
    assert cache.calls()["vae"] == 48
