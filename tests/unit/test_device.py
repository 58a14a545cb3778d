"""The device of a command, on machines that this one is not: what torch says of its accelerator decides everything."""

from __future__ import annotations

import platform
from types import SimpleNamespace

import pytest
import torch

from finepref.core import device
from finepref.plan.environment import examine
from finepref.train.processes import join_world, launched


def pretend(patch: pytest.MonkeyPatch, kind: str, **module: object) -> None:
    """A machine whose torch sees two accelerators of a kind, with these functions in torch's module of it."""
    patch.setattr(torch.accelerator, "is_available", lambda: True)
    patch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device(kind))
    patch.setattr(torch.accelerator, "device_count", lambda: 2)
    patch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(**module))


@pytest.mark.parametrize(
    ("kind", "about", "trains"),
    [
        ("cuda", {}, "cuda:1"),  # ROCm calls itself that too
        ("xpu", {"has_fp64": True}, "xpu:1"),
        ("xpu", {"has_fp64": False}, "cpu"),
        ("mps", None, "cpu"),
    ],
)
def test_the_accelerator_of_torch_is_the_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, about: dict | None, trains: str
) -> None:
    """Every process of a machine has its own; one without float64 draws and scores, and does not train."""
    told = {} if about is None else {"get_device_properties": lambda _: SimpleNamespace(**about)}
    pretend(monkeypatch, kind, **told)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.default_device() == kind
    assert launched().device == torch.device(trains)
    with join_world(1.0):
        assert ("no float64" in capsys.readouterr().err) == (trains == "cpu")


def test_without_one_it_is_the_cpu() -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    assert device.default_device() == "cpu"
    assert launched().device == torch.device("cpu")
    assert device.accelerators() == []
    assert device.device_name("cpu") == f"cpu ({platform.machine()})"
    assert 50 < device.peak_memory_mb(torch.device("cpu")) < 1e6
    device.use_device(torch.device("cpu"))
    device.free_memory()


def test_what_a_kind_can_tell_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    xpu = torch.device("xpu", 1)
    pretend(
        monkeypatch,
        "xpu",
        set_device=lambda it: asked.append(("set", it)),
        empty_cache=lambda: asked.append("emptied"),
        get_device_name=lambda it: f"Max 1550 no. {torch.device(it).index}",
        max_memory_allocated=lambda it: 3 * 2**20,
        get_device_properties=lambda _: SimpleNamespace(total_memory=48 * 2**30),
    )
    device.use_device(xpu)
    device.free_memory()
    assert asked == [("set", xpu), "emptied"]
    assert device.device_name(xpu) == "Max 1550 no. 1"
    assert device.peak_memory_mb(xpu) == 3.0
    listed = ["xpu:0 Max 1550 no. 0, 48 GiB", "xpu:1 Max 1550 no. 1, 48 GiB"]
    assert device.accelerators() == listed
    assert examine()[0]["devices"] == ["cpu", *listed]


def test_what_it_cannot_tell_is_said_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """mps has no names, no current device, and shares the memory of the process."""
    mps = torch.device("mps", 0)
    pretend(monkeypatch, "mps")
    device.use_device(mps)
    device.free_memory()
    assert device.device_name(mps) == f"mps ({platform.machine()})"
    assert device.peak_memory_mb(mps) > 50
    assert device.accelerators()[0] == f"mps:0 mps ({platform.machine()})"
