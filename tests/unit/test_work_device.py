"""Each process of a machine works on a device of its own."""

from __future__ import annotations

import pytest
import torch

from finepref.core import device
from finepref.core.errors import InputError


def test_each_process_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    current = []
    monkeypatch.setattr(device, "default_device", lambda: "cuda")
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(device, "use_device", current.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert device.work_device() == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.work_device() == "cuda:1"
    assert current == [torch.device("cuda", 1)]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="there are 2; start 2 processes"):
        device.work_device()


def test_on_the_cpu_all_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "default_device", lambda: "cpu")
    monkeypatch.setenv("LOCAL_RANK", "7")
    assert device.work_device() == "cpu"
