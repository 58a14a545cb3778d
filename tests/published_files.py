"""Published files that tests use where this machine has them: vocabularies and LAION's head."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import huggingface_hub
import pytest

from finepref.core.device import cache_home
from finepref.evaluate.scorers.hub_files import UrlFile, published
from finepref.evaluate.scorers.scorer_rows import SCORERS


def clip_bpe() -> Path | None:
    """CLIP's merges from the openai-clip package (a development dependency)."""
    spec = importlib.util.find_spec("clip")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    return path if path.is_file() else None


def bert_vocabulary() -> Path | None:
    """bert-base-uncased's vocab.txt: $FINEPREF_BERT_VOCAB, or the hub's cache."""
    repo, revision = published()["repositories"]["bert"]
    given = os.environ.get("FINEPREF_BERT_VOCAB")
    found = given or huggingface_hub.try_to_load_from_cache(repo, "vocab.txt", revision=revision)
    return Path(found) if isinstance(found, str) else None


def aesthetic_head() -> Path | None:
    """LAION's head: $FINEPREF_AESTHETIC_HEAD, or where the scorer keeps it."""
    file = SCORERS["aesthetic"].weights
    assert isinstance(file, UrlFile)
    path = Path(os.environ.get("FINEPREF_AESTHETIC_HEAD") or cache_home() / file.name)
    return path if path.is_file() else None


def original(name: str) -> ModuleType:
    """One file of the openai-clip package, loaded by path (the package itself wants torchvision)."""
    bpe = clip_bpe()
    if bpe is None:
        pytest.skip("the package openai-clip is not installed")
    spec = importlib.util.spec_from_file_location(f"openai_clip_{name}", bpe.parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
