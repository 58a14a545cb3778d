"""Weight files of a variant, and tensors that a network does not have."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
from finepref.core.errors import InputError
from finepref.models.export import export
from finepref.models.load import load_adapter, load_pipeline
from finepref.models.source import load_part, locate
from single_files import equal, plain
from tiny import picture


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose weights are there as fp16 alone, those of the UNet in shards."""
    folder = tmp_path_factory.mktemp("variant") / "base"
    pipe = plain(tiny.sd15(tmp_path_factory.mktemp("whole") / "base")).to(torch.float16)
    pipe.save_pretrained(folder, variant="fp16")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    pipe.unet.save_pretrained(folder / "unet", variant="fp16", max_shard_size="200KB")
    assert len([*(folder / "unet").glob("*.fp16-0*-of-*.safetensors")]) > 1
    return folder


def test_a_variant_is_read_as_diffusers_reads_it(half: Path, tmp_path: Path) -> None:
    """The oracle is plain diffusers, of the base and of what was merged from a run."""
    from diffusers import DiffusionPipeline

    expected = DiffusionPipeline.from_pretrained(half, variant="fp16", torch_dtype=torch.float32)
    expected.set_progress_bar_config(disable=True)
    found = load_pipeline(half, variant="fp16")
    assert equal(found.unet.state_dict(), expected.unet.state_dict())
    assert torch.equal(picture(found), picture(expected))
    with pytest.raises(InputError, match="not a whole AutoencoderKL"):
        load_pipeline(half)
    with pytest.raises(InputError, match="not a whole AutoencoderKL of variant bf16"):
        load_pipeline(half, variant="bf16")

    adapter = load_adapter(half, variant="fp16", reference=False)
    tiny.perturb(adapter)
    adapter.saving()(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(f"model:\n  base: {half}\n  variant: fp16\n")
    merged = export(tmp_path / "run", half, tmp_path / "merged", format="merged")
    oracle = DiffusionPipeline.from_pretrained(merged, torch_dtype=torch.float32)
    oracle.set_progress_bar_config(disable=True)
    assert torch.equal(picture(oracle), picture(load_pipeline(half, tmp_path / "run", variant="fp16")))


def test_a_tensor_that_a_network_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = tiny.sd15(tmp_path / "base")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(file), "conv_more.weight": torch.zeros(1)}, file, metadata={"format": "pt"})
    message = "1 tensors have no place in it, the first is 'conv_more.weight'; "
    with pytest.raises(InputError, match=re.escape(message)):
        load_part(locate(folder), "unet")
    text = folder / "text_encoder" / "model.safetensors"
    positions = {"text_model.embeddings.position_ids": torch.arange(77)}
    save_file({**load_file(text), **positions}, text, metadata={"format": "pt"})
    load_part(locate(folder), "text_encoder")
    save_file({**load_file(text), "more": torch.zeros(1)}, text, metadata={"format": "pt"})
    with pytest.raises(InputError, match="1 tensors have no place in it, the first is 'more'"):
        load_part(locate(folder), "text_encoder")
