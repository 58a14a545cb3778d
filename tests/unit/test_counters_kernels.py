"""Checkpointing, layout and compilation change speed and memory, not numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from finepref.core.errors import ConfigError
from finepref.models.load import load_adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sd15(tmp_path_factory.mktemp("base") / "model")


def call(adapter, network: str = "policy") -> tuple[torch.Tensor, float, int]:
    """(prediction, gradient norm, bytes that backward keeps) of one forward and backward on fixed inputs."""
    adapter.train_mode(True)
    draw = torch.Generator().manual_seed(0)
    x, cond = torch.randn(3, 4, 8, 8, generator=draw), {"prompt_embeds": torch.randn(3, 77, 32, generator=draw)}
    kept: dict[int, int] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        out = getattr(adapter, network)(x, torch.tensor([1, 500, 999]), cond)
    if network == "policy":
        for _, parameter in adapter.trainable():
            parameter.grad = None
        out.square().mean().backward()
    norm = torch.nn.utils.get_total_norm([p.grad for _, p in adapter.trainable() if p.grad is not None])
    return out.detach(), norm.item(), sum(kept.values())


@pytest.fixture(scope="module")
def plain(base: Path) -> tuple[torch.Tensor, float, int]:
    return call(load_adapter(base, reference=False))


@pytest.mark.parametrize("how", [True, "selective"])
def test_checkpointing_keeps_less_and_computes_the_same(base: Path, plain, how) -> None:
    out, norm, kept = call(load_adapter(base, reference=False, gradient_checkpointing=how))
    torch.testing.assert_close(out, plain[0], rtol=0, atol=0)
    assert norm == pytest.approx(plain[1], rel=1e-6)
    assert kept < plain[2]


def test_selective_checkpointing_lies_between(base: Path, plain) -> None:
    every = call(load_adapter(base, reference=False, gradient_checkpointing=True))[2]
    half = call(load_adapter(base, reference=False, gradient_checkpointing="selective"))[2]
    assert every < half < plain[2]


def test_channels_last_computes_the_same_and_is_saved_plainly(base: Path, plain, tmp_path: Path) -> None:
    """The layout holds for policy and reference, and what is saved loads like any other."""
    from diffusers import UNet2DConditionModel

    adapter = load_adapter(base, channels_last=True)
    weight = adapter.policy_module().conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    out, norm, _ = call(adapter)
    torch.testing.assert_close(out, plain[0], rtol=0, atol=1e-5)
    assert norm == pytest.approx(plain[1], rel=1e-5)
    assert torch.equal(call(adapter, "reference")[0], out)
    adapter.saving()(tmp_path)
    saved = UNet2DConditionModel.from_pretrained(tmp_path / "unet").state_dict()
    original = UNet2DConditionModel.from_pretrained(base / "unet").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in original.items())


def test_a_transformer_has_no_channels_last(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="transformer"):
        load_adapter(tiny.sd3(tmp_path / "sd3"), reference=False, channels_last=True)


def test_compile_takes_whole_networks_and_keeps_names(base: Path, plain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced without a graph break; code generation, which takes minutes on a CPU, is left out here."""
    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: original(self, backend="eager", fullgraph=True))
    adapter = load_adapter(base, compile=True)
    names = [name for name, _ in load_adapter(base, reference=False).trainable()]
    assert [name for name, _ in adapter.trainable()] == names
    assert adapter.policy_module()._compiled_call_impl is not None
    assert adapter.reference_module()._compiled_call_impl is not None
    out, norm, _ = call(adapter)
    torch.testing.assert_close(out, plain[0], rtol=0, atol=1e-5)
    assert norm == pytest.approx(plain[1], rel=1e-5)
