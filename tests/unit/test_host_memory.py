"""What the host holds: sums by hand, and the types of the weight files that are here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import tiny
from finepref.models.source import locate
from finepref.plan.host import PartFile, base_files, caching_host, drawing_host, scoring_host, training_host
from finepref.plan.needs import START_GB, Counts, StageMemory
from finepref.plan.skeleton import count
from finepref.train.config import RunConfig, parse_config
from finepref.train.method import make_method

G = 10**9
COUNTS = Counts(
    parameters=4 * G, trained=0, castable=3 * G, linear=2 * G, factored=0, latent=(4, 8, 8), condition=0,
    forward_flop=0, training_flop=0, training_bytes=0, forward_bytes=0, vae_parameters=G // 4, vae_flop=0,
    decoder_parameters=G // 4, decoder_bytes=0, text_parameters=5 * G, text_flop=0, largest_text=4 * G,
)  # fmt: skip
STAGE = StageMemory(batch=1, together_gb=1.0, apart_gb=1.0)


def config(**sections: Any) -> RunConfig:
    return parse_config({"model": {"base": "x"}, **sections})


def saved(kind: str) -> dict[str, PartFile]:
    """Files in which every number has that type: a denoiser of 4e9, a VAE of 5e8, text encoders of 5e9."""
    width = 4.0 if kind == "F32" else 2.0
    sizes = {"denoiser": 4 * G, "vae": G // 2, "texts": 5 * G}
    return {name: PartFile(width * numbers, frozenset({kind})) for name, numbers in sizes.items()}


TRAINING: dict[str, tuple[str, dict[str, Any], float, float]] = {  # files, sections, own GB, GB of files
    "float32 files": ("F32", {}, 0, 16),
    "halved on the way": ("F32", {"lora": {"rank": 4}, "train": {"mixed_precision": "bf16"}}, 0, 16),
    "kept in half but for norms": ("BF16", {"lora": {"rank": 4}, "train": {"mixed_precision": "fp16"}}, 4, 8),
    "widened": ("BF16", {"train": {"mixed_precision": "bf16"}}, 16, 8),
    "sharded": ("F32", {"train": {"distributed": "fsdp2"}}, 16, 16),
    "quantised": ("F32", {"model": {"base": "x", "quantize": "int8"}, "lora": {"rank": 4}}, 10, 16),
    "drawing": ("F32", {"validation": {"every": 1, "prompts": ["a dog"]}}, 0, 38),
}


@pytest.mark.parametrize("case", TRAINING)
def test_the_start_of_a_run(case: str) -> None:
    kind, sections, own, files = TRAINING[case]
    run = config(**sections)
    found = training_host(run, make_method(run), COUNTS, saved(kind), pairs=0, cpu_gb=5.0)
    assert found.own_gb - START_GB["train"] == pytest.approx(own, abs=0.06)  # int8 has a scale for every row
    assert found.files_gb == files
    assert found.machine_gb(8) == pytest.approx(8 * found.own_gb + files)
    many = training_host(run, make_method(run), COUNTS, saved(kind), pairs=10_000_000, cpu_gb=5.0)
    assert many.own_gb - found.own_gb == pytest.approx(1.5)  # 150 bytes each


def test_the_other_stages() -> None:
    """VAE in float32, then text encoders in the cache's precision; to draw, all of them in that of training."""
    half = {"cache": {"mixed_precision": "bf16"}, "train": {"mixed_precision": "bf16"}}
    for kind, sections, caching, drawing in (
        ("F32", {}, (0, 20), (0, 38)),
        ("F32", half, (10, 20), (1 + 10 + 8, 38)),
        ("BF16", half, (0, 10), (2 + 1, 19)),
        ("BF16", {}, (20, 10), (2 + 20 + 16, 19)),
    ):
        run, files = config(**sections), saved(kind)
        for name, host, (own, size) in (("cache", caching_host, caching), ("generate", drawing_host, drawing)):
            found = host(run, COUNTS, files, STAGE)
            assert (found.own_gb - START_GB[name], found.files_gb) == (pytest.approx(own), pytest.approx(size))
    assert scoring_host(G, STAGE).files_gb == 4.0


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_files_that_are_here(family: str, tmp_path: Path) -> None:
    """Bytes of all tensors, by their types; without a file, four for every parameter, which is a guess."""
    base = tiny.BUILDERS[family](tmp_path / "model")
    counts, _ = count(base, resolution=32)
    before = base_files(locate(base), counts, family="auto", vae=None)
    assert {each.types for each in before.values()} == {frozenset({"F32"})}
    for name, parts in (("denoiser", ("unet", "transformer")), ("vae", ("vae",)), ("texts", ("text_encoder*",))):
        weights = [file for part in parts for file in base.glob(f"{part}/*.safetensors")]
        held = [value for file in weights for value in load_file(file).values() if value.is_floating_point()]
        assert before[name].size == sum(4 * value.numel() for value in held)
        assert before[name].here
        for file in weights:
            half = {key: value.bfloat16() for key, value in load_file(file).items() if value.is_floating_point()}
            save_file(half, file, metadata={"format": "pt"})
    after = base_files(locate(base), counts, family="auto", vae=None)
    assert {each.types for each in after.values()} == {frozenset({"BF16"})}
    assert [each.size for each in after.values()] == [each.size / 2 for each in before.values()]
    for file in base.rglob("*.safetensors"):
        file.unlink()
    guessed = base_files(locate(base), counts, family="auto", vae=None)
    assert not any(each.here for each in guessed.values())
    assert guessed["denoiser"].size == 4 * counts.parameters
    assert guessed["texts"].size == 4 * counts.text_parameters
