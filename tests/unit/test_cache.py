"""The latent cache: each image once, resumable at every shard, refused when it is of something else."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from damage import unsealed
from finepref.core.buckets import Bucket
from finepref.core.errors import InputError
from finepref.core.images import fitted
from finepref.core.provenance import sha256_bytes
from finepref.data.building import CacheSettings
from finepref.data.cache import cache_from, shaping_of, stamp_of
from finepref.data.latents import EMPTY_PROMPT, LatentCache
from finepref.data.shards import read_index, shard_names, write_shard
from finepref.data.uncached import OnlineLatents
from finepref.formats import stretches
from finepref.formats.preferences import PAIRS, ImageRef
from finepref.formats.reading import Reading
from finepref.train.data import pair_table

R = 8


class Plain:
    """An encoder whose numbers can be worked out by hand: mean = pixel / 255 at every second pixel, std = mean / 2."""

    resolution = R
    buckets = (Bucket(R, R),)

    def __init__(self, name: str = "a", stop_after: int | None = None) -> None:
        self.name, self.seen, self.texts, self.stop_after = name, [], [], stop_after

    def fingerprint(self) -> Mapping[str, str]:
        return {"family": "plain", "vae": self.name, "tokenizer": "t"}

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += [sha256_bytes(row.numpy().tobytes()) for row in pixels]
        mean = pixels[:, :, ::2, ::2].float() / 255
        return mean, mean / 2

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        self.texts += list(prompts)
        rows = [torch.full((3, 2), float(len(prompt))) for prompt in prompts]
        return {"prompt_embeds": torch.stack(rows), "pooled": torch.stack(rows)[:, 0]}


def image(seed: int, size: tuple[int, int] = (10, 8)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pairs_file(path: Path, sides: Sequence[tuple[int, int]], *, broken: Sequence[int] = ()) -> Path:
    rows = [
        {
            "pair_id": f"p{i}",
            "prompt": f"prompt {'x' * (i % 3)}",
            "image_0": image(a),
            "image_1": b"broken" if i in broken else image(b),
            "label": 1.0,
        }
        for i, (a, b) in enumerate(sides)
    ]
    pq.write_table(pa.Table.from_pylist(rows, PAIRS), path)
    return path


SIDES = [(0, 1), (1, 2), (3, 4), (5, 6), (7, 0), (2, 8)]
SMALL = CacheSettings(shard_size=4, batch_size=2, dtype="float32")


def test_each_image_and_prompt_once(tmp_path: Path) -> None:
    data, encoder = pairs_file(tmp_path / "pairs.parquet", SIDES), Plain()
    summary = cache_from(data, encoder, tmp_path / "cache", settings=SMALL)
    assert (summary.pairs, summary.images, summary.prompts, summary.quarantined) == (6, 9, 4, 0)
    assert (summary.encoded_images, summary.encoded_prompts, summary.complete) == (9, 4, True)
    assert len(encoder.seen) == len(set(encoder.seen)) == 9
    assert sorted(encoder.texts) == ["", "prompt ", "prompt x", "prompt xx"]
    cache = LatentCache(tmp_path / "cache")
    assert list(cache.pairs) == [f"p{i}" for i in range(6)]
    pair = cache.pairs["p5"]
    assert (pair.image_0, pair.image_1) == (sha256_bytes(image(2)), sha256_bytes(image(8)))
    mean, std, sizes = cache.latents([pair.image_1, pair.image_0, pair.image_1])
    for row, content in zip(mean, (image(8), image(2), image(8)), strict=True):
        pixels, size = fitted(content, Bucket(R, R))
        assert torch.equal(row, torch.from_numpy(pixels)[:, ::2, ::2].float() / 255)
        assert sizes[0] == size
    assert std is not None
    assert torch.equal(std, mean / 2)
    prompts = cache.prompts([pair.prompt, EMPTY_PROMPT])
    assert prompts["prompt_embeds"][:, 0, 0].tolist() == [9.0, 0.0]
    assert prompts["pooled"].shape == (2, 2)
    with pytest.raises(InputError, match="no image 000"):
        cache.latents(["000"])
    with pytest.raises(InputError, match="no mirrored image"):
        cache.latents([pair.image_0], [True])
    with pytest.raises(InputError, match="no prompt 000"):
        cache.prompts(["000"])


def test_mirror_mode_and_storage_types(tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "pairs.parquet", SIDES)
    for dtype, tolerance in (("float32", 0.0), ("float16", 3e-4), ("bfloat16", 3e-3)):
        settings = CacheSettings(flips=True, posterior="mode", dtype=dtype, shard_size=3, batch_size=2)
        cache_from(data, Plain(), tmp_path / dtype, settings=settings)
        cache = LatentCache(tmp_path / dtype)
        pixels, size = fitted(image(3), Bucket(R, R))
        (mean,), std, (mirrored,) = cache.latents([sha256_bytes(image(3))], [True])
        expected = torch.from_numpy(pixels).flip(-1)[:, ::2, ::2].float() / 255
        assert std is None
        assert mean.dtype == torch.float32
        assert (mean - expected).abs().max() <= tolerance
        # 10 x 8 resized is 10 x 8, cropped 8 wide from 1: the mirror image's crop starts at 10 - 8 - 1
        assert (size.crop_left, mirrored.crop_left) == (1, 1)


def test_a_bad_image_drops_its_pair_whole(tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "pairs.parquet", SIDES, broken=[1, 4])
    summary = cache_from(data, Plain(), tmp_path / "cache", settings=SMALL)
    assert (summary.pairs, summary.quarantined) == (4, 2)
    assert list(LatentCache(tmp_path / "cache").pairs) == ["p0", "p2", "p3", "p5"]
    lines = [json.loads(line) for line in (tmp_path / "cache" / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["row"], line["pair_id"]) for line in lines] == [(1, "p1"), (4, "p4")]
    assert all(line["reason"] == "image_1: text, not a picture" for line in lines)


def test_rows_that_the_reader_drops_keep_their_numbers(tmp_path: Path) -> None:
    rows = [
        {"pair_id": f"p{i}", "prompt": "" if i == 1 else "x", "image_0": image(i), "image_1": image(9), "label": 1.0}
        for i in range(4)
    ]
    rows[3]["image_0"] = b"broken"
    pq.write_table(pa.Table.from_pylist(rows, PAIRS), tmp_path / "pairs.parquet")
    cache_from(tmp_path / "pairs.parquet", Plain(), tmp_path / "cache", settings=SMALL)
    lines = [json.loads(line) for line in (tmp_path / "cache" / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["row"], line["pair_id"]) for line in lines] == [(1, "p1"), (3, "p3")]


def test_nothing_usable(tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "pairs.parquet", SIDES[:2], broken=[0, 1])
    with pytest.raises(InputError, match="no pair is usable"):
        cache_from(data, Plain(), tmp_path / "cache", settings=SMALL)
    with pytest.raises(InputError, match="the cache is not finished"):
        LatentCache(tmp_path / "cache")


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".safetensors", ".jsonl")
    }


@pytest.mark.parametrize("stop_after", [0, 1, 2, 4, 6])
def test_resume_equals_the_uninterrupted_run(tmp_path: Path, stop_after: int) -> None:
    data = pairs_file(tmp_path / "pairs.parquet", SIDES, broken=[2])
    cache_from(data, Plain(), tmp_path / "whole", settings=SMALL)
    with pytest.raises(KeyboardInterrupt):
        cache_from(data, Plain(stop_after=stop_after), tmp_path / "cache", settings=SMALL)
    second = Plain()
    summary = cache_from(data, second, tmp_path / "cache", settings=SMALL)
    assert summary.complete
    assert len(second.seen) == 8 - stop_after // 4 * 4  # finished shards of 4 are not encoded again
    assert folder_bytes(tmp_path / "cache") == folder_bytes(tmp_path / "whole")
    for name in ("images.parquet", "prompts.parquet", "pairs.parquet"):
        assert pq.read_table(tmp_path / "cache" / name) == pq.read_table(tmp_path / "whole" / name)


def test_a_second_run_reads_nothing_and_more_data_adds_to_it(tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "pairs.parquet", SIDES[:3])
    cache_from(data, Plain(), tmp_path / "cache", settings=SMALL)
    again = Plain()
    summary = cache_from(data, again, tmp_path / "cache", settings=SMALL)
    assert (summary.pairs, summary.encoded_images, again.seen, again.texts) == (3, 0, [], [])
    more = pairs_file(tmp_path / "more.parquet", SIDES)
    summary = cache_from(more, again, tmp_path / "cache", settings=SMALL)
    assert (summary.pairs, summary.images, summary.encoded_images) == (6, 9, 4)
    fresh = cache_from(more, Plain(), tmp_path / "cache", settings=SMALL, overwrite=True)
    assert fresh.encoded_images == 9


def folder_of_files(folder: Path) -> Path:
    """Six pairs as image files beside a table in jsonl; image 1 is missing."""
    folder.mkdir()
    rows = [{"path1": f"{a}.png", "path2": f"{b}.png", "prompt": f"prompt {i}"} for i, (a, b) in enumerate(SIDES)]
    for i in {side for pair in SIDES for side in pair} - {1}:
        (folder / f"{i}.png").write_bytes(image(i))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_tables_that_did_not_change_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished cache of images that are files is taken without reading any; a changed table is always noticed."""
    data = folder_of_files(tmp_path / "data")
    read: list[object] = []
    original = ImageRef.read
    monkeypatch.setattr(ImageRef, "read", lambda self: read.append(self.path) or original(self))

    def make(**options: bool) -> tuple[int, int, int]:
        """(usable pairs, images read, images encoded)."""
        read.clear()
        summary = cache_from(data, Plain(), tmp_path / "cache", settings=SMALL, **options)
        return summary.pairs, len(read), summary.encoded_images

    assert make()[::2] == (4, 8)
    assert make() == (4, 0, 0)
    assert LatentCache(tmp_path / "cache").labels.tolist() == [1.0] * 4
    (data / "1.png").write_bytes(image(1))
    assert make() == (4, 0, 0)  # the image is not in the table
    pairs, files, encoded = make(recheck=True)
    assert (pairs, encoded) == (6, 1)
    assert files > 0
    table = data / "pairs.jsonl"
    swapped = table.read_text().replace("path1", "path3").replace("path2", "path1").replace("path3", "path2")
    before = table.stat()
    table.write_text(swapped)  # every vote turned round, not a byte longer
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    first = LatentCache(tmp_path / "cache").pairs
    assert make()[0::2] == (6, 0)
    second = LatentCache(tmp_path / "cache").pairs
    sides = [[(pair.image_0, pair.image_1) for pair in pairs.values()] for pairs in (first, second)]
    assert sides[1] == [(b, a) for a, b in sides[0]]
    other = cache_from(data, Plain(), tmp_path / "cache", settings=SMALL, reading=Reading(columns={"model1": "prompt"}))
    assert (other.pairs, other.encoded_images, len(read) > 0) == (6, 0, True)


def test_a_finished_cache_reads_no_table(tmp_path: Path) -> None:
    """Place, size and time of the file are asked, not its content: here it is no longer JSON."""
    data = folder_of_files(tmp_path / "data")
    made = cache_from(data, Plain(), tmp_path / "cache", settings=SMALL)
    table = data / "pairs.jsonl"
    before = table.stat()
    table.write_text("?" * before.st_size)
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = cache_from(data, Plain(), tmp_path / "cache", settings=SMALL)
    assert (again.pairs, again.encoded_images, again.complete) == (made.pairs, 0, True)


@pytest.mark.parametrize("kind", ["csv", "json", "w"])
def test_every_kind_of_table_has_a_stamp(tmp_path: Path, kind: str) -> None:
    """Twin folders have no table: there the files themselves are looked at."""
    rows = [{"path1": "a.png", "path2": "b.png", "prompt": "p"}]
    if kind == "w":
        place = tmp_path / "w" / "a.png"
        for side in ("w", "l"):
            (tmp_path / side).mkdir()
            (tmp_path / side / "a.png").write_bytes(image(1))
        data = tmp_path
    else:
        place = data = tmp_path / f"t.{kind}"
        text = "path1,path2,prompt\na.png,b.png,p\n" if kind == "csv" else json.dumps(rows)
        place.write_text(text)
    stamps = {
        stamp_of(data),
        stamp_of(data, Reading(columns={"prompt": "text"})),
        stamp_of(data, Reading(format="hpdv3")),
    }
    assert stamp_of(data) in stamps
    assert len(stamps) == 3
    state = place.stat()
    os.utime(place, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert stamp_of(data) not in stamps


def test_the_votes_are_in_the_cache(tmp_path: Path) -> None:
    """Training without a signal file takes the winners from there; a cache without labels sends it to the votes."""
    rows = [
        {"pair_id": f"p{i}", "prompt": "x", "image_0": image(i), "image_1": image(9), "label": label}
        for i, label in enumerate((1.0, 0.0, 0.5, None))
    ]
    pq.write_table(pa.Table.from_pylist(rows, PAIRS), tmp_path / "pairs.parquet")
    cache_from(tmp_path / "pairs.parquet", Plain(), tmp_path / "cache", settings=SMALL)
    cache = LatentCache(tmp_path / "cache")
    np.testing.assert_array_equal(cache.labels, [1.0, 0.0, 0.5, np.nan])
    held = pair_table(cache, signals=None, votes=["gone.parquet"], scale=1.0)
    assert held.pair_id == ("p0", "p1")
    assert held.winner == (sha256_bytes(image(0)), sha256_bytes(image(9)))
    assert held.loser == (sha256_bytes(image(9)), sha256_bytes(image(1)))
    index = tmp_path / "cache" / "pairs.parquet"
    pq.write_table(pq.read_table(index).drop_columns(["label"]), index)
    older = LatentCache(tmp_path / "cache")
    assert older.labels is None
    assert older.identity() == cache.identity()
    read = pair_table(older, signals=None, votes=[str(tmp_path / "pairs.parquet")], scale=1.0)
    assert (read.pair_id, read.winner) == (held.pair_id, held.winner)
    with pytest.raises(InputError, match="neither a signal file nor a vote file"):
        pair_table(older, signals=None, votes=[], scale=1.0)


def test_shards_are_looked_at_when_a_cache_is_opened(tmp_path: Path) -> None:
    """A lost or cut shard was found only by the batch that asked for it; making the cache again mends it."""
    data = pairs_file(tmp_path / "pairs.parquet", SIDES)
    cache_from(data, Plain(), tmp_path / "cache", settings=SMALL)
    whole = LatentCache(tmp_path / "cache")
    shas = [sha256_bytes(image(i)) for i in range(9)]
    expected, _, _ = whole.latents(shas)
    shards = sorted((tmp_path / "cache" / "images").glob("*.safetensors"))
    assert len(shards) == 3

    def cut(file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-1])

    faults = {
        "no such file; run `finepref cache` again": Path.unlink,
        r"not a whole shard \(.*not fully covered": cut,
        "not a whole shard": lambda file: file.write_bytes(b"\xff" * 40),
    }
    for file, (message, fault) in zip(shards, faults.items(), strict=True):
        fault(file)
        with pytest.raises(InputError, match=rf"{file.name}: {message}"):
            LatentCache(tmp_path / "cache")
        mended = cache_from(data, Plain(), tmp_path / "cache", settings=SMALL)
        assert mended.encoded_images == (1 if file == shards[2] else 4)
        assert torch.equal(LatentCache(tmp_path / "cache").latents(shas)[0], expected)
    next((tmp_path / "cache" / "prompts").glob("*.safetensors")).unlink()
    with pytest.raises(InputError, match="no such file"):
        LatentCache(tmp_path / "cache")


def test_a_kill_between_tensors_and_index_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a lost shard is used again: the lost one's index must not name the new one's rows."""
    old, new = (pa.table({"sha": [name]}) for name in ("old", "new"))
    write_shard(tmp_path, "r0-00000", {"mean": torch.zeros(1, 2)}, old)
    (tmp_path / "r0-00000.safetensors").unlink()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("finepref.data.shards.write_parquet", killed)
        with pytest.raises(KeyboardInterrupt):
            write_shard(tmp_path, "r0-00000", {"mean": torch.ones(1, 2)}, new)
    assert shard_names(tmp_path) == []
    write_shard(tmp_path, "r0-00000", {"mean": torch.ones(1, 2)}, new)
    assert read_index(tmp_path, new.schema)["sha"].to_pylist() == ["new"]


def test_encoder_calls_are_counted_by_what_is_held(tmp_path: Path) -> None:
    """9 images and their mirrors, 4 prompts: also after an interruption and with several processes."""
    data = pairs_file(tmp_path / "pairs.parquet", SIDES)
    settings = CacheSettings(shard_size=4, batch_size=2, dtype="float32", flips=True)
    with pytest.raises(KeyboardInterrupt):
        cache_from(data, Plain(stop_after=8), tmp_path / "resumed", settings=settings)
    assert cache_from(data, Plain(), tmp_path / "resumed", settings=settings).encoded_images < 9
    with ThreadPoolExecutor(2) as pool:
        [*pool.map(lambda each: cache_from(data, each, tmp_path / "two", settings=settings), (Plain(), Plain()))]
    for name in ("resumed", "two"):
        assert LatentCache(tmp_path / name).calls() == {"vae": 18, "text": 4}


def test_refused_for_another_model_or_setting(tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "pairs.parquet", SIDES[:2])
    cache_from(data, Plain(), tmp_path / "cache", settings=SMALL)
    before = folder_bytes(tmp_path / "cache")
    with pytest.raises(InputError, match="the cache was made for another vae; use another folder, or make"):
        cache_from(data, Plain("b"), tmp_path / "cache", settings=SMALL)
    larger = Plain()
    larger.resolution = 16
    with pytest.raises(InputError, match=r"another resolution \(8, now 16\)"):
        cache_from(data, larger, tmp_path / "cache", settings=SMALL)
    with pytest.raises(InputError, match="another posterior"):
        cache_from(data, Plain(), tmp_path / "cache", settings=CacheSettings(posterior="mode", dtype="float32"))
    assert folder_bytes(tmp_path / "cache") == before
    with pytest.raises(InputError, match="another resolution"):
        LatentCache(tmp_path / "cache").require(shaping_of(larger, SMALL))
    LatentCache(tmp_path / "cache").require(shaping_of(Plain(), SMALL))


def test_a_part_that_the_version_before_did_not_record(tmp_path: Path) -> None:
    """Its caches are used on; where the part is recorded, another one is refused."""

    class Words(Plain):
        def fingerprint(self) -> Mapping[str, str]:
            return {**super().fingerprint(), "tokenizer text": self.name}

    data = pairs_file(tmp_path / "pairs.parquet", SIDES[:2])
    for folder in ("old", "new"):
        cache_from(data, Plain() if folder == "old" else Words(), tmp_path / folder, settings=SMALL)
    before = folder_bytes(tmp_path / "old")
    cache_from(data, Words(), tmp_path / "old", settings=SMALL)
    assert folder_bytes(tmp_path / "old") == before
    cache_from(pairs_file(tmp_path / "pairs.parquet", SIDES[:3]), Words(), tmp_path / "old", settings=SMALL)
    assert "tokenizer text" not in LatentCache(tmp_path / "old").record.shaping.fingerprint
    other = Words()
    other.fingerprint = lambda: {**Plain().fingerprint(), "tokenizer text": "b"}  # type: ignore[method-assign]
    with pytest.raises(InputError, match="the cache was made for another tokenizer text"):
        cache_from(data, other, tmp_path / "new", settings=SMALL)


def test_processes_share_the_work_and_one_of_them_writes_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three at once, each of which waits at its first image until all have one: every part of the data is read once."""
    monkeypatch.setattr(stretches, "LEAST", 2)
    data = groups_of_two(pairs_file(tmp_path / "pairs.parquet", SIDES, broken=[3]))
    cache_from(data, Plain(), tmp_path / "one", settings=SMALL)
    together, reads = Barrier(3, timeout=60), []

    class Waiting(Plain):
        def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            if not self.seen:
                together.wait()
            return super().encode_images(pixels)

    watched(monkeypatch, reads)
    encoders = [Waiting(), Waiting(), Waiting()]
    with ThreadPoolExecutor(3) as pool:
        found = [*pool.map(lambda each: cache_from(data, each, tmp_path / "three", settings=SMALL), encoders)]
    assert sorted(reads) == [0, 2, 4]
    assert sorted(summary.complete for summary in found) == [False, False, True]
    (whole,) = (summary for summary in found if summary.complete)
    seen = [sha for encoder in encoders for sha in encoder.seen]
    assert len({*seen}) == 8
    assert (whole.pairs, whole.images, whole.encoded_images, whole.encoded_prompts) == (5, 8, len(seen), 4)
    assert sorted(text for encoder in encoders for text in encoder.texts) == ["", "prompt ", "prompt x", "prompt xx"]
    one, three = LatentCache(tmp_path / "one"), LatentCache(tmp_path / "three")
    assert dict(one.pairs) == dict(three.pairs)
    shas = [pair.image_0 for pair in one.pairs.values()]
    assert torch.equal(one.latents(shas)[0], three.latents(shas)[0])
    assert (tmp_path / "three" / "quarantine.jsonl").read_text() == (tmp_path / "one" / "quarantine.jsonl").read_text()
    assert not (tmp_path / "three" / "read").exists()
    monkeypatch.setenv("WORLD_SIZE", "3")
    ranks = []
    for rank in ("0", "1", "2"):
        monkeypatch.setenv("RANK", rank)
        ranks.append(cache_from(data, Plain(), tmp_path / "three", settings=SMALL).complete)
    assert ranks == [True, False, False]


def watched(monkeypatch: pytest.MonkeyPatch, reads: list[int]) -> None:
    """Note the first row of every part of a parquet file whose images are read."""
    read = stretches.parquet_rows

    def noted(path: Path, within: range) -> Callable:
        rows = read(path, within)
        return lambda wanted: (reads.append(within.start) if "image_0" in wanted else None, rows(wanted))[1]

    monkeypatch.setattr(stretches, "parquet_rows", noted)


def groups_of_two(path: Path) -> Path:
    """The same table in row groups of two rows."""
    pq.write_table(pq.read_table(path), path, row_group_size=2)
    return path


def test_what_a_killed_process_read_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had two of three parts; of one a shard is lost then, and what it left of another data set says nothing."""
    monkeypatch.setattr(stretches, "LEAST", 2)
    data, out = groups_of_two(pairs_file(tmp_path / "pairs.parquet", SIDES)), tmp_path / "cache"
    cache_from(data, Plain(), tmp_path / "one", settings=SMALL)
    with pytest.raises(KeyboardInterrupt):
        cache_from(data, Plain(stop_after=6), out, settings=SMALL)
    left = sorted(path.name for path in (out / "read").glob("*.pairs.parquet"))
    assert len(left) == 2
    reads = []
    watched(monkeypatch, reads)

    def again(expected: list[int]) -> None:
        reads.clear()
        assert cache_from(data, Plain(), out, settings=SMALL).complete
        assert reads == expected
        assert dict(LatentCache(out).pairs) == dict(LatentCache(tmp_path / "one").pairs)
        shas = [sha256_bytes(image(i)) for i in range(9)]
        assert torch.equal(LatentCache(out).latents(shas)[0], LatentCache(tmp_path / "one").latents(shas)[0])
        assert not (out / "read").exists()

    saved = shutil.copytree(out, tmp_path / "saved")
    again([4])
    shutil.rmtree(out)
    shutil.copytree(saved, out)
    next(iter(sorted((out / "images").glob("*n00001-*.safetensors")))).unlink()
    again([2, 4])
    shutil.rmtree(out)
    shutil.copytree(saved, out)
    more = groups_of_two(pairs_file(tmp_path / "more.parquet", SIDES[2:]))
    reads.clear()
    assert cache_from(more, Plain(), out, settings=SMALL).pairs == 4
    assert reads == [0, 2]


def test_a_refused_data_set_leaves_a_finished_cache_as_it_was(tmp_path: Path) -> None:
    """Also what was left out of the one that it holds."""
    data, out = pairs_file(tmp_path / "pairs.parquet", SIDES, broken=[1]), tmp_path / "cache"
    cache_from(data, Plain(), out, settings=SMALL)
    said = (out / "quarantine.jsonl").read_text()
    bad = pairs_file(tmp_path / "bad.parquet", SIDES[:2], broken=[0, 1])
    with pytest.raises(InputError, match="no pair is usable; the first: image_1: text, not a picture"):
        cache_from(bad, Plain(), out, settings=SMALL)
    assert (out / "quarantine.jsonl").read_text() == said
    assert cache_from(data, Plain(), out, settings=SMALL).encoded_images == 0
    assert len(LatentCache(out).pairs) == 5


@pytest.mark.parametrize("at", ["write_items", "write_pairs", "write_quarantine"])
def test_a_kill_between_two_tables_leaves_no_finished_cache(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tables are of two data sets then: neither a run nor the old data take it for whole."""
    data, out = pairs_file(tmp_path / "pairs.parquet", SIDES[:3]), tmp_path / "cache"
    cache_from(data, Plain(), out, settings=SMALL)
    other = pairs_file(tmp_path / "other.parquet", SIDES[2:])

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"finepref.data.cache.{at}", killed)
        with pytest.raises(KeyboardInterrupt):
            cache_from(other, Plain(), out, settings=SMALL)
    with pytest.raises(InputError, match="the cache is not finished"):
        LatentCache(out)
    assert cache_from(data, Plain(), out, settings=SMALL).pairs == 3
    assert list(LatentCache(out).pairs) == ["p0", "p1", "p2"]


def test_a_latent_that_is_not_finite_is_quarantined(tmp_path: Path) -> None:
    class Overflowing(Plain):
        def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            mean, std = super().encode_images(pixels)
            return mean + 1e5 * (pixels[:, :1, :1, :1] == fitted(image(2), Bucket(R, R))[0][0, 0, 0]), std

    data = pairs_file(tmp_path / "pairs.parquet", SIDES)
    summary = cache_from(data, Overflowing(), tmp_path / "cache", settings=CacheSettings(dtype="float16", batch_size=3))
    assert summary.quarantined == 2
    assert list(LatentCache(tmp_path / "cache").pairs) == ["p0", "p2", "p3", "p4"]
    assert "its latent is not finite in float16" in (tmp_path / "cache" / "quarantine.jsonl").read_text()


def test_masked_prompts_of_different_length(tmp_path: Path) -> None:
    class Masked(Plain):
        def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
            lengths = torch.tensor([len(prompt) for prompt in prompts])
            mask = (torch.arange(12) < lengths[:, None]).long()
            return {"prompt_embeds": mask[..., None] * torch.arange(1.0, 13)[:, None], "prompt_mask": mask}

    data = pairs_file(tmp_path / "pairs.parquet", SIDES)
    cache_from(data, Masked(), tmp_path / "cache", settings=SMALL)
    cache = LatentCache(tmp_path / "cache")
    shas = [sha256_bytes(text.encode()) for text in ("prompt xx", "", "prompt ")]
    found = cache.prompts(shas)
    assert found["prompt_mask"].sum(1).tolist() == [9, 0, 7]
    assert found["prompt_embeds"].shape == (3, 9, 1)
    assert found["prompt_embeds"][:, :, 0].sum(1).tolist() == [45.0, 0.0, 28.0]
    index = pq.read_table(tmp_path / "cache" / "prompts.parquet").to_pylist()
    assert {row["prompt_sha256"]: row["tokens"] for row in index}[shas[2]] == 7


def test_a_cache_of_an_older_version_is_read_and_a_broken_one_refused(tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "pairs.parquet", SIDES)
    cache_from(data, Plain(), tmp_path / "c", settings=SMALL)
    file, identity = tmp_path / "c" / "cache.json", LatentCache(tmp_path / "c").identity()
    held = unsealed(file.read_bytes())
    assert held["fingerprint"] == Plain().fingerprint()
    file.write_text(json.dumps({key: value for key, value in held.items() if key != "version"}))
    assert LatentCache(tmp_path / "c").identity() == identity
    assert cache_from(data, Plain(), tmp_path / "c", settings=SMALL).encoded_images == 0
    for wrong, says in (({"version": 2}, "version 2 is not known"), ({"resolution": "wide"}, "resolution")):
        file.write_text(json.dumps({**held, **wrong}))
        with pytest.raises(InputError, match=says):
            LatentCache(tmp_path / "c")


def test_online_encoding_gives_what_the_cache_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pairs_file(tmp_path / "pairs.parquet", SIDES, broken=[3])
    cache_from(data, Plain(), tmp_path / "cache", settings=CacheSettings(dtype="float32", flips=True))
    cache = LatentCache(tmp_path / "cache")
    encoder = Plain()
    online = OnlineLatents(data, encoder)
    assert encoder.seen == []
    assert dict(online.pairs) == dict(cache.pairs)
    assert [(q.row, q.pair_id, q.reason) for q in online.quarantined] == [(3, "p3", "image_1: text, not a picture")]
    pairs = list(online.pairs.values())
    images = [pairs[0].image_0, pairs[1].image_1, pairs[0].image_0, pairs[0].image_0]
    flips = [False, True, False, True]
    for ours, kept in zip(online.latents(images, flips), cache.latents(images, flips), strict=True):
        assert torch.equal(ours, kept) if isinstance(ours, Tensor) else ours == kept
    assert len(encoder.seen) == 3  # equal images of a batch are encoded once
    prompts = [pairs[1].prompt, EMPTY_PROMPT, pairs[1].prompt]
    for name, value in cache.prompts(prompts).items():
        assert torch.equal(online.prompts(prompts)[name], value)
    monkeypatch.setattr("finepref.data.uncached.IN_MEMORY", 500)
    with pytest.raises(InputError, match="the tables hold more than 500 bytes of images; make a cache"):
        OnlineLatents(data, Plain())


@pytest.mark.parametrize("content", [image(9), image(0)[:-30], b"broken"])
def test_online_encoding_refuses_an_image_that_was_changed(tmp_path: Path, content: bytes) -> None:
    """Another image, a cut one and none at all under the name of one that was read: never trained on, one sentence."""
    online = OnlineLatents(folder_of_files(tmp_path / "data"), Plain())
    sha, place = sha256_bytes(image(0)), tmp_path / "data" / "0.png"
    place.write_bytes(content)
    with pytest.raises(
        InputError, match=r"0\.png: the image was changed since the run read the data; put the old file"
    ):
        online.latents([sha])
    place.write_bytes(image(0))
    assert online.latents([sha])[0].shape[0] == 1
