"""Weights are read safely, named by their content, and always float32."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from finepref.core.errors import InputError
from finepref.evaluate.scorers.weights import (
    build,
    check_state,
    drop,
    fingerprint,
    full_precision,
    in_blocks,
    read_state,
    weights_id,
)

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


class Evil:
    """A pickle that makes a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.pth", "a.bin", "a.ckpt"])
def test_every_container_gives_the_same_tensors(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(STATE, path)
    found = read_state(path)
    assert set(found) == set(STATE)
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_state_dict_inside_and_module_prefix(tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{k}": v for k, v in STATE.items()}, "epoch": 3}, tmp_path / "a.pt")
    assert set(read_state(tmp_path / "a.pt")) == set(STATE)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path, legacy: bool) -> None:
    path, trap = tmp_path / "evil.pt", tmp_path / "trap"
    torch.save({"state_dict": STATE, "x": Evil(trap)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="could run code; refused") as caught:
        read_state(path)
    assert caught.value.where == path
    assert not trap.exists()


def test_pickle_is_refused_whatever_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, trap = tmp_path / "evil.bin", tmp_path / "trap"
    path.write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises(InputError):
        read_state(path)
    assert not trap.exists()


def test_whole_module_is_refused(tmp_path: Path) -> None:
    """What MPS publishes: a pickled module."""
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(InputError, match="refused"):
        read_state(tmp_path / "module.pt")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_file(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_state(path)
    assert caught.value.where == path


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, {"state_dict": {"x": "text"}}])
def test_not_a_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match="not a state dict"):
        read_state(tmp_path / "a.pt")


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_state(tmp_path / "nothing.pt")
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"unknown kind of weights file '\.onnx'"):
        read_state(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="holds no weights"):
        read_state(tmp_path)


def test_shards_are_joined(tmp_path: Path) -> None:
    save_file({"weight": STATE["weight"]}, tmp_path / "model-1.safetensors")
    save_file({"bias": STATE["bias"]}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"weight": "model-1.safetensors", "bias": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(read_state(tmp_path)) == set(STATE)
    before = weights_id(tmp_path)
    save_file({"bias": STATE["bias"] + 1}, tmp_path / "model-2.safetensors")
    assert weights_id(tmp_path) != before


def _linear() -> nn.Linear:
    with torch.device("meta"):
        return nn.Linear(3, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_are_float32_whatever_they_were_saved_in(dtype: torch.dtype) -> None:
    module = build(lambda: nn.Linear(3, 2), {k: v.to(dtype) for k, v in STATE.items()}, where="x", device="cpu")
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert torch.equal(module.weight, STATE["weight"])
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": STATE["weight"]}, "missing bias"),
        ({**STATE, "scale": STATE["bias"]}, "unexpected scale"),
        ({**STATE, "bias": torch.zeros(3)}, r"bias is \[3\] and should be \[2\]"),
    ],
)
def test_foreign_weights_are_named(state: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_state(_linear(), state, where="file.pt")


def test_drop_takes_whole_names_last_parts_and_prefixes() -> None:
    state = dict.fromkeys(["a.position_ids", "position_ids", "blip.text_proj.weight", "b"], torch.zeros(1))
    assert set(drop(state, ("position_ids",), ("blip.text_proj.",))) == {"b"}


def test_fingerprint_is_of_content_not_of_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": (1, 2), "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint({})) == 16


def test_full_precision_switches_and_restores() -> None:
    torch.set_float32_matmul_precision("high")
    convolution = torch.backends.cudnn.allow_tf32
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with full_precision(torch.device("cpu")):
                assert torch.get_float32_matmul_precision() == "highest"
                assert not torch.backends.cudnn.allow_tf32
                assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
                assert torch.is_inference_mode_enabled()
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32 == convolution
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 33])
def test_blocks_are_the_module_row_by_row(rows: int) -> None:
    module = nn.Linear(3, 2)
    x = torch.arange(3.0 * rows).reshape(rows, 3)
    with torch.no_grad():
        found = in_blocks(module, x) if rows else torch.zeros(0, 2)
        torch.testing.assert_close(found, module(x))
        for row in range(rows):
            assert torch.equal(in_blocks(module, x[row : row + 1])[0], found[row])
