"""A checkpoint that was edited, hashes and all, is refused where a step could not have left it so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finepref.core.errors import InputError
from finepref.formats.run import RunIdentity
from finepref.train.checkpoint import Counters, check_checkpoint, load_checkpoint, take_checkpoint
from finepref.train.optim import make_optimizer
from finepref.train.train_section import TrainSection

Edit = Callable[[dict[str, Any]], object]


def saved(folder: Path, optimizer: str = "adamw") -> tuple[Path, dict[str, Any]]:
    """The checkpoint of a step of which the second layer had no part, and what it is loaded into."""
    layers = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    named = list(layers.named_parameters())
    made = make_optimizer(TrainSection(optimizer=optimizer), [parameter for _, parameter in named])
    layers[0](torch.ones(1, 3)).sum().backward()
    made.step()
    average = {key: value.detach().clone() for key, value in named}
    held = {"named": named, "optimizer": made, "scaler": torch.amp.GradScaler("cpu"), "beside": {"average": average}}
    known = RunIdentity(settings={}, base={}, cache="", signal="")
    counters = Counters(step=3, skipped=0, calls={"policy": 3})
    take_checkpoint(folder, counters, known, **held, leaving=lambda _: lambda _: False, keep=2)()
    place = folder / "checkpoints" / "step-000003"
    (place / "finepref.json").unlink()
    return place, held


def edited(file: Path, edit: Edit) -> None:
    if file.suffix == ".json":
        content = json.loads(file.read_text())
        edit(content)
        file.write_text(json.dumps(content))
    else:
        tensors: dict[str, Tensor] = load_file(file)
        edit(tensors)
        save_file(tensors, file)


def put(name: str, change: Callable[[Any], Any]) -> Edit:
    return lambda held: held.update({name: change(held.get(name))})


TENSORS: list[tuple[str, Edit, str]] = [
    ("optimizer", put("0.exp_avg", lambda value: value * torch.nan), "exp_avg holds numbers that it cannot hold"),
    ("optimizer", put("1.exp_avg_sq", lambda value: -value), "exp_avg_sq holds numbers that it cannot hold"),
    ("optimizer", put("0.exp_avg", lambda value: value.flatten()[:1]), r"exp_avg is torch.float32 of shape \(1,\)"),
    ("optimizer", put("0.exp_avg", lambda value: value.int()), r"exp_avg is torch.int32 of shape \(2, 3\)"),
    ("optimizer", lambda held: held.pop("1.exp_avg"), "its names are exp_avg_sq, step"),
    ("optimizer", lambda held: [held.pop(key) for key in [*held] if key[0] == "1"], "parameters without a state"),
    ("optimizer", put("9.step", lambda _: torch.tensor(1.0)), "parameters without a state"),
    ("trainable", put("0.bias", lambda value: value.to(torch.int8)), "the trainable parameters have other names, sha"),
    ("trainable", put("0.bias", lambda value: value.half()), "the trainable parameters have other names, shapes or"),
    ("trainable", put("0.bias", lambda value: value * torch.inf), "0.bias of its trainable parameters is not finite"),
    ("average", put("0.bias", lambda value: value[:1]), "the average parameters have other names, shapes or types"),
    ("average", lambda held: held.pop("0.bias"), "the average parameters have other names, shapes or types"),
]
NUMBERS: list[tuple[Edit, str]] = [
    (put("step", lambda _: -1), "counters.step: input should be greater than or equal to 0"),
    (put("step", lambda _: 1), "it is of step 1, its folder of another"),
    (put("skipped", lambda _: -2), "counters.skipped: input should be greater than or equal to 0"),
    (put("calls", lambda _: {"x": 1}), "'x' is no kind of network call"),
    (put("calls", lambda _: {"policy": -1}), "counters.calls.policy: input should be greater"),
]


@pytest.mark.parametrize(("name", "edit", "said"), TENSORS)
def test_tensors_that_a_step_did_not_leave(tmp_path: Path, name: str, edit: Edit, said: str) -> None:
    place, held = saved(tmp_path)
    assert load_checkpoint(place, **held).step == 3
    edited(place / f"{name}.safetensors", edit)
    with pytest.raises(InputError, match=f"step-000003.*{said}"):
        load_checkpoint(place, **held)


@pytest.mark.parametrize(("edit", "said"), NUMBERS)
def test_counters_that_a_step_did_not_leave(tmp_path: Path, edit: Edit, said: str) -> None:
    """Found before a checkpoint is chosen, so that the one before it is."""
    place, _ = saved(tmp_path)
    edited(place / "state.json", edit)
    with pytest.raises(InputError, match=rf"state\.json: {said}"):
        check_checkpoint(place)


def test_adafactor_by_its_own_names(tmp_path: Path) -> None:
    place, held = saved(tmp_path, "adafactor")
    load_checkpoint(place, **held)
    edited(place / "optimizer.safetensors", put("0.exp_avg_sq_row", lambda value: value[:1]))
    with pytest.raises(InputError, match="exp_avg_sq_row is torch"):
        load_checkpoint(place, **held)


def test_a_checkpoint_of_the_version_before(tmp_path: Path) -> None:
    """It does not say which parameters never had a gradient."""
    place, held = saved(tmp_path)
    edited(place / "state.json", lambda content: content.pop("unmoved"))
    assert load_checkpoint(place, **held).step == 3
