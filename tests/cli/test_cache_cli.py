"""`finepref cache` on a user's own folder of pairs, with a tiny real pipeline."""

from __future__ import annotations

import json
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
import tiny
from finepref.cli.main import main
from finepref.core.errors import ConfigError
from finepref.data.convert import convert
from finepref.data.latents import LatentCache
from finepref.models import encoder
from finepref.train.config import load_config
from finepref.train.method import make_method


def test_cache_then_refusal_of_another_resolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.sd15(tmp_path / "model")
    own_pairs.make_folder(tmp_path / "data", pairs=5)
    next((tmp_path / "data").glob("chosen-003.*")).write_bytes(b"broken")
    config = {
        "model": {"base": str(tmp_path / "model")},
        "data": {"paths": [str(tmp_path / "data")], "resolution": 32, "flip": True},
        "cache": {"folder": str(tmp_path / "cache"), "shard_size": 4, "batch_size": 2},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))

    def finepref(*more: str) -> int | str | None:
        """The command in this process (importing the libraries again would cost more than the work)."""
        monkeypatch.setattr(sys, "argv", ["finepref", "cache", "-c", str(tmp_path / "run.yaml"), *more])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code

    assert not finepref("--json")
    done = capsys.readouterr()
    summary = json.loads(done.out)
    assert (summary["pairs"], summary["quarantined"], summary["encoded_images"]) == (4, 1, 9)
    assert "1 pairs dropped" in done.err
    assert finepref("data.resolution=64") == 2
    said = capsys.readouterr().err
    assert "the cache was made for another resolution (32, now 64); use another folder, or make it again" in said


def test_processes_print_one_summary_of_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As torchrun starts them, one after the other: the one that finishes it speaks for both."""
    tiny.sd15(tmp_path / "model")
    own_pairs.make_folder(tmp_path / "data", pairs=4)
    convert([tmp_path / "data"], tmp_path / "pairs.parquet")
    words = [f"model.base={tmp_path / 'model'}", f"data.paths=[{tmp_path / 'pairs.parquet'}]", "data.resolution=32"]
    monkeypatch.setattr(sys, "argv", ["finepref", "cache", "-c", "lab/dpo", *words, "--out", str(tmp_path / "cache")])
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = []
    for rank in ("0", "1", "0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        found.append(capsys.readouterr())
    out = [each.out.partition(": ")[2] for each in found]
    said = "4 pairs, 8 images ({} encoded now), 5 prompts, 0 pairs dropped\n"
    assert out == [said.format(8), "", said.format(0), ""]
    assert "this process is done: 0 images and 0 prompts encoded; another speaks for all" in found[1].err


@pytest.mark.parametrize("family", ["sd15", "sd3"])
def test_offload_holds_one_kind_of_network_at_a_time_and_makes_the_same_cache(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.BUILDERS[family](tmp_path / "model")
    own_pairs.make_folder(tmp_path / "data", pairs=5)
    words = [f"model.base={tmp_path / 'model'}", f"data.paths=[{tmp_path / 'data'}]", "data.resolution=32"]
    held: dict[str, weakref.ref] = {}

    def watched(name: str) -> None:
        load = getattr(encoder, name)

        def loaded(*args: Any, **kwargs: Any) -> Any:
            assert not apart or all(other() is None for key, other in held.items() if key != name), f"{name} too early"
            found = load(*args, **kwargs)
            held[name] = weakref.ref(found)
            return found

        monkeypatch.setattr(encoder, name, loaded)

    watched("load_vae")
    watched("load_part")
    for apart in (False, True):
        out = ["--out", str(tmp_path / f"cache-{apart}"), *(["--offload"] if apart else [])]
        few = ["cache.batch_size=2", "cache.shard_size=4"]
        monkeypatch.setattr(sys, "argv", ["finepref", "cache", "-c", "lab/dpo", *words, *few, *out])
        held.clear()
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code, capsys.readouterr().err
        assert set(held) == {"load_vae", "load_part"}
    caches = [LatentCache(tmp_path / f"cache-{apart}") for apart in (False, True)]
    assert [cache.identity() for cache in caches] == [caches[0].identity()] * 2
    shards = [sorted((tmp_path / f"cache-{apart}").rglob("*.safetensors")) for apart in (False, True)]
    assert [path.name for path in shards[0]] == [path.name for path in shards[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*shards, strict=True))


def test_offload_does_not_go_with_online_encoding(tmp_path: Path) -> None:
    tiny.sd15(tmp_path / "model")
    words = [f"model.base={tmp_path / 'model'}", "data.resolution=32", "cache.online=true", "cache.offload=true"]
    with pytest.raises(ConfigError, match="every draw needs the VAE and the text encoders"):
        make_method(load_config("lab/dpo", words))
