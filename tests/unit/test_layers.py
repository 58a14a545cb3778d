"""Layers of a config: order, sources, what people type, and what each refusal names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from finepref.core.errors import ConfigError
from finepref.formats.layers import stack
from finepref.train.config import load_config


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train.mixed_precision=no", "no"),
        ("data.paths=DIR", ["DIR"]),
        ("data.paths=[2026-01-01, 010, 1e4]", ["2026-01-01", "010", "1e4"]),
        ("log.trackers=tensorboard", ["tensorboard"]),
        ("validation.seeds=3", [3]),
        ("validation.prompts=no", ["no"]),
        ("train.max_steps=1e4", 10000),
        ("train.max_steps=1_000", 1000),
        ("train.learning_rate=1e-5", 1e-5),
        ("train.learning_rate=1", 1.0),
        ("train.compile=off", False),
        ("train.compile=Yes", True),
        ("train.gradient_checkpointing=no", False),
        ("train.gradient_checkpointing=selective", "selective"),
        ("model.micro_conditioning=true", "true"),
        ("model.revision=1e4", "1e4"),
        ("model.revision=0012", "0012"),
        ("model.revision=12:30", "12:30"),
        ("model.revision=null", None),
        ("model.revision=", None),
        ("data.columns.prompt=on", {"prompt": "on"}),
        ("objective.beta=1e3", 1000.0),
        ("objective.beta=.5", 0.5),
    ],
)
def test_what_people_type(typed: str, meant: object, tmp_path: Path) -> None:
    """YAML's traps are read as the person meant them, on the command line and in a file."""
    (section, key), value = typed.partition("=")[0].split(".")[:2], typed.partition("=")[2]
    (tmp_path / "mine.yaml").write_text(f"{section}:\n  {key}: {value}\n")
    configs = [load_config("lab/dpo", [typed])]
    if "columns" not in typed:
        configs.append(load_config(["lab/dpo", tmp_path / "mine.yaml"]))
    for config in configs:
        found = getattr(config, section).model_dump()[key]
        assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("layers", "overrides", "sentence"),
    [
        (["lab/dpo"], ["train.max_steps = 3"], "has blanks around its =; write train.max_steps=3"),
        (["lab/dpo"], ["train.max_steps=x"], "command line: train.max_steps = 'x' is not possible"),
        (["lab/dpo"], ["train.max_step=3"], "command line: unknown key 'train.max_step'; did you mean 'max_steps'"),
        (["lab/dpo"], ["train.learning_rate=.inf"], "command line: train.learning_rate = inf is not possible"),
        (["lab/dpo"], ["train.learning_rate=1e999"], "command line: train.learning_rate = inf is not possible"),
        (["lab/dpo"], ["signal.margin_scale=nan"], "command line: signal.margin_scale = 'nan' is not possible"),
        (["lab/dpo"], ["signal.margin_scale=.NaN"], "command line: signal.margin_scale = nan is not possible"),
        (["lab/dpo"], ["model.base.x=1"], "command line: model.base = {'x': 1} is not possible"),
        (["lab/dpo"], ["train.seed=[1"], "command line, train.seed: not valid YAML"),
        (["lab/dpo"], ["train..seed=1"], "command line: 'train..seed=1' is not of the form section.key=value"),
        (["lab/dpo", "wrong.yaml"], [], "wrong.yaml, line 3: train.max_steps = 0 is not possible"),
        (["twice.yaml"], [], "twice.yaml: train.seed stands twice"),
        (["about.yaml"], [], "about.yaml: about.sorce: Extra inputs are not permitted; did you mean 'source'"),
        (["sd15", "part.yaml"], [], "part.yaml: no base has the part 'on_sdx1'; did you mean 'sdxl'"),
        (["folder"], [], "folder: a folder, not a file; name a file"),
        (["lab/arenpo"], [], "lab/arenpo: no such config file or layer; did you mean 'lab/arenapo'"),
        (["arenapo", "sd15"], [], "method/arenapo: its values depend on the base, and no base layer stands before it"),
        (["sd15", "dspo_sdxl_brier"], [], "method/dspo_sdxl_brier: it is for sdxl, lab only"),
        (["lab/dpo", "sft"], [], "method/sft: dpo is a method layer too"),
        (["sd15", "dpo"], [], "base/sd15: cache.folder is called after the data layer, and none is named"),
        (["pickapic_v2"], [], "data/pickapic_v2: model is missing"),
    ],
)
def test_refusals_name_the_place(
    layers: list[str], overrides: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong on the command line is not blamed on a file, and the other way round."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    Path("wrong.yaml").write_text("train:\n  seed: 3\n  max_steps: 0  # too few\n")
    Path("twice.yaml").write_text("train: {seed: 3, seed: 4}\n")
    Path("part.yaml").write_text("on_sdx1: {train: {seed: 3}}\n")
    Path("about.yaml").write_text("about: {sorce: me}\n")
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        load_config(layers, overrides)


def test_a_layer_of_ones_own(tmp_path: Path) -> None:
    """A file that names data is a data layer: the cache and the signal file are called after it."""
    (tmp_path / "mine.yaml").write_text(
        "data: {paths: [votes.csv]}  # my votes\n"
        "lora:\n  rank: 4  # small,\n    # for my card\n"
        "on_sd15: {train: {seed: 7}}\n"
    )
    found = stack(["sd15", tmp_path / "mine.yaml"])
    config = load_config(["sd15", tmp_path / "mine.yaml", "arenapo"], ["lora=null", "lora.alpha=2"])
    assert (config.cache.folder, config.signal.file) == ("cache/sd15-mine", "mine-signals-paper.parquet")
    assert found.settings["data", "paths"].source == "my votes"
    assert config.lora is not None
    assert (config.lora.rank, config.lora.alpha, config.train.seed) == (8, 2, 7)
    assert config.origin("lora", "alpha") == "command line"
    assert config.origin("data", "paths") == str(tmp_path / "mine.yaml")
    assert found.settings["lora", "rank"].source == "small, for my card"


@pytest.mark.parametrize(
    ("layers", "words", "vae"),
    [
        (["sdxl", "dpo", "pickapic_v2"], [], "madebyollin/sdxl-vae-fp16-fix"),
        (["sdxl", "dpo", "pickapic_v2"], ["model.base=mine"], None),
        (["sdxl", "mapo", "pickapic_v2"], ["model.base=mine.safetensors"], None),
        (["sdxl", "dpo", "pickapic_v2"], ["model.base=mine", "model.vae=other"], "other"),
        (["sdxl", "dpo", "pickapic_v2", "mine.yaml"], [], None),
    ],
)
def test_a_base_of_ones_own_keeps_its_vae(
    layers: list[str], words: list[str], vae: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And the sentence says which one is left out."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("model: {base: mine}\n")
    assert load_config(layers, words).model.vae == vae
    assert ("The VAE of mine" in (said := capsys.readouterr().err) or "the VAE of mine" in said) == (vae is None)
