"""The cache of a run config: opened when it is of this model and these settings, refused when it is not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
import tiny
from finepref.core.errors import ConfigError, InputError
from finepref.data.latents import LatentCache
from finepref.models.encoder import LatentEncoder
from finepref.train.config import RunConfig, load_config, parse_config
from finepref.train.opened import make_cache, open_latents
from finepref.train.processes import World

ONLINE = {"online": True, "folder": None}
ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model/, other/, data/ and a finished cache/ of model/ at 32 pixels."""
    folder = tmp_path_factory.mktemp("made")
    tiny.sd15(folder / "model")
    tiny.sd15(folder / "other", seed=3)
    own_pairs.make_folder(folder / "data", pairs=4)
    make_cache(config_of(folder, paths=[str(folder / "data")]), folder / "cache", world=ALONE)
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
    assert len(open_latents(config_of(made), Path(), world=ALONE).pairs) == 4
    wrong = (
        (config_of(made, base="other"), "another text_encoder"),
        (config_of(made, data={"resolution": 64}), r"another resolution \(32, now 64\)"),
        (config_of(made, cache={"posterior": "mode"}), r"another posterior \(mean_std, now mode\)"),
        (config_of(made, cache={"dtype": "float16"}), r"another storage type \(float32, now float16\)"),
        (config_of(made, data={"flip": True}), r"another flips \(False, now True\)"),
    )
    for config, message in wrong:
        with pytest.raises(InputError, match=message):
            open_latents(config, Path(), world=ALONE)


def test_encoders_in_half_precision_make_another_cache(made: Path, tmp_path: Path) -> None:
    """The numbers of bf16 (8 bits of mantissa) are near those of float32 and not the same; neither stands for both."""
    half = {"mixed_precision": "bf16"}
    with pytest.raises(InputError, match="another precision"):
        open_latents(config_of(made, cache=half), Path(), world=ALONE)
    config = config_of(made, paths=[str(made / "data")], cache=half)
    make_cache(config, tmp_path / "cache", world=ALONE)
    full, low = LatentCache(made / "cache"), LatentCache(tmp_path / "cache")
    pairs = list(full.pairs.values())
    images, prompts = [pair.image_0 for pair in pairs], [pair.prompt for pair in pairs]
    for a, b in (
        (full.latents(images)[0], low.latents(images)[0]),
        (full.prompts(prompts)["prompt_embeds"], low.prompts(prompts)["prompt_embeds"]),
    ):
        difference = (a - b).abs().max() / a.abs().max()
        assert 1e-5 < difference < 0.05
    with pytest.raises(InputError, match="another precision"):
        open_latents(config_of(made, cache={"folder": str(tmp_path / "cache")}), Path(), world=ALONE)


def test_a_vae_that_overflows_in_float16_is_refused(made: Path, tmp_path: Path) -> None:
    """As SDXL's own does: one sentence with the way out, and no image left out. Within range it encodes as float32."""
    from diffusers import AutoencoderKL

    config = config_of(made, paths=[str(made / "data")], cache={"mixed_precision": "fp16"})
    make_cache(config, tmp_path / "cache", world=ALONE)
    full, low = LatentCache(made / "cache"), LatentCache(tmp_path / "cache")
    images = [pair.image_0 for pair in full.pairs.values()]
    expected, found = full.latents(images)[0], low.latents(images)[0]
    assert 1e-6 < (expected - found).abs().max() / expected.abs().max() < 0.005

    shutil.copytree(made / "model", tmp_path / "model")
    vae = AutoencoderKL.from_pretrained(tmp_path / "model" / "vae")
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(1e6)
    vae.save_pretrained(tmp_path / "model" / "vae")
    pixels = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    full_encoder, low_encoder = (
        LatentEncoder(tmp_path / "model", resolution=32, mixed_precision=precision) for precision in ("no", "fp16")
    )
    assert all(part.isfinite().all() for part in full_encoder.encode_images(pixels))
    with pytest.raises(InputError, match=r"cache.mixed_precision: .*overflow in fp16; .*/sdxl-vae-fp16-fix"):
        low_encoder.encode_images(pixels)


def test_columns_of_other_names(made: Path, tmp_path: Path) -> None:
    """The table of the fixture with other names for its columns is the same data."""
    data = shutil.copytree(made / "data", tmp_path / "data")
    table = (data / "metadata.csv").read_text()
    (data / "metadata.csv").write_text(table.replace("chosen_file_name,rejected_file_name,prompt", "best,worst,words"))
    columns = {"chosen_file_name": "best", "rejected_file_name": "worst", "prompt": "words"}
    config = config_of(made, paths=[str(data)], data={"columns": columns, "format": "imagefolder"})
    make_cache(config, tmp_path / "cache", world=ALONE)
    held = [dict(LatentCache(folder / "cache").pairs) for folder in (made, tmp_path)]
    assert held[0] == held[1]
    online = open_latents(
        config_of(made, paths=[str(data)], data=config.data.model_dump(), cache=ONLINE), Path(), world=ALONE
    )
    assert dict(online.pairs) == held[0]
    with pytest.raises(InputError, match="no known preference format has these columns"):
        make_cache(config_of(made, paths=[str(data)]), tmp_path / "other", world=ALONE)
    overridden = load_config("lab/dpo", ["data.columns.prompt=words"])
    assert overridden.data.columns == {"prompt": "words"}


def test_online_encoding_keeps_nothing(made: Path, tmp_path: Path) -> None:
    """No folder is written, none may be named, and `finepref cache` has nothing to do."""
    config = config_of(made, paths=[str(made / "data")], cache={**ONLINE, "posterior": "mode"})
    online = open_latents(config, tmp_path / "run", world=ALONE)
    assert not (tmp_path / "run").exists()
    assert online.calls() == {"vae": None, "text": None}
    mean, std, _ = online.latents([pair.image_1 for pair in online.pairs.values()])
    assert (mean.shape, std) == ((4, 4, 8, 8), None)
    with pytest.raises(
        ConfigError, match=r"cache\.folder: online encoding keeps nothing; null, or cache\.online=false"
    ):
        open_latents(config_of(made, cache={"online": True}), Path(), world=ALONE)
    with pytest.raises(ConfigError, match=r"cache\.online: online encoding keeps nothing; set it to false"):
        make_cache(config, tmp_path / "cache", world=ALONE)
    with pytest.raises(ConfigError, match="no preferences are named"):
        open_latents(config_of(made, cache=ONLINE), Path(), world=ALONE)


def test_online_encoding_asks_for_no_more_than_a_batch_at_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = LatentEncoder.encode_images
    monkeypatch.setattr(
        LatentEncoder, "encode_images", lambda self, pixels: asked.append(len(pixels)) or original(self, pixels)
    )
    pairs = [str(made / "data")]
    found = []
    for size in (3, 32):
        config = config_of(made, paths=pairs, cache={**ONLINE, "batch_size": size})
        online = open_latents(config, Path(), world=ALONE)
        images = [sha for pair in online.pairs.values() for sha in (pair.image_0, pair.image_1)]
        found.append((*online.latents(images)[:2], online.prompts([pair.prompt for pair in online.pairs.values()])))
    assert asked == [3, 3, 2, 8]
    for a, b in zip(found[0][:2], found[1][:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-5, atol=1e-6)
