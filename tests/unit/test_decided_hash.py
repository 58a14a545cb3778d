"""What a run without a signal file says of its votes is the hash of their plain JSON, whatever form the ids have."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from finepref.core.provenance import hash_config
from finepref.formats.hashcolumns import packed
from finepref.train import data


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("kind", ["hashes", "words"])
def test_the_hash_of_votes(kind: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PIECE", 4)
    digests = [hashlib.sha256(bytes([n])).hexdigest()[:32] for n in range(count)]
    ids = digests if kind == "hashes" else [f'"p\u00e9{n}' for n in range(count)]
    labels = np.random.default_rng(0).choice([0.0, 0.25, 0.5, 1.0, np.nan], count)
    known, about, rows = data._from_votes(packed([pa.array(ids, pa.string())]), labels)
    decided = [[name, int(label < 0.5)] for name, label in zip(ids, labels, strict=True) if label > 0.5 or label < 0.5]
    assert [[name, int(winner)] for name, winner in zip(known.pair_id, known.winner, strict=True)] == decided
    assert [ids[row] for row in rows] == [name for name, _ in decided]
    assert about.sha256 == hash_config({"decided": decided})
