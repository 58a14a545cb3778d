"""The cache of a run config: opened when it is of this model and these settings, refused when it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
import tiny
from finepref import build
from finepref.errors import InputError
from finepref.models.encoder import LatentEncoder
from finepref.train.config import RunConfig, parse_config
from finepref.train.world import World

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model/, other/, data/ and a finished cache/ of model/ at 32 pixels."""
    folder = tmp_path_factory.mktemp("made")
    tiny.sd15(folder / "model")
    tiny.sd15(folder / "other", seed=3)
    own_pairs.make_folder(folder / "data", pairs=4)
    build.make_cache(config_of(folder, paths=[str(folder / "data")]), folder / "cache", device="cpu")
    return folder


def config_of(folder: Path, *, base: str = "model", paths: list[str] | None = None, **sections: dict) -> RunConfig:
    """The config of the fixture's cache, without data, and with other settings where they are given."""
    return parse_config(
        {
            "model": {"base": str(folder / base)},
            "data": {"paths": paths or [], "resolution": 32, **sections.get("data", {})},
            "cache": {"folder": str(folder / "cache"), "dtype": "float32", **sections.get("cache", {})},
        }
    )


def test_a_cache_without_data_is_opened_only_for_what_made_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished cache needs no data paths (the signal is in its own file); it is compared all the same."""

    def loaded(self: LatentEncoder) -> None:
        raise AssertionError("comparing reads no weights")

    monkeypatch.setattr(LatentEncoder, "vae", property(loaded))
    monkeypatch.setattr(LatentEncoder, "pipe", property(loaded))
    assert len(build.open_cache(config_of(made), Path(), world=ALONE).pairs) == 4
    wrong = (
        (config_of(made, base="other"), "another text_encoder"),
        (config_of(made, data={"resolution": 64}), r"another resolution \(32, now 64\)"),
        (config_of(made, cache={"posterior": "mode"}), r"another posterior \(mean_std, now mode\)"),
        (config_of(made, cache={"dtype": "float16"}), r"another storage type \(float32, now float16\)"),
        (config_of(made, data={"flip": True}), r"another flips \(False, now True\)"),
    )
    for config, message in wrong:
        with pytest.raises(InputError, match=message):
            build.open_cache(config, Path(), world=ALONE)
