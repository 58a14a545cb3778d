"""A folder with two networks: plain diffusers and `finepref generate` draw what `--negative` draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

import tiny
from finepref.core.errors import InputError
from finepref.core.files import read_json
from finepref.evaluate.generate import generate
from finepref.models.export import export
from finepref.models.load import load_adapter, load_pipeline, open_pipeline
from finepref.models.lora import LoraSettings
from finepref.models.negative_network import guide_by, negative_network
from tiny import TRAINED, perturb, picture

MakeRun = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> MakeRun:
    """(base, name, kind or LoRA settings, strength) -> run folder."""

    def make(base: Path, name: str, kind: str | LoraSettings, scale: float = 0.05) -> Path:
        lora = TRAINED[kind] if isinstance(kind, str) else kind
        adapter = load_adapter(base, lora=lora, reference=False)
        perturb(adapter, scale)
        adapter.saving()(tmp_path / name)
        return tmp_path / name

    return make


def in_diffusers(folder: Path) -> Any:
    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    ("family", "kinds"), [("sd15", ("full", "lora")), ("sdxl", ("lora", "full")), ("sd3", ("lora", "lora"))]
)
def test_one_folder(tmp_path: Path, run: MakeRun, family: str, kinds: tuple[str, str]) -> None:
    """The picture of both networks, which is neither's alone; without guidance it is the first one's."""
    base = tiny.BUILDERS[family](tmp_path / "base")
    good, bad = run(base, "good", kinds[0]), run(base, "bad", kinds[1], -0.05)
    wanted = load_pipeline(base, good)
    alone = picture(wanted)
    guide_by(wanted, negative_network(wanted, load_pipeline(base, bad)))
    both = picture(wanted)
    assert (both - alone).abs().max() > 1e-3
    folder = export(good, base, tmp_path / "both", format="merged", negative=bad)
    for pipe in (in_diffusers(folder), open_pipeline(str(folder))):
        assert (picture(pipe) - both).abs().max() < 1e-4
        again = pipe(
            prompt="a red circle", generator=torch.Generator().manual_seed(0), height=32, width=32,
            num_inference_steps=2, guidance_scale=1.0, output_type="pt",
        ).images  # fmt: skip
        plain = load_pipeline(base, good)(
            prompt="a red circle", generator=torch.Generator().manual_seed(0), height=32, width=32,
            num_inference_steps=2, guidance_scale=1.0, output_type="pt",
        ).images  # fmt: skip
        assert (again - plain).abs().max() < 1e-4
    half = export(good, base, tmp_path / "half", format="merged", negative=bad, half=True)
    assert (picture(in_diffusers(half)) - both).abs().max() < 3e-2
    saved = in_diffusers(folder)
    saved.save_pretrained(tmp_path / "saved")
    assert f"negative_{'transformer' if family == 'sd3' else 'unet'}" in read_json(tmp_path / "saved/model_index.json")


def test_generated_from(tmp_path: Path, run: MakeRun) -> None:
    """`generate` takes the folder as any model; training refuses it; the same export is kept."""
    base = tiny.sd15(tmp_path / "base")
    good, bad = run(base, "good", "lora"), run(base, "bad", "full", -0.05)
    folder = export(good, base, tmp_path / "both", format="merged", negative=bad)
    how: dict[str, Any] = {"prompts": ["a red circle"], "seeds": [0], "steps": 2, "size": (32, 32)}
    assert generate({"both": folder}, out=tmp_path / "one", **how).rows
    with pytest.raises(InputError, match="code that the folder brings"):
        load_adapter(folder)
    with pytest.raises(InputError, match="the model is led away"):
        generate({"both": folder}, out=tmp_path / "two", negative=base, **how)
    with pytest.raises(InputError, match="the negative model is led away"):
        generate({"base": base}, out=tmp_path / "two", negative=folder, **how)
    assert export(good, base, tmp_path / "both", format="merged", negative=bad) == folder
    with pytest.raises(InputError, match="something is there already"):
        export(good, base, tmp_path / "both", format="merged")


def test_refused(tmp_path: Path, run: MakeRun) -> None:
    """What has no effect, is not there, is another base's, is another text encoder's, or has no such sampler."""
    base, other = tiny.sd15(tmp_path / "base"), tiny.sdxl(tmp_path / "other")
    good, strange = run(base, "good", "full"), run(other, "strange", "full")
    texts = run(base, "texts", LoraSettings(rank=4, alpha=4, text_encoder=True))
    flux = tiny.flux(tmp_path / "flux")
    flux_run = run(flux, "flux-run", "lora")
    for given, negative, format, said in (
        ((good, base), good, "single-file", "no effect on format single-file"),
        ((good, base), tmp_path / "nowhere", "merged", "no such run"),
        ((good, base), strange, "merged", "."),
        ((good, base), texts, "merged", "text_encoder of the negative model was trained too"),
        ((flux_run, flux), run(flux, "flux-two", "lora"), "merged", "is not guided by two halves"),
        ((good, base), good, "merged", "it is the run itself"),
        ((good, base), base, "merged", "it is a whole pipeline"),
    ):
        with pytest.raises(InputError, match=said):
            export(*given, tmp_path / "out", format=format, negative=negative)
        assert not (tmp_path / "out").exists()


def test_code_of_others_is_not_run(tmp_path: Path, run: MakeRun) -> None:
    """finepref reads the folder's networks, never its pipeline.py; a folder with other code of its own is refused."""
    base = tiny.sd15(tmp_path / "base")
    folder = export(
        run(base, "good", "lora"), base, tmp_path / "both", format="merged", negative=run(base, "b", "full")
    )
    (folder / "pipeline.py").write_text("raise SystemExit('run')\n")
    with pytest.raises(InputError, match="its content has changed"):
        open_pipeline(str(folder))
    (folder / "finepref.json").unlink()
    assert open_pipeline(str(folder)) is not None
    index = folder / "model_index.json"
    index.write_text(json.dumps({**read_json(index), "_class_name": ["pipeline", "Mine"]}))
    with pytest.raises(InputError, match="which finepref does not run"):
        open_pipeline(str(folder))
