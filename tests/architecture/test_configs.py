"""Every shipped config: valid, its method builds, its commands make what it reads, and it takes two steps."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
import tiny
from finepref.core.provenance import hash_config
from finepref.data.latents import LatentCache
from finepref.formats.layers import shipped_configs, stack
from finepref.formats.preferences import read_preferences
from finepref.formats.rewards import Rewards
from finepref.formats.signals import write_signals
from finepref.models.denoiser import Denoiser
from finepref.plan import methods
from finepref.signals.kinds import SIGNALS
from finepref.signals.make import signals_of
from finepref.signals.parts import SignalVotes
from finepref.train import run as run_module
from finepref.train.config import RunConfig, load_config, parse_config
from finepref.train.identity import prepare
from finepref.train.loop import optimiser_step
from finepref.train.method import make_method
from finepref.train.opened import about_base, load_adapter, make_cache
from finepref.train.optim import make_optimizer, make_scaler
from finepref.train.processes import World
from finepref.train.run import make_run
from finepref.train.state import State

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = shipped_configs()
REAL = [name for name in CONFIGS if not name.startswith("lab/")]


def test_the_names_are_there() -> None:
    """One name for every method on the lab, and on each backbone that it is for with each data set."""
    folders = {name.rpartition("/")[0] for name in CONFIGS}
    assert folders == {"lab", *(f"{b}/{d}" for b in ("sd15", "sdxl") for d in ("pickapic_v2", "hpdv3"))}
    assert len(CONFIGS) == len(set(CONFIGS)) == 183
    for method in methods.shipped():
        for data_set in ("pickapic_v2", "hpdv3"):
            assert any(f"{backbone}/{data_set}/{method.name}" in CONFIGS for backbone in ("sd15", "sdxl"))


@pytest.mark.parametrize("name", CONFIGS)
def test_valid_and_its_method_builds(name: str) -> None:
    """Validation, combination, and commands before it that make every file it reads."""
    found, config = stack([name]), load_config(name)
    make_method(config)
    commands = [shlex.split(line) for line in methods.commands(found, config, layers=[name])]
    assert {words[0] for words in commands} <= {"hf", "cat", "torchrun", "finepref"}
    *_, cache, train = commands
    assert cache == ["finepref", "cache", "-c", name]
    assert train[train.index("train") :][1:3] == ["-c", name]
    made = [words[words.index("--out") + 1] for words in commands if "--out" in words]
    for wanted in (config.signal.file, config.model.init_from):
        assert wanted is None or wanted in made, f"no stage makes {wanted}"
    assert (config.signal.file is None) == (not found.about.signal)


def test_a_name_is_a_list_of_layers() -> None:
    """One name, its parts one by one, and their values set by hand are one config; later layers win."""
    one = load_config("sd15/pickapic_v2/arenapo")
    assert one == load_config(["sd15", "pickapic_v2", "arenapo"]) == load_config(["sd15/pickapic_v2", "method/arenapo"])
    assert one.train.mixed_precision == "bf16"
    cpu = load_config(["sd15/pickapic_v2/arenapo", "cpu"], ["train.micro_batch=2"])
    assert (cpu.train.mixed_precision, cpu.cache.batch_size, cpu.train.micro_batch) == ("no", 4, 2)


def test_backbones_differ_from_data_sets_only_in_data() -> None:
    """HPDv3 runs are the Pick-a-Pic runs but for data, signal file, cache and the SFT run they start from."""
    for name in REAL:
        if "/pickapic_v2/" not in name:
            continue
        one, other = (load_config(each).as_dict() for each in (name, name.replace("pickapic_v2", "hpdv3")))
        for record in (one, other):
            for section, key in (("data", "paths"), ("data", "format"), ("cache", "folder"), ("signal", "file"),
                                 ("model", "init_from")):  # fmt: skip
                record[section].pop(key)
        assert one == other


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, pairs, their cache, and a signal file of every kind."""
    folder = tmp_path_factory.mktemp("configs")
    tiny.sd15(folder / "model")
    own_pairs.make_folder(folder / "data", pairs=6)
    config = swapped("lab/dpo", folder)
    make_cache(config, folder / "cache", world=World(rank=0, size=1, device=torch.device("cpu")))
    votes = list(read_preferences([folder / "data"]))
    draws = np.random.default_rng(0)
    table = SignalVotes(
        pair_id=tuple(vote.pair_id for vote in votes),
        label=np.array([vote.label for vote in votes]),
        model_0=tuple("abc"[i % 3] for i in range(6)),
        model_1=tuple("bca"[i % 3] for i in range(6)),
        image_0=tuple(f"image {2 * i}" for i in range(6)),
        image_1=tuple(f"image {2 * i + 1}" for i in range(6)),
    )
    from finepref import Votes, rate

    games = Votes.from_columns(
        left=list(table.model_0), right=list(table.model_1), outcome=table.label,
        left_image=list(table.image_0), right_image=list(table.image_1),
    )  # fmt: skip
    for kind, row in SIGNALS.items():
        signals = signals_of(
            table,
            [kind],
            options={"rho": 0.5} if kind == "selection" else None,
            ratings=rate(games) if "ratings" in row.needs else None,
            rewards=Rewards(draws.normal(size=6), draws.normal(size=6), "drawn", "0")
            if "rewards" in row.needs
            else None,
        )
        write_signals(folder / f"{kind}.parquet", signals, provenance={})
    ranking = signals_of(table, ["posterior"], options={"form": "margin"}, ratings=rate(games))
    write_signals(folder / "posterior-margin.parquet", ranking, provenance={})
    return folder


def swapped(name: str, folder: Path) -> RunConfig:
    """A config with the tiny model, the tiny data, and two short steps; everything else is as shipped."""
    record = load_config(name).as_dict()
    record["model"] = {"base": str(folder / "model")}
    record["data"] |= {"paths": [], "format": "auto", "resolution": 32, "flip": False}
    if name == "lab/dpo":
        record["data"]["paths"] = [str(folder / "data")]
    record["cache"] |= {"folder": str(folder / "cache"), "posterior": "mean_std", "dtype": "float16"}
    about = stack([name]).about
    kind = "-".join([*about.signal, *([str(about.options["form"])] if "form" in about.options else [])]) or "binary"
    record["signal"]["file"] = str(folder / f"{kind}.parquet")
    if record["objective"]["name"] == "plackett_luce":
        record["data"]["list_size"] = 2  # every prompt has one pair here
    record["train"] |= {"max_steps": 2, "pairs_per_step": 2, "micro_batch": 2, "mixed_precision": "no",
                        "checkpoint_every": 0, "lr_warmup_steps": 0}  # fmt: skip
    return parse_config(record, whole=name)


def groups() -> list[Any]:
    """Configs that are the same run once model and data are swapped: data sets of one backbone, and rewards of SmPO."""
    found: dict[str, list[str]] = {}
    for name in CONFIGS:
        config = swapped(name, Path("folder"))
        record = config.as_dict()
        record["data"].pop("paths")
        found.setdefault(hash_config(record), []).append(name)
    return [pytest.param(names, id=names[0]) for names in found.values()]


@pytest.fixture(scope="session")
def adapters(place: Path) -> Callable[[RunConfig, bool], Denoiser]:
    """The tiny model as an adapter, loaded once with LoRA and without, handed out with its first weights."""
    held: dict[tuple[bool, bool], tuple[Denoiser, list[torch.Tensor]]] = {}

    def get(config: RunConfig, reference: bool) -> Denoiser:
        key = config.lora is not None, reference
        if key not in held:
            made = load_adapter(config, reference=reference, device="cpu")
            held[key] = made, [parameter.detach().clone() for _, parameter in made.trainable()]
        adapter, first = held[key]
        with torch.no_grad():
            for (_, parameter), value in zip(adapter.trainable(), first, strict=True):
                parameter.copy_(value)
        adapter.train_mode(True)
        return adapter

    return get


@pytest.mark.parametrize("names", groups())
def test_two_steps(
    names: list[str],
    place: Path,
    adapters: Callable[[RunConfig, bool], Denoiser],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two optimiser steps on the tiny model: finite losses, a gradient, and weights that move.

    DSPO's branch B is the policy's distance from the reference, so it has no gradient while they are equal.
    """
    config = swapped(names[0], place)
    prepared = prepare(config, cache=LatentCache(place / "cache"), base=about_base(config))
    world = World(rank=0, size=1, device=torch.device("cpu"))
    monkeypatch.setattr(run_module, "load_adapter", lambda config, reference, device: adapters(config, reference))
    run = make_run(prepared, tmp_path, world=world)
    named = run.adapter.trainable()
    before = [parameter.detach().clone() for _, parameter in named]
    optimizer, scaler = make_optimizer(config.train, [p for _, p in named]), make_scaler(config.train, world.device)
    state = State(optimizer=optimizer, scaler=scaler, named=named, average=None)
    records = [optimiser_step(run, state, step) for step in range(2)]
    assert all(np.isfinite(record.means["loss"]) for record in records)
    assert state.skipped == 0
    if config.objective.name == "dspo_shift":
        assert [record.grad_norm for record in records] == pytest.approx([0, 0], abs=1e-3)
        return
    assert records[0].grad_norm > 0
    assert any((parameter != old).any() for (_, parameter), old in zip(named, before, strict=True))


NUMBER = r"-?\d+(?:\.\d+)?"
LIST = rf"({NUMBER}(?:, {NUMBER})+)"


@dataclass(frozen=True)
class PaperRow:
    """One config of a row of docs/papers.md. listed: the values that the row names. overrides: of one run each."""

    pattern: str
    listed: tuple[float, ...]
    overrides: tuple[tuple[str, ...], ...]


def rows_of_papers() -> list[Any]:
    """Every config of every row of docs/papers.md."""
    found = []
    for line in (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| ") or cells[0] in ("row", "method", "combination"):
            continue
        title = cells[0].rpartition(": ")[2]
        words = [word for text in re.findall(r"`([^`]*)`", "".join(cells[2:])) for word in text.split()]
        words = [word for word in words if re.fullmatch(r"[a-z_]+\.[a-z_]+=\S+", word)]
        listed = re.search(rf" {LIST}$", title)
        values = re.search(rf"V = {LIST}", "".join(cells[2:]))
        runs = [tuple(words)]
        if values:
            runs = [tuple(re.sub("=V$", f"={value}", word) for word in words) for value in values[1].split(", ")]
        own = tuple(map(float, listed[1].split(", "))) if listed else ()
        for name in re.findall(r"`([^`]*)`", cells[1]):
            found.append(pytest.param(PaperRow(name, own, tuple(runs)), id=f"{cells[0]} {name}"))
    return found


@pytest.mark.parametrize("row", rows_of_papers())
def test_rows_of_the_papers(row: PaperRow) -> None:
    """Every config that docs/papers.md names exists, and its overrides build."""
    pattern = row.pattern if "/" in row.pattern else f"*/{row.pattern}"
    named = [name for name in REAL if re.fullmatch(pattern.replace("*", ".+"), name)]
    assert len(named) >= (1 if "*" not in pattern else 2)
    for name in named:
        for overrides in row.overrides:
            make_method(load_config(name, overrides))


def test_rows_that_list_values_say_how_each_is_reached() -> None:
    """One override a value, in proportion to it, and the config as it ships is one of them."""
    rows = [row for (row,) in (param.values for param in rows_of_papers()) if row.listed]
    assert sum(len(row.listed) for row in rows) == 5 + 4 + 4 + 4 + 7
    for row in rows:
        assert len(row.overrides) == len(row.listed), row.pattern
        keys = {run[0].partition("=")[0] for run in row.overrides if len(run) == 1}
        assert len(keys) == 1, row.overrides
        values = [float(run[0].partition("=")[2]) for run in row.overrides]
        ratios = {value / listed for value, listed in zip(values, row.listed, strict=True) if listed}
        assert max(ratios) == pytest.approx(min(ratios))
        (key,) = keys
        for name in (name for name in REAL if re.fullmatch(row.pattern.replace("*", ".+"), name)):
            section, _, option = key.partition(".")
            config = load_config(name)
            options = make_method(config).place_options if section == "trajectory" else getattr(config, section)
            assert options.model_dump()[option] in values, f"{name} is none of the runs"


def test_the_papers_page_is_whole() -> None:
    """No real config is missing from docs/papers.md."""
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    missing = {name.rsplit("/", 1)[1] for name in REAL} - set(re.findall(r"[a-z0-9_]+", text))
    assert not missing
