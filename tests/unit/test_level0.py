"""Errors, files, random streams, provenance."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from finepref.core import files, provenance, rng
from finepref.core.errors import CheckFailed, FineprefError, InputError, nearest


def test_an_error_is_one_sentence_with_place_and_remedy() -> None:
    error = InputError("column 'a' is missing", where="votes.csv", remedy="add it")
    assert str(error) == "votes.csv: column 'a' is missing; add it"
    assert (error.exit_code, CheckFailed("no").exit_code) == (2, 1)
    assert isinstance(error, FineprefError)


def test_nearest_names_the_nearest_or_all() -> None:
    assert nearest("forwad", ["forward", "renoise"]) == "did you mean 'forward'?"
    assert nearest("zzz", ["forward", "renoise"]) == "use one of forward, renoise"


def test_streams_are_functions_of_their_names() -> None:
    """Equal names give equal draws; any other name, seed or split of words another stream."""
    base = rng.numpy_generator(0, "noise", "pair", 3).standard_normal(4)
    assert np.array_equal(base, rng.numpy_generator(0, "noise", "pair", 3).standard_normal(4))
    others = [(1, "noise", "pair", 3), (0, "noise", "pair", 4), (0, "noisepair", 3), (0, "noise", "pair", "3")]
    for seed, *words in others:
        assert not np.array_equal(base, rng.numpy_generator(seed, *words).standard_normal(4))


def test_uniform_draws_are_uniform() -> None:
    """Kolmogorov-Smirnov against U(0,1) (scipy), and inside [0, 1)."""
    from scipy.stats import kstest

    draws = [rng.uniform(0, "t", i) for i in range(4000)]
    assert 0 <= min(draws) <= max(draws) < 1
    assert kstest(draws, "uniform").pvalue > 1e-3


def test_known_stream_values_stay(tmp_path) -> None:
    """Draws are part of the file formats: a change here would change every run."""
    import hashlib

    text = "7\x1fstr:t\x1fstr:p\x1fint:0"
    expected = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    assert rng.key(7, "t", "p", 0) == expected
    assert rng.uniform(7, "t", "p", 0) == (expected >> 75) / 2**53


def test_atomic_file_leaves_the_old_one_on_an_error(tmp_path) -> None:
    target = tmp_path / "a.json"
    files.write_json(target, {"x": 1})

    def interrupted() -> None:
        with files.atomic_file(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        interrupted()
    assert json.loads(target.read_text()) == {"x": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_folder_replaces_whole_or_not_at_all(tmp_path) -> None:
    target = tmp_path / "run"
    with files.atomic_folder(target) as folder:
        (folder / "old").write_text("1")

    def interrupted() -> None:
        with files.atomic_folder(target) as folder:
            (folder / "new").write_text("2")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        interrupted()
    assert [p.name for p in target.iterdir()] == ["old"]
    (target / "a person's").write_text("3")
    with files.atomic_folder(target, own=["old", "new"]) as folder:
        (folder / "new").write_text("2")
    assert sorted(p.name for p in target.iterdir()) == ["a person's", "new"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_json_has_no_nan(tmp_path) -> None:
    value = {"a": math.nan, "b": [np.float32(1.5), math.inf], "c": np.arange(2), "d": np.int64(3)}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == {"a": None, "b": [1.5, None], "c": [0, 1], "d": 3}


def test_parquet_carries_its_provenance(tmp_path) -> None:
    files.write_parquet(tmp_path / "a.parquet", pa.table({"x": [1, 2]}), {"kind": "paper", "rho": math.nan})
    assert files.parquet_meta(tmp_path / "a.parquet") == {"kind": "paper", "rho": None}
    with pytest.raises(InputError, match="column 'y' is missing; it has x"):
        files.read_parquet(tmp_path / "a.parquet", ["y"])
    with pytest.raises(InputError, match="no such file"):
        files.read_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a readable parquet file"):
        files.read_parquet(tmp_path / "c.parquet")


def test_hashes(tmp_path) -> None:
    """SHA-256 of the empty string and of "abc" (FIPS 180-2 examples); a config's order does not matter."""
    assert provenance.sha256_bytes(b"").startswith("e3b0c44298fc1c14")
    (tmp_path / "abc").write_bytes(b"abc")
    assert provenance.sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")
    assert provenance.hash_config({"a": 1, "b": 2}) == provenance.hash_config({"b": 2, "a": 1})
    for count in (0, 1, 5, 40_000):  # an iterator is the list of what it gives
        held = {"b": [[f"p{n}", n % 2] for n in range(count)], "a": 1, "c": [f"é{n}" for n in range(count)]}
        streamed = {**held, "b": iter(held["b"]), "c": iter(held["c"])}
        assert provenance.hash_config(streamed) == provenance.hash_config(held)
    record = provenance.provenance(inputs=[tmp_path / "abc"], seed=0)
    assert record["seed"] == 0
    assert next(iter(record["inputs"].values())).startswith("ba7816bf8f01cfea")
