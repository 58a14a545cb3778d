"""Weights on their way from a file to a device: no copy where the file's own type will do, and the same numbers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tiny
from finepref.models.load import load_adapter, load_pipeline
from finepref.models.lora import LoraSettings
from finepref.models.precision import cast_layers, freeze_copy

RUNS: dict[str, dict[str, Any]] = {
    "LoRA": {"lora": LoraSettings(rank=2)},
    "LoRA on a start": {"lora": LoraSettings(rank=2), "init_from": "start"},
    "moving": {"lora": LoraSettings(rank=2), "moving": True},
    "DoRA": {"lora": LoraSettings(rank=2, dora=True)},
    "full": {},
    "float32": {"lora": LoraSettings(rank=2), "mixed_precision": "no"},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base saved in bf16, and the same numbers saved in float32; beside it a LoRA with weights of its own."""
    folder = tmp_path_factory.mktemp("bases")
    whole = tiny.sd15(folder / "plain")
    found = {"half": folder / "half", "float32": folder / "float32"}
    for place in found.values():
        shutil.copytree(whole, place)
    for file in whole.rglob("*.safetensors"):
        rounded = {name: value.bfloat16() for name, value in load_file(file).items()}
        save_file(rounded, found["half"] / file.relative_to(whole), metadata={"format": "pt"})
        wide = {name: value.float() for name, value in rounded.items()}
        save_file(wide, found["float32"] / file.relative_to(whole), metadata={"format": "pt"})
    adapter = load_adapter(whole, lora=LoraSettings(rank=2))
    tiny.perturb(adapter)
    adapter.saving()(folder / "start")
    return {**found, "start": folder / "start"}


def tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("run", RUNS)
def test_a_base_in_half_is_that_base_in_float32(bases: dict[str, Path], run: str) -> None:
    """Names, types and bits of all weights, trained and frozen, are those of a run on the same numbers in float32."""
    asked = {"mixed_precision": "bf16", **RUNS[run]}
    if "init_from" in asked:
        asked["init_from"] = bases["start"]
    half, wide = (load_adapter(bases[name], **asked) for name in ("half", "float32"))
    for one, other in ((half.network, wide.network), (half.frozen, wide.frozen)):
        assert (one is None) == (other is None)
        if one is None or other is None:
            continue
        found, expected = tensors(one), tensors(other)
        assert [*found] == [*expected]
        for name, value in found.items():
            assert value.dtype == expected[name].dtype, name
            assert torch.equal(value, expected[name]), name


def test_a_pipeline_in_half_is_that_of_float32(bases: dict[str, Path]) -> None:
    half, wide = (load_pipeline(bases[name], precision="bf16") for name in ("half", "float32"))
    for part in ("unet", "vae", "text_encoder"):
        found, expected = tensors(getattr(half, part)), tensors(getattr(wide, part))
        assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in expected.items()}
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


def mapped(value: torch.Tensor) -> bool:
    """Whether the memory of a tensor is a safetensors file's."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= value.data_ptr() < last:
            return line.endswith(".safetensors")
    return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
@pytest.mark.parametrize(("base", "precision"), [("half", "bf16"), ("float32", "no")])
def test_what_is_frozen_stays_in_the_file(bases: dict[str, Path], base: str, precision: str) -> None:
    """Linear and convolution weights below a LoRA are the file, which processes of a machine share."""
    adapter = load_adapter(bases[base], lora=LoraSettings(rank=2), mixed_precision=precision)
    held = [p for layer in cast_layers(adapter.network) for p in layer.parameters(recurse=False)]
    assert len(held) > 50
    assert all(map(mapped, held))


def test_a_copy_that_moves_has_no_memory_of_its_own() -> None:
    """Until it does: then policy and reference are two."""
    network = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(1, 1, 1))
    copied, shared = freeze_copy(network), freeze_copy(network, moved=True)
    for own, one, other in zip(network.parameters(), copied.parameters(), shared.parameters(), strict=True):
        assert own.data_ptr() == other.data_ptr() != one.data_ptr()
        assert own.requires_grad
        assert not one.requires_grad
        assert not other.requires_grad
    moved = shared.to("meta")
    assert all(p.device.type == "meta" for p in moved.parameters())
    assert all(p.device.type == "cpu" for p in network.parameters())


@pytest.mark.parametrize("asked", [{}, {"lora": LoraSettings(rank=2)}])
def test_everything_goes_to_the_device(bases: dict[str, Path], asked: dict[str, Any]) -> None:
    """In half and beside a reference, on a device that is not the CPU."""
    adapter = load_adapter(bases["float32"], mixed_precision="bf16", device="meta", **asked)
    networks = [each for each in (adapter.network, adapter.frozen) if each is not None]
    assert len(networks) == (1 if asked else 2)
    for network in networks:
        assert {p.device.type for p in network.parameters()} == {"meta"}
    stored = [*cast_layers(networks[-1])]
    assert {p.dtype for layer in stored for p in layer.parameters(recurse=False)} == {torch.bfloat16}
