"""`finepref config`: every option is described and says where its value comes from; the commands of a run are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finepref.cli.config import command
from finepref.train.config import RunConfig, load_config

NAME = "sd15/hpdv3/smpo_official"


def test_every_option_has_its_words_value_and_origin(tmp_path: Path) -> None:
    """As JSON, through the command line: layers of one's own, an override, options of the chosen rows, commands."""
    (tmp_path / "mine.yaml").write_text("train: {seed: 5}  # my birthday\n")
    words = ["config", "-c", NAME, "-c", "cpu", "-c", "mine.yaml", "train.max_steps=7", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "finepref", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    content = json.loads(done.stdout)
    options = {option["key"]: option for option in content["options"]}
    assert all(option["description"] for option in options.values())
    listed = {key.partition(".")[0] for key in options}
    assert listed == set(RunConfig.model_fields)
    assert {"objective.beta", "trajectory.renoise", "lora.rank"} <= set(options)
    for key, wanted in {
        "train.max_steps": (7, "command line", ""),
        "train.seed": (5, "mine.yaml", "my birthday"),
        "train.micro_batch": (
            1,
            "card/cpu",
            "our choice, for memory; it changes no result but of batch-dependent objectives",
        ),
        "trajectory.steps": (5, "method/smpo_official", "SmPO-Diffusion's SD1.5 launcher"),
        "objective.beta": (2000, "method/smpo", "SmPO-Diffusion launcher"),
        "data.format": ("hpdv3", "data/hpdv3", "the data set's card"),
        "train.ema_decay": (None, "default", ""),
    }.items():
        assert tuple(options[key][word] for word in ("value", "from", "source")) == wanted
    assert content["commands"][-1].endswith(f"train {' '.join(words[1:-1])} --out runs/sd15-hpdv3-smpo_official")
    assert any("images.tar.gz" in note for note in content["notes"])


def test_text_and_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """Text has what JSON has; the schema knows every section and the options of every row; no layer, the defaults."""
    command([NAME], None, as_json=False, schema=False)
    shown = capsys.readouterr().out
    assert "trajectory.steps = 5  # method/smpo_official: SmPO-Diffusion's SD1.5 launcher\n" in shown
    assert "Notes\n" in shown
    assert f"finepref cache -c {NAME}\n" in shown
    command([], None, as_json=True, schema=False)
    defaults = json.loads(capsys.readouterr().out)["options"]
    assert {option["from"] for option in defaults} == {"default", "nowhere, name it"}
    command([], None, as_json=False, schema=True)
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    named = [row["properties"]["name"]["const"] for row in schema["$defs"]["ObjectiveSection"]["anyOf"]]
    assert load_config(NAME).objective.name in named
