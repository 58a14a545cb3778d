"""Z-Image and FLUX.2 klein from pairs to pictures: cache, two steps, exports; the oracle is plain diffusers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import architectures

import own_pairs
import tiny
from finepref.core.errors import InputError
from finepref.evaluate.sampling import Sampling, prepare
from finepref.models.encoder import LatentEncoder
from finepref.models.export import export
from finepref.models.family import family
from finepref.models.load import load_pipeline, open_pipeline
from finepref.models.pipeline_parts import check_parts
from finepref.models.source import empty_part, locate
from finepref.train.config import parse_config
from finepref.train.run import train_run
from tiny import picture

PAGES = Path(__file__).resolve().parents[2] / "docs" / "backbones"
NAMES = ("z_image", "flux2_klein")
LORA: dict[str, dict[str, Any] | None] = {"full": None, "lora": {"rank": 4, "alpha": 16}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """(family, kind) -> a run of two steps on pairs of a person's own, its base beside it."""
    folder, made = tmp_path_factory.mktemp("today"), {}
    own_pairs.make_folder(folder / "data", pairs=3)
    for name in NAMES:
        base = tiny.BUILDERS[name](folder / name)
        for kind, lora in LORA.items():
            config = {
                "model": {"base": str(base)},
                "data": {"paths": [str(folder / "data")], "resolution": 32},
                "cache": {"folder": str(folder / f"{name}-cache"), "dtype": "float32"},
                "objective": {"name": "dpo", "beta": 100.0},
                "lora": lora,
                "train": {"max_steps": 2, "pairs_per_step": 2, "learning_rate": 1e-2, "lr_warmup_steps": 0},
            }
            made[name, kind] = train_run(parse_config(config), folder / f"{name}-{kind}")
    return made


@pytest.mark.parametrize("kind", LORA)
@pytest.mark.parametrize("name", NAMES)
def test_a_run_moves_the_model_and_loads_elsewhere(
    runs: dict[tuple[str, str], Path], tmp_path: Path, name: str, kind: str
) -> None:
    """The run's pictures are those of plain diffusers with its part, and of the exported whole pipeline."""
    from diffusers import DiffusionPipeline

    run = runs[name, kind]
    base = run.parent / name
    ours = picture(open_pipeline(str(run)))
    assert not torch.equal(ours, picture(load_pipeline(base)))
    plain = DiffusionPipeline.from_pretrained(base)
    part = export(run, base, tmp_path / "part", format="diffusers")
    if kind == "lora":
        plain.load_lora_weights(part)
    else:
        plain.transformer = type(plain.transformer).from_pretrained(part / "transformer")
    plain.set_progress_bar_config(disable=True)
    assert torch.equal(picture(plain), ours)
    whole = DiffusionPipeline.from_pretrained(export(run, base, tmp_path / "whole", format="merged"))
    whole.set_progress_bar_config(disable=True)
    assert (picture(whole) - ours).abs().max().item() <= (0.0 if kind == "full" else 1e-4)
    if kind == "lora":
        with pytest.raises(InputError, match=f"no {name} model, or its names are not known here"):
            export(run, base, tmp_path / "kohya.safetensors", format="kohya")


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_what_the_pipeline_gives_its_transformer(runs: dict[tuple[str, str], Path], name: str) -> None:
    """A short prompt beside a long one; Z-Image's are as long as their tokens, klein's 512 with the padding."""
    base = runs[name, "lora"].parent / name
    pipe, prompts = load_pipeline(base), ["a dog", "a small red circle on the photo", ""]
    found = LatentEncoder(base, resolution=32).encode_prompts(prompts)
    seen: dict[str, Any] = {}
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(args=args, **kwargs), with_kwargs=True
    )
    for row, prompt in enumerate(prompts):
        guidance = 0.0 if name == "z_image" else 1.0
        size = {"height": 32, "width": 32, "num_inference_steps": 1, "output_type": "latent"}
        pipe(prompt=prompt, guidance_scale=guidance, **size)
        given = seen["args"][2][0] if name == "z_image" else seen["encoder_hidden_states"][0]
        length = int(found["prompt_mask"][row].sum()) if "prompt_mask" in found else 512
        assert len(given) == length
        torch.testing.assert_close(found["prompt_embeds"][row, :length], given, rtol=1e-4, atol=1e-5)
    assert (length == 512) == (name == "flux2_klein")


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_images_is_sampled(runs: dict[tuple[str, str], Path], name: str) -> None:
    """As `finepref generate` samples: two prompts a call, a generator each; an image does not hang on its batch."""
    sampling = Sampling(steps=2, guidance=2.0, size=(32, 32))
    sampler = prepare(open_pipeline(str(runs[name, "lora"])), sampling)
    both = sampler.sample(["a dog", "a small red circle"], [(0, 0), (1, 0)])
    alone = sampler.sample(["a small red circle"], [(1, 0)])
    assert both[0].size == (32, 32)
    difference = torch.tensor(list(both[1].tobytes()), dtype=torch.int) - torch.tensor(list(alone[0].tobytes()))
    assert difference.abs().max() <= 1


@pytest.mark.parametrize(("name", "parameters"), [("z_image", 6_154_908_736), ("flux2_klein", 3_875_544_576)])
def test_the_page_gives_the_published_size(tmp_path: Path, name: str, parameters: int) -> None:
    """Parts of the published sizes fit each other, and the denoiser has as many parameters as the page says."""
    source = locate(architectures.write_configs(tmp_path, name))
    check_parts(source, family(name))
    assert sum(p.numel() for p in empty_part(source, "transformer").parameters()) == parameters
    assert f"{parameters:,} parameters" in (PAGES / f"{name}.md").read_text(encoding="utf-8")
