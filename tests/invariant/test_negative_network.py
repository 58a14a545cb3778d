"""Guidance away from a second network: a sampler written out by hand, and what has no effect or does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from finepref.core.errors import InputError
from finepref.evaluate.generate import generate
from finepref.formats.manifest import read_rows
from finepref.models.load import load_pipeline
from finepref.models.negative_network import guide_by, negative_network
from tiny import picture


def by_hand(pipe: Any, negative: Any, *, guidance: float, steps: int) -> torch.Tensor:
    """One 32 x 32 image of SD1.5 or SDXL, from the pipeline's parts alone: v_neg + s (v - v_neg) in every step."""
    xl = hasattr(pipe, "text_encoder_2")
    if xl:
        words, empty, pooled, none = pipe.encode_prompt("a red circle", device="cpu")
        ids = torch.tensor([[32, 32, 0, 0, 32, 32]]).float()
        added = [{"text_embeds": each, "time_ids": ids} for each in (none, pooled)]
    else:
        words, empty = pipe.encode_prompt("a red circle", "cpu", 1, True)
        added = [None, None]
    pipe.scheduler.set_timesteps(steps)
    side = 32 // pipe.vae_scale_factor
    x = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0)) * pipe.scheduler.init_noise_sigma
    for t in pipe.scheduler.timesteps:
        at = pipe.scheduler.scale_model_input(x, t)
        away = negative.unet(at, t, encoder_hidden_states=empty, added_cond_kwargs=added[0]).sample
        toward = pipe.unet(at, t, encoder_hidden_states=words, added_cond_kwargs=added[1]).sample
        x = pipe.scheduler.step(away + guidance * (toward - away), t, x, return_dict=False)[0]
    image = pipe.vae.decode(x / pipe.vae.config.scaling_factor, return_dict=False)[0]
    return (image / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_sampler_by_hand(tmp_path: Path, family: str) -> None:
    first, second = tiny.BUILDERS[family](tmp_path / "a"), tiny.BUILDERS[family](tmp_path / "b", seed=5)
    guidance = {"sd15": 7.5, "sdxl": 5.0}[family]
    with torch.no_grad():
        wanted = by_hand(load_pipeline(first), load_pipeline(second), guidance=guidance, steps=2)
        alone = by_hand(load_pipeline(first), load_pipeline(first), guidance=guidance, steps=2)
    pipe = load_pipeline(first)
    assert (picture(pipe) - alone).abs().max() < 1e-4  # the hand is the pipeline's
    guide_by(pipe, negative_network(pipe, load_pipeline(second)))
    assert (picture(pipe) - wanted).abs().max() < 1e-4
    assert (wanted - alone).abs().max() > 1e-2


def test_the_command_s_function(tmp_path: Path) -> None:
    """Recorded, so that other images are refused; what has no effect or does not fit is too."""
    base, other = tiny.sd15(tmp_path / "a"), tiny.sd15(tmp_path / "b", seed=5)
    how: dict[str, Any] = {"prompts": ["a red circle"], "seeds": [0], "steps": 2, "size": (32, 32)}
    plain = generate({"a": base}, out=tmp_path / "plain", **how)
    away = generate({"a": base}, out=tmp_path / "away", negative=other, **how)
    assert plain.rows[0].image_sha256 != away.rows[0].image_sha256
    assert "negative" not in next(iter(plain.about.sampling.values()))
    assert next(iter(away.about.sampling.values()))["negative"]
    assert [row.image_sha256 for row in read_rows(tmp_path / "away")] == [away.rows[0].image_sha256]
    with pytest.raises(InputError, match="made with other weights, settings or prompts"):
        generate({"a": base}, out=tmp_path / "away", **how)
    for extra, said in (
        ({"guidance": 1.0}, "no effect at a guidance of 1"),
        ({"negative": tiny.sdxl(tmp_path / "xl")}, "not like that of the model"),
        ({"negative": tmp_path / "nowhere"}, "nowhere"),
    ):
        with pytest.raises(InputError, match=said):
            generate({"a": base}, out=tmp_path / "other", **{"negative": other, **how, **extra})
    assert not (tmp_path / "other" / "images").exists()
    with pytest.raises(InputError, match="is not guided by two halves of one call"):
        negative_network(load_pipeline(tiny.flux(tmp_path / "flux")), load_pipeline(base))
    with pytest.raises(InputError, match="predicts v_prediction, and the model epsilon"):
        negative_network(load_pipeline(base), load_pipeline(tiny.sd15(tmp_path / "v", prediction_type="v_prediction")))


def test_a_pipeline_of_a_program_stays_what_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Led away for one call of `generate`, and not for the next one; other text encoders are said."""
    base, other = tiny.sd15(tmp_path / "a"), tiny.sd15(tmp_path / "b", seed=5)
    pipe = load_pipeline(base)
    how: dict[str, Any] = {"prompts": ["a red circle"], "seeds": [0], "steps": 2, "size": (32, 32)}
    plain = generate({"a": pipe}, out=tmp_path / "one", **how).rows[0].image_sha256
    away = generate({"a": pipe}, out=tmp_path / "two", negative=other, **how).rows[0].image_sha256
    assert "prompts are encoded by the model's own for both" in capsys.readouterr().err
    again = generate({"a": pipe}, out=tmp_path / "three", **how).rows[0].image_sha256
    twice = generate({"a": pipe}, out=tmp_path / "four", negative=other, **how).rows[0].image_sha256
    assert plain == again != away == twice
