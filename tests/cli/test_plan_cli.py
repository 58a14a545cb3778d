"""`finepref plan` on a local folder: what it prints, what it refuses, and that it reads no weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

import own_pairs
import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without its weights, a user's pairs, a config."""
    folder = tmp_path_factory.mktemp("plan")
    tiny.sd15(folder / "model")
    for weights in (folder / "model").rglob("*.safetensors"):
        weights.unlink()
    own_pairs.make_folder(folder / "data", pairs=5)
    config = {
        "model": {"base": str(folder / "model")},
        "data": {"paths": [str(folder / "data")], "resolution": 32, "flip": False},
        "train": {"max_steps": 10, "pairs_per_step": 8, "micro_batch": 4},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_plan_prints_every_part(finepref, folder: Path) -> None:
    code, out, err = finepref("plan", "-c", folder / "run.yaml", "--gpu", "h200", "--price", "H200=3.5")
    assert code == 0, err
    assert "sd15, 0.79 M parameters" in out
    assert "80 draws" in out
    assert "10 images of 1.024 kB, 5 prompts" in out  # four, and the empty one
    for part in ("weights", "reference", "gradients", "optimiser", "activations", "batches", "estimate", "H200"):
        assert part in out
    assert "A100" not in out
    assert "cost" in out


def test_plan_at_80_columns(look, finepref, folder: Path) -> None:
    """No line is wider, and every word of the piped plan is there."""
    words = ("plan", "-c", folder / "run.yaml", "--gpu", "h200", "--gpu", "16GB", "--price", "H200=3.5")
    piped = finepref(*words)[1]
    code, text = look(*words)
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80 < max(map(len, piped.splitlines()))
    assert text.split() == piped.split()


def test_plan_as_json(finepref, folder: Path) -> None:
    """Every number, with the overrides applied; hours follow the work."""
    records = []
    for steps in (10, 20):
        code, out, err = finepref("plan", "-c", folder / "run.yaml", f"train.max_steps={steps}", "--json")
        assert code == 0, err
        records.append(json.loads(out))
    short, long = records
    assert long["work"]["run_flop"] == 2 * short["work"]["run_flop"]
    assert [gpu["gpu"] for gpu in short["gpus"]] == ["H200", "H100", "A100", "L40S", "RTX4090"]
    assert all(gpu["fits"] for gpu in short["gpus"])
    rate = short["gpus"][0]
    assert rate["hours"][0] == pytest.approx(short["work"]["run_flop"] / (67e12 * 0.5) / 3600)
    assert rate["days"][1] == pytest.approx(rate["hours"][1] / 24)
    assert short["counts"]["parameters"] == 792_964


def test_plan_of_a_model_in_the_hub_cache(
    finepref, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub name that the hub's own cache holds, offline: the same numbers as of the folder."""
    commit = "0" * 40
    repository = tmp_path / "models--owner--model"
    shutil.copytree(folder / "model", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words = ("plan", "-c", folder / "run.yaml", "--json")
    code, out, err = finepref(*words, "model.base=owner/model", "model.vae=owner/model")
    assert code == 0, err
    assert out == finepref(*words)[1]
    code, _, err = finepref(*words, "model.base=owner/other")
    assert code == 2
    assert "owner/other: neither a folder here nor a model the hub hands out" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gpu", "H300"], "unknown GPU 'H300'"),
        (["--price", "H200=cheap"], "is not NAME=PRICE"),
        (["--price", "H300=1"], "unknown GPU 'H300'"),
        (["model.base=nobody/nothing"], "neither a folder here nor a model the hub hands out"),
        (["train.micro_batches=3"], "did you mean 'micro_batch'"),
        (["objective={name: kto}"], "needs image labels"),
    ],
)
def test_plan_refuses_in_one_sentence(finepref, folder: Path, words: list[str], sentence: str) -> None:
    code, out, err = finepref("plan", "-c", folder / "run.yaml", *words)
    assert code == 2
    assert sentence in err
    assert out == ""
    assert err.count("\n") == 1


def test_plan_of_pictures_of_several_shapes(finepref, folder: Path) -> None:
    """The numbers are those of squares, the most that it can take, and the plan says so."""
    plain, shaped = (finepref("plan", "-c", folder / "run.yaml", *words)[1] for words in ((), ("data.buckets=true",)))
    assert "data.buckets: these are squares" in shaped
    assert [line for line in shaped.splitlines() if line in plain.splitlines()] == plain.splitlines()


def test_plan_of_this_machine(finepref, folder: Path) -> None:
    """`--gpu cpu`: its own memory, the parts and what Python takes, no hours."""
    code, out, err = finepref("plan", "-c", folder / "run.yaml", "--gpu", "cpu", "--json")
    assert code == 0, err
    plan = json.loads(out)
    (found,) = plan["gpus"]
    others = sum(value for name, value in plan["memory_gb"].items() if name != "weights")
    assert found["needed_gb"] == pytest.approx(1.26 * plan["memory_gb"]["weights"] + others + 0.6)
    assert (found["gpu"], found["hours"]) == ("cpu", None)
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert found["memory_gb"] == pytest.approx(int(memory.split()[1]) * 1024 / 1e9, rel=0.01)
    assert "On a CPU" in finepref("plan", "-c", folder / "run.yaml", "--gpu", "cpu")[1]
