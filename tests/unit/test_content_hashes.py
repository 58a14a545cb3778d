"""A byte that changed is found when a file is opened; a whole file is read for that once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import flips
from finepref.core import known, seal
from finepref.core.errors import InputError
from finepref.core.files import read_json, read_parquet, write_json, write_parquet, write_sealed
from finepref.core.known import file_sha256, forget, refuse_damaged
from finepref.core.provenance import sha256_folder
from finepref.core.text import visible
from finepref.data.shards import ShardSet, read_index, write_shard
from finepref.formats.frozenfolder import DRAWS, draws_table
from finepref.formats.hashcolumns import numbered
from finepref.models import lora
from finepref.models.source import load_vae, locate
from finepref.models.start import find_start
from finepref.models.unpacked import unpacked_part
from finepref.train.checkpoint import checkpoints, newest_whole
from finepref.train.config import load_config
from finepref.train.run import train_run
from single_files import change, pack

FLIPS = 60


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[flips.Written]:
    return flips.make(tmp_path_factory.mktemp("written"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINEPREF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "known"


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files of tensors that were hashed whole."""
    hashed: list[str] = []

    def counted(path: Path, *, blank: int | None = None) -> str:
        hashed.extend([Path(path).name] if Path(path).suffix == ".safetensors" else [])
        return original(path, blank=blank)

    original = seal.sha256_content
    for module in (seal, known):
        monkeypatch.setattr(module, "sha256_content", counted)
    return hashed


def large(path: Path, *, seed: int = 0) -> Path:
    """A sealed shard above `known.SMALL`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    save_file({"x": torch.randn(known.SMALL // 4 + 1000, generator=generator)}, path)
    seal.seal(path)
    return path


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_no_flip_changes_a_number(written: list[flips.Written]) -> None:
    """A bit of any file that we write and read numbers from; what is refused is one sentence that names a place."""
    found = list(flips.flips(written, FLIPS, seed=0))
    assert not [each for each in found if each.outcome == "accepted"]
    assert Counter(each.outcome for each in found)["refused"] > FLIPS * 2 / 3
    assert {each.kind for each in found} == {each.kind for each in written}
    assert all(visible(each.said) == each.said for each in found)


def expected(path: Path) -> Iterator[tuple[str, str]]:
    """(the digits in a file, SHA-256 of it with 64 zeros in their place), told without our code."""
    content = path.read_bytes()
    at = content.rindex(b"finepref_sha256") + 15
    at += next(k for k in range(8) if content[at + k : at + k + 64].isalnum())
    yield content[at : at + 64].decode(), hashlib.sha256(content[:at] + b"0" * 64 + content[at + 64 :]).hexdigest()


def test_the_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.json", {"x": [1.5, None], "y": "ü"})
    write_parquet(tmp_path / "a.parquet", pa.table({"x": [1, 2]}), {"y": 1})
    write_shard(tmp_path, "s", {"x": torch.arange(4.0)}, draws_table([("a", n) for n in range(4)]))
    save_file({"x": torch.ones(3)}, tmp_path / "b.safetensors", metadata={"format": "pt", "z": '{"r": 2}'})
    seal.seal(tmp_path / "b.safetensors")
    for name in ("a.json", "a.parquet", "s.safetensors", "s.parquet", "b.safetensors"):
        ((held, wanted),) = expected(tmp_path / name)
        assert held == wanted, name
        assert seal.is_intact(tmp_path / name)
    assert json.loads((tmp_path / "a.json").read_text())["x"] == [1.5, None]
    assert read_json(tmp_path / "a.json") == {"x": [1.5, None], "y": "ü"}
    assert pq.read_table(tmp_path / "a.parquet").to_pydict() == {"x": [1, 2]}
    with safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        assert {"format": "pt", "z": '{"r": 2}'}.items() <= file.metadata().items()
    assert torch.equal(load_file(tmp_path / "b.safetensors")["x"], torch.ones(3))


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    """The writer of safetensors puts the keys of its metadata in another order at every call."""
    about = {f"key {n}": str(n) for n in range(12)}
    held = set()
    for n in range(8):
        save_file({"x": torch.ones(3)}, tmp_path / f"{n}.safetensors", metadata=about)
        seal.seal(tmp_path / f"{n}.safetensors")
        held.add((tmp_path / f"{n}.safetensors").read_bytes())
    assert len(held) == 1


def test_files_of_others_and_of_older_versions_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    save_file({"x": torch.ones(1)}, tmp_path / "a.safetensors")
    (tmp_path / "a.json").write_text('{"x": 1}')
    assert read_parquet(tmp_path / "a.parquet")["x"].to_pylist() == [1]
    assert read_json(tmp_path / "a.json") == {"x": 1}
    for name in ("a.parquet", "a.safetensors", "a.json"):
        assert seal.is_intact(tmp_path / name) is None
        refuse_damaged(tmp_path / name, remedy="")


def test_a_table_of_ours_that_a_person_writes_anew_is_theirs(tmp_path: Path) -> None:
    """Arrow keeps our footer with it, not the hash of what the file was before."""
    write_parquet(tmp_path / "a.parquet", pa.table({"x": [1, 2]}), {"y": 1})
    table = pq.read_table(tmp_path / "a.parquet")
    assert b"finepref" in table.schema.metadata
    pq.write_table(table.set_column(0, "x", pa.array([3, 4])), tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet")["x"].to_pylist() == [3, 4]


def test_a_shard_is_hashed_once_at_its_first_use(tmp_path: Path, home: Path, read_bytes: list[str]) -> None:
    rows = known.SMALL // 4096 + 8
    for name in ("a", "b"):
        write_shard(tmp_path, name, {"x": torch.zeros(rows, 1024)}, draws_table([(name, n) for n in range(rows)]))
    index = read_index(tmp_path, DRAWS.schema)
    read_bytes.clear()

    def opened() -> ShardSet:
        return ShardSet(tmp_path, *numbered(index["shard"].to_pylist()), index["row"].to_numpy())

    first = opened()
    assert read_bytes == []
    for _ in range(2):
        first.gather(np.array([0, 1]))
    assert read_bytes == ["a.safetensors"]
    opened().gather(np.array([0, rows]))
    assert read_bytes == ["a.safetensors", "b.safetensors"]
    opened().check()
    assert len(read_bytes) == 2
    forget()
    opened().check()
    assert read_bytes[2:] == ["a.safetensors", "b.safetensors"]
    flip(tmp_path / "b.safetensors", rows * 2048)
    damaged = opened()
    damaged.gather(np.array([0]))
    with pytest.raises(InputError, match=r"b\.safetensors: its content has changed.*remove this file"):
        damaged.gather(np.array([rows]))


@pytest.mark.parametrize("change", ["middle", "same times", "other number", "longer", "notes"])
def test_what_is_known_of_a_file_ends_with_its_next_change(
    tmp_path: Path, home: Path, read_bytes: list[str], change: str
) -> None:
    path = large(tmp_path / "base" / "a.safetensors")
    read_bytes.clear()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    assert file_sha256(path) == file_sha256(path) == before
    assert read_bytes == ["a.safetensors"]
    state = path.stat()
    if change == "notes":
        (notes,) = home.glob("*.json")
        notes.write_text(notes.read_text().replace(before, "f" * 64))
    elif change == "longer":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        flip(path, state.st_size // 2)
        if change == "same times":
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        elif change == "other number":
            shutil.copy2(path, tmp_path / "copy")
            os.replace(tmp_path / "copy", path)
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(read_bytes) == 2


def test_a_home_that_cannot_be_written_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: list[str]
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("FINEPREF_HOME", str(tmp_path / "home"))
    path = large(tmp_path / "a.safetensors")
    read_bytes.clear()
    assert file_sha256(path) == file_sha256(path)
    assert len(read_bytes) == 2


def test_the_hash_of_a_base_is_that_of_its_copy(tmp_path: Path, home: Path, read_bytes: list[str]) -> None:
    large(tmp_path / "base" / "unet" / "a.safetensors")
    (tmp_path / "base" / "unet" / "config.json").write_text("{}")
    read_bytes.clear()
    first = sha256_folder(tmp_path / "base")
    assert sha256_folder(tmp_path / "base") == first
    assert read_bytes.count("a.safetensors") == 1
    shutil.copytree(tmp_path / "base", tmp_path / "other")
    assert sha256_folder(tmp_path / "other") == first
    lines = [
        f"unet/{name}\0{hashlib.sha256((tmp_path / 'base' / 'unet' / name).read_bytes()).hexdigest()}\n"
        for name in ("a.safetensors", "config.json")
    ]
    assert first == hashlib.sha256("".join(lines).encode()).hexdigest()  # as runs of the version before recorded it


def test_a_damaged_newest_checkpoint_is_passed_over(
    written: list[flips.Written], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run ends as one that was never damaged; one sentence says which checkpoint it goes on from."""
    original = next(file for each in written if each.kind == "lora run" for file in each.files).parent
    out = shutil.copytree(original, tmp_path / "lora")
    (out / "run.json").unlink()
    older, newest = checkpoints(out)
    flip(newest / "optimizer.safetensors", -5)
    capsys.readouterr()
    train_run(load_config([out / "config.yaml"]), out, resume=True)
    said = [line for line in capsys.readouterr().err.splitlines() if "passed over" in line]
    assert len(said) == 1
    assert said[0].startswith(f"{newest / 'optimizer.safetensors'}: its content has changed")
    assert said[0].endswith(f"this checkpoint is passed over for {older.name}")
    assert load_file(out / lora.FILE).keys() == load_file(original / lora.FILE).keys()
    for name, value in load_file(original / lora.FILE).items():
        assert torch.equal(load_file(out / lora.FILE)[name], value)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "no state"])
def test_without_a_whole_checkpoint_a_run_is_refused(written: list[flips.Written], tmp_path: Path, damage: str) -> None:
    original = next(file for each in written if each.kind == "full run" for file in each.files).parent
    out = shutil.copytree(original, tmp_path / "full", ignore=shutil.ignore_patterns("run.json"))
    for folder in checkpoints(out):
        weights = next(file for file in folder.rglob("*.safetensors") if "optimizer" not in file.name)
        if damage == "flip":
            flip(weights, 100)
        elif damage == "cut":
            weights.write_bytes(weights.read_bytes()[:-1])
        elif damage == "missing":
            weights.unlink()
        else:
            (folder / "state.json").write_text("{}")
    with pytest.raises(InputError, match=r"none of its checkpoints is whole; the newest, .*step-000002.*overwrite it"):
        newest_whole(out)
    with pytest.raises(InputError, match="none of its checkpoints is whole"):
        train_run(load_config([out / "config.yaml"]), out, resume=True)


def test_a_part_of_a_folder_of_ours_is_known_by_the_folder(
    written: list[flips.Written], tmp_path: Path, home: Path
) -> None:
    """The mark stands in the folder above; a part, or a file of it, may be named alone, or be lent."""
    original = next(file for each in written if each.kind == "merged export" for file in each.files)
    folder = next(p for p in original.parents if p.name == "merged")
    model, out = folder.parent / "model", shutil.copytree(folder, tmp_path / "merged")
    source, name = locate(model), "diffusion_pytorch_model.safetensors"
    calls: dict[str, Callable[[], object]] = {
        f"vae/{name}": lambda: load_vae(source, out / "vae"),
        f"unet/{name}": lambda: find_start(out / "unet", "unet", source),
        "text_encoder/model.safetensors": lambda: locate(bare, config=str(out)),
    }
    bare = tmp_path / "bare.safetensors"
    change(pack(model, tmp_path / "whole.safetensors"), bare, without="cond_stage")
    for call in calls.values():
        call()
    for place, call in calls.items():
        flip(out / place, -1)
        with pytest.raises(InputError, match=rf"merged/{place}: its content has changed since finepref wrote it"):
            call()
    for option in (f"vae/{name}", f"unet/{name}"):
        with pytest.raises(InputError, match=rf"{option}: its content .* remove finepref\.json from {out} if you"):
            unpacked_part(out / option, source, option.partition("/")[0], option="model.vae")
    (out / "finepref.json").unlink()
    for call in calls.values():
        call()


def test_a_name_that_is_no_text(tmp_path: Path, home: Path) -> None:
    """Linux has names of any bytes: they count in a hash, and a sentence says where they cannot be written down."""
    folder = tmp_path / os.fsdecode(b"\xfe")
    large(folder / "a.safetensors")
    (folder / os.fsdecode(b"\xff.json")).write_text("{}")
    first = sha256_folder(folder)
    (folder / os.fsdecode(b"\xff.json")).rename(folder / "y.json")
    assert sha256_folder(folder) != first
    for write in (write_json, write_sealed):
        with pytest.raises(
            InputError, match=r"^unet/\\udcff\.json: its name is not utf-8 text, and cannot be written do"
        ):
            write(tmp_path / "list.json", {"files": ["a", "unet/\udcff.json", "b"]})
    assert not (tmp_path / "list.json").exists()


def test_an_export_in_which_a_person_changed_a_file_is_read_without_its_marker(
    written: list[flips.Written], tmp_path: Path
) -> None:
    original = next(file for each in written if each.kind == "merged export" for file in each.files)
    out = shutil.copytree(next(p for p in original.parents if p.name == "merged"), tmp_path / "merged")
    file = out / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace("epsilon", "sample"))
    with pytest.raises(InputError, match=r"scheduler_config\.json: .*or remove finepref\.json from the folder"):
        locate(out)
    (out / "finepref.json").unlink()
    locate(out)
