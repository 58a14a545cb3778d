"""The lab's shipped model: plain diffusers loads it, it draws what it is asked, its data obey their limits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from finepref.core.errors import InputError
from finepref.core.files import parquet_meta, read_parquet
from finepref.core.provenance import sha256_file
from finepref.formats.pickapic import SCHEMA
from finepref.lab import architecture, makers, model, world
from finepref.lab import ballots as votes

ASKED = (
    "a red circle on a white background",
    "a green square on a navy background",
    "a cyan heart on a black background",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model.materialise(tmp_path_factory.mktemp("lab") / "base")


@pytest.fixture(scope="module")
def loaded(folder):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe, prompts, guidance=2.0):
    noise = makers.noise(0, "test", prompts)
    made = pipe(
        list(prompts),
        latents=noise,
        guidance_scale=guidance,
        num_inference_steps=10,
        height=32,
        width=32,
        output_type="np",
    ).images
    return np.round(255.0 * made).astype(np.uint8)


def test_plain_diffusers_loads_it_in_float32(loaded):
    import torch

    for part in (loaded.unet, loaded.vae, loaded.text_encoder):
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    assert loaded.scheduler.config.beta_schedule == "scaled_linear"
    assert loaded.scheduler.config.prediction_type == "epsilon"
    assert len(loaded.tokenizer) == loaded.text_encoder.config.vocab_size
    assert loaded.tokenizer.model_max_length == loaded.text_encoder.config.max_position_embeddings == 16


def test_loaded_pipeline_equals_the_one_in_memory(loaded):
    assert np.array_equal(sample(loaded, ASKED), sample(model.pipeline("base"), ASKED))


def test_it_draws_what_it_is_asked(loaded):
    """Each picture is nearest to its own prompt among the three, for every prompt."""
    images = sample(loaded, ASKED)
    rms = np.array([[world.judge(image[None], [prompt]).rms[0] for prompt in ASKED] for image in images])
    assert (rms.argmin(axis=1) == np.arange(3)).all()
    assert rms.diagonal().max() < 0.15


def test_early_is_another_model_of_the_same_kind():
    early, base = model.pipeline("early"), model.pipeline("base")
    assert model.fingerprint("early") != model.fingerprint("base")
    assert not np.array_equal(sample(early, ASKED), sample(base, ASKED))


def test_a_complete_folder_is_left_alone_and_a_damaged_one_made_again(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    before, digest = weights.stat().st_mtime_ns, sha256_file(weights)
    assert model.materialise(folder) == folder
    assert weights.stat().st_mtime_ns == before
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\1\2\3")
    model.materialise(folder)
    assert sha256_file(weights) == digest


def test_a_foreign_folder_and_an_unknown_variant_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"it holds mine\.txt, and is not a model of the lab"):
        model.materialise(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    with pytest.raises(InputError, match="did you mean 'early'"):
        model.materialise(tmp_path / "x", "erly")


def test_shipped_files_obey_their_limits_and_their_recipe():
    record = json.loads((model.WEIGHTS / "recipe.json").read_text())
    files = sorted(model.WEIGHTS.glob("*.safetensors"))
    assert {f.name: sha256_file(f) for f in files} == record["sha256"]
    assert max(f.stat().st_size for f in files) <= 2 * 2**20
    assert sum(f.stat().st_size for f in files) <= 12_000_000
    assert record["recipe"]["seed"] == 0


def test_parts_survive_sharding(tmp_path):
    import torch

    state = {f"w{i}": torch.full((300, 1000), float(i)) for i in range(10)}
    model.write_part("part", state, folder=tmp_path)
    assert len(model.part_files("part", folder=tmp_path)) == 4
    again = model.read_part("part", folder=tmp_path)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    model.write_part("part", {"only": torch.ones(2)}, folder=tmp_path)
    assert len(model.part_files("part", folder=tmp_path)) == 1
    with pytest.raises(InputError, match="missing"):
        model.part_files("par", folder=tmp_path)


def test_prompts_are_whole_words_and_all_different():
    tokenizer = architecture.tokenizer()
    every = world.prompts("all")
    ids = tokenizer(list(every)).input_ids
    assert {len(one) for one in ids} == {9}
    assert len({tuple(one) for one in ids}) == len(every)
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == every[0]
    assert len(tokenizer("Ærlig talt, a red cat").input_ids) > 9


def test_votes_with_the_shipped_makers_are_a_function_of_the_seed(tmp_path):
    asked, two = world.prompts("train")[:5], makers.MAKERS[1:4:2]
    first = votes.make_votes(tmp_path / "a.parquet", seed=3, votes=8, prompts=asked, makers_used=two)
    again = votes.make_votes(tmp_path / "b.parquet", seed=3, votes=8, prompts=asked, makers_used=two)
    assert first.equals(again)
    assert read_parquet(tmp_path / "a.parquet").cast(SCHEMA).equals(first)
    assert set(first["model_0"].to_pylist() + first["model_1"].to_pylist()) == {maker.name for maker in two}
    assert parquet_meta(tmp_path / "a.parquet")["seed"] == 3
    with pytest.raises(InputError, match="too few"):
        votes.make_votes(tmp_path / "c.parquet", makers_used=two[:1])
    assert not (tmp_path / "c.parquet").exists()
