"""Scorers by name: specs, local files, conversion, and what is said when something is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPModel

from finepref.core.errors import InputError
from finepref.core.provenance import sha256_file
from finepref.evaluate.scorers import clip
from finepref.evaluate.scorers import hub_files as sources
from finepref.evaluate.scorers.conversion import convert
from finepref.evaluate.scorers.families import load_network
from finepref.evaluate.scorers.hub_files import UrlFile, fetch
from finepref.evaluate.scorers.scorer_rows import SCORERS, make, parse
from finepref.evaluate.scorers.tokenizer import bert_text, clip_text
from tiny_scorers import (
    PROMPTS,
    SPECS,
    bert_vocabulary,
    clip_vocabulary,
    official_files,
    open_clip_state,
    pictures,
)


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny files in the official containers, and vocabularies beside them."""
    return official_files(tmp_path / "official", monkeypatch)


def test_every_kind_has_one_line_and_a_known_preprocess() -> None:
    from finepref.evaluate.scorers.preprocess import VARIANTS

    assert {"pickscore", "hpsv2.0", "hpsv2.1", "aesthetic", "clip-h", "imagereward"} <= set(SCORERS)
    for kind in SCORERS.values():
        assert kind.about
        assert "\n" not in kind.about
        assert kind.preprocess in VARIANTS or kind.family in ("judge", None)
        assert kind.shape is None or kind.shape in clip.SHAPES
        if isinstance(kind.weights, sources.HubFile):
            assert len(kind.weights.revision) == 40


def test_listing_the_names_loads_no_torch() -> None:
    module = "finepref.evaluate.scorers.scorer_rows"
    code = f"import {module}, sys; print('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pickscor", "did you mean 'pickscore'"),
        ("hpsv2.1:tensor", "did you mean 'tensor_"),
        ("hpsv2.1:tensor_aa@missing.pt", "no such file or folder"),
        ("clip", "needs a path"),
        ("judge", "needs a path"),
        ("judge:pil_round@x", "no preprocess to choose"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(spec)


def test_names_say_the_variant_where_it_is_not_the_default(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    assert parse("hpsv2.1").name == "hpsv2.1"
    assert parse("hpsv2.1:tensor_aa").name == "hpsv2.1"
    assert parse("hpsv2.1:tensor_noaa").name == "hpsv2.1:tensor_noaa"
    assert parse(f"clip@{folder}").name == "clip-mine"
    assert parse(f"pickscore@{folder}").name == "pickscore"


@pytest.mark.parametrize("spec", sorted(SPECS))
def test_official_file_and_converted_folder_score_alike(official: Path, tmp_path: Path, spec: str) -> None:
    """Same bits, same fingerprint, one conversion; the folder needs no vocabulary from elsewhere."""
    file, name = official / SPECS[spec], spec.partition(":")[0]
    done = convert(file, out=tmp_path / "converted", scorer=name, vocabulary=None if name == "aesthetic" else official)
    if name == "aesthetic":
        (official / "backbone").rename(done.folder / "backbone")
        (official / "backbone").symlink_to(done.folder / "backbone")
    first, second = make(f"{spec}@{file}"), make(f"{spec}@{done.folder}")
    assert first.fingerprint == second.fingerprint
    assert first.name == second.name == spec
    images = pictures(len(PROMPTS))
    found = first.score(images, PROMPTS)
    np.testing.assert_array_equal(second.score(images, PROMPTS), found)
    assert np.isfinite(found).all()
    record = json.loads((done.folder / "finepref_scorer.json").read_text())
    assert record["source_sha256"] == sha256_file(file)
    assert record["scorer"] == name


def test_a_converted_clip_keeps_its_precision_and_loads_in_transformers(official: Path, tmp_path: Path) -> None:
    done = convert(official / "HPS_v2_compressed.pt", out=tmp_path / "hps")
    assert done.scorer == "hpsv2.0"
    with safe_open(done.folder / "model.safetensors", "pt") as file:
        assert file.get_tensor("text_projection.weight").dtype == torch.float16
    theirs = CLIPModel.from_pretrained(done.folder, dtype=torch.float32)
    ours = load_network(SCORERS["hpsv2.0"], done.folder, "cpu")
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert theirs.config.vision_config.hidden_act == "gelu"


def test_a_tampered_folder_is_refused_or_gets_another_fingerprint(official: Path, tmp_path: Path) -> None:
    done = convert(official / "HPS_v2_compressed.pt", out=tmp_path / "hps", vocabulary=official)
    before = make(f"hpsv2.0@{done.folder}").fingerprint
    state = clip.from_open_clip(open_clip_state(seed=1))
    save_file(
        {k: v.contiguous() for k, v in state.items()}, done.folder / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(InputError, match=r"model\.safetensors: its content has changed since finepref wrote it"):
        make(f"hpsv2.0@{done.folder}")
    (done.folder / "finepref.json").unlink()  # whoever changed it himself
    assert make(f"hpsv2.0@{done.folder}").fingerprint != before


def test_conversion_recognises_by_hash_then_by_name_and_never_guesses(official: Path, tmp_path: Path) -> None:
    unknown = official / "some.pt"
    unknown.write_bytes((official / "HPS_v2_compressed.pt").read_bytes())
    with pytest.raises(InputError, match="cannot tell which scorer this is"):
        convert(unknown, out=tmp_path / "a")
    assert convert(unknown, out=tmp_path / "a", scorer="hpsv2.1").scorer == "hpsv2.1"
    with pytest.raises(InputError, match="has no official file to convert"):
        convert(unknown, out=tmp_path / "b", scorer="judge")
    with pytest.raises(InputError, match="is already there"):
        convert(unknown, out=tmp_path / "a", scorer="hpsv2.1")
    convert(unknown, out=tmp_path / "a", scorer="hpsv2.0", overwrite=True)


def test_a_known_hash_is_not_taken_for_another_scorer(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = official / "HPS_v2.1_compressed.pt"
    known = replace(SCORERS["hpsv2.1"], official=("HPS_v2.1_compressed.pt", sha256_file(file)))
    monkeypatch.setitem(SCORERS._rows, "hpsv2.1", known)
    renamed = official / "HPS_v2_1.pt"
    renamed.write_bytes(file.read_bytes())
    assert convert(renamed, out=tmp_path / "a").scorer == "hpsv2.1"
    with pytest.raises(InputError, match=r"official file of hpsv2\.1, not of hpsv2\.0"):
        convert(renamed, out=tmp_path / "b", scorer="hpsv2.0")


def test_foreign_weights_are_refused_and_nothing_is_written(official: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not of this model"):
        convert(official / "ImageReward.pt", out=tmp_path / "a", scorer="hpsv2.0")
    assert not (tmp_path / "a").exists()
    scorer = make(f"hpsv2.0@{official / 'ImageReward.pt'}")
    with pytest.raises(InputError, match="not of this model"):
        scorer.score(pictures(1), ["a"])


def test_generic_clip_folder_brings_its_own_config(official: Path, tmp_path: Path, monkeypatch: Any) -> None:
    done = convert(official / "HPS_v2_compressed.pt", out=tmp_path / "hps", vocabulary=official)
    monkeypatch.undo()  # the published architectures are themselves again: only config.json knows the tiny one
    found = make(f"clip@{done.folder}").score(pictures(2), PROMPTS[:2])
    assert np.isfinite(found).all()
    (done.folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json beside the weights"):
        make(f"clip@{done.folder}").score(pictures(1), ["a"])


def test_hub_files_are_pinned_and_the_second_name_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    asked = []

    def download(repo: str, name: str, *, revision: str) -> str:
        asked.append((repo, name, revision))
        if name == "model.safetensors":
            raise EntryNotFoundError("404")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    weights = SCORERS["pickscore"].weights
    assert weights is not None
    assert fetch(weights, scorer="pickscore") == tmp_path / "pytorch_model.bin"
    assert {revision for _, _, revision in asked} == {"a4e4367c6dfa7288a00c550414478f865b875800"}


def test_without_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def offline(*_: Any, **__: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(InputError, match="give local files: 'pickscore@PATH'"):
        make("pickscore")


def test_a_url_file_is_kept_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINEPREF_HOME", str(tmp_path / "home"))
    origin = tmp_path / "origin.bin"
    origin.write_bytes(b"weights")
    good = UrlFile(origin.as_uri(), sha256_file(origin), "kept.bin")
    assert fetch(good, scorer="x") == tmp_path / "home" / "kept.bin"
    origin.unlink()
    assert fetch(good, scorer="x").read_bytes() == b"weights"
    with pytest.raises(InputError, match="has SHA-256"):
        fetch(UrlFile(origin.as_uri(), "0" * 64, "kept.bin"), scorer="x")
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch(UrlFile(origin.as_uri(), "0" * 64, "other.bin"), scorer="x")


def test_vocabularies_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it needs vocab\.json and merges\.txt"):
        clip_text(tmp_path, cleaned=True)
    with pytest.raises(InputError, match=r"it needs vocab\.txt"):
        bert_text(tmp_path)
    folder = clip_vocabulary(tmp_path / "v")
    (folder / "merges.txt").write_text("#version\na b c\n")
    with pytest.raises(InputError, match="not a merge of two pieces"):
        clip_text(folder, cleaned=True)
    (folder / "vocab.json").write_text("[")
    with pytest.raises(InputError, match="not valid JSON"):
        clip_text(folder, cleaned=True)
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="not CLIP's vocabulary"):
        clip_text(tmp_path, cleaned=True)


def test_token_rows_begin_and_end_and_are_cut(tmp_path: Path) -> None:
    text = clip_text(clip_vocabulary(tmp_path), cleaned=True)
    rows = text.ids(["", "a", "a " * 300])
    assert rows[0] == [998, 999]
    assert all(row[0] == 998 and row[-1] == 999 for row in rows)
    assert [len(row) for row in rows] == [2, 3, 77]
    bert = bert_text(bert_vocabulary(tmp_path, ("cat",)))
    rows = bert.ids(["", "cat", "cat " * 300])
    assert rows[0] == [2, 3]
    assert [len(row) for row in rows] == [2, 3, 35]
    assert all(row[0] == 2 and row[-1] == 3 for row in rows)
