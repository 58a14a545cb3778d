"""`finepref align`: one command from pairs to a report; what it chooses, what it shows, and that it goes on."""

from __future__ import annotations

import csv
import os
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import own_pairs
from finepref.align.choice import choose
from finepref.core.errors import ConfigError, InputError
from finepref.data.inspect import DataReport
from finepref.formats.heldout import read_heldout
from finepref.formats.run import read_run

SMALL = ("train.max_steps=2", "train.pairs_per_step=4", "train.micro_batch=4", "validation.every=1")
SMALL += ("validation.draws=1", "train.lr_warmup_steps=0")


def report(**changes: object) -> DataReport:
    """Four hundred pairs, a vote each, of nobody's pictures."""
    given = {"format": "votes", "pairs": 400, "images": 800, "prompts": 300}
    found = DataReport(**(given | changes))  # type: ignore[arg-type]
    found.labels |= {"image_0": 200, "image_1": 200}
    return found


MODELS = {"a": {"shown": 500}, "b": {"shown": 300}}


@pytest.mark.parametrize(
    ("data", "scorers", "method", "kinds", "arena"),
    [
        (report(), ["pickscore"], "posterior", ("posterior",), False),
        (report(models=MODELS), ["pickscore"], "posterior", ("posterior",), True),
        (report(images=200), [], "posterior", ("posterior",), False),
        (report(shares=100), [], "dpo", ("shares",), False),
        (report(models=MODELS), [], "arenapo", ("truncated",), True),
        (report(models={"a": {"shown": 500}, "b": {"shown": 200}}), [], "dpo", (), False),
        (report(models={"a": {"shown": 800}}), [], "dpo", (), False),
        (report(), [], "dpo", (), False),
    ],
)
def test_the_signal_is_what_the_data_have(
    data: DataReport, scorers: list[str], method: str, kinds: tuple[str, ...], arena: bool
) -> None:
    """A scorer, recurring pictures, shares, names of models, or the votes alone; each with its reason."""
    found = choose(data, method="auto", signal=(), scorers=scorers)
    assert (found.method, found.kinds, found.arena) == (method, kinds, arena)
    assert found.scorers == tuple(scorers)
    assert len(found.why) > 20


@pytest.mark.parametrize(
    ("data", "asked", "said"),
    [
        (report(), {"method": "arenapo"}, "needs the models of the pictures"),
        (report(), {"signal": ("image",)}, "needs the models of the pictures"),
        (report(models=MODELS), {"method": "smpo"}, "needs a scorer"),
        (report(), {"method": "nothing"}, "unknown method"),
        (report(), {"signal": ("nothing",)}, "unknown kind of signal"),
    ],
)
def test_what_is_asked_and_cannot_be_is_told(data: DataReport, asked: dict[str, object], said: str) -> None:
    with pytest.raises((InputError, ConfigError), match=said):
        choose(data, **{"method": "auto", "signal": (), "scorers": [], **asked})  # type: ignore[arg-type]


class Told(NamedTuple):
    """What a command did."""

    stdout: str
    stderr: str


def call(finepref, *words: str, code: int = 0) -> Told:
    got, out, err = finepref(*words)
    assert got == code, err
    return Told(out, err)


def mine(folder: Path) -> Path:
    """A person's own folder: pictures of six sizes and a table with their names."""
    own_pairs.make_folder(folder, pairs=12)
    return folder


@pytest.mark.parametrize("card", ["1.52GB", "1.6GB", "24GB"])
def test_what_fits_a_card_is_words_of_the_commands(finepref, tmp_path: Path, card: str) -> None:
    """Each word of what makes a run fit is an override of its own, and the plan with them is the one that fits."""
    words = ("align", "--base", "lab", "--data", str(mine(tmp_path / "mine")), "--out", str(tmp_path / "out"))
    shown = call(finepref, *words, "--card", card, "--dry-run").stdout
    (train,) = (shlex.split(line) for line in shown.splitlines() if line.startswith("finepref train"))
    own = [word for word in train if "=" in word]
    assert ("lora.rank=8" in own) == (card == "1.52GB")
    assert bool(own) == (card != "24GB")
    assert shown.rstrip().endswith("yes")
    (drawn,) = (line for line in shown.splitlines() if line.startswith("finepref generate"))
    assert "--precision bf16" in drawn
    assert "--offload" not in drawn


def test_a_look_changes_nothing(finepref, tmp_path: Path) -> None:
    """--dry-run prints reasons and commands, each of which is a command; nothing is written."""
    data = mine(tmp_path / "mine")
    before = sorted(tmp_path.rglob("*"))
    shown = call(finepref, "align", "--base", "lab", "--data", str(data), "--out", str(tmp_path / "out"), "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
    lines = shown.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["data", "signal", "recipe", "card"]
    assert "at most 50 steps of 8 pairs at rate 3e-05, 20% of the pairs held out; under 50 pairs" in lines[2]
    assert "16 are no squares and keep their shape (data.buckets)" in lines[0]
    commands = [line.split()[1] for line in lines[4:] if line.startswith("finepref ")]
    assert commands == ["cache", "train", "generate", "report"]
    for cost in ("latent cache", "Memory of the host", "on a CPU"):
        assert cost in shown.stdout
    assert "pickscore" not in shown.stdout  # nobody asked for a scorer
    assert "without --dry-run" in shown.stderr


@pytest.mark.slow
def test_from_pictures_and_a_table(finepref, tmp_path: Path) -> None:
    """The whole way on a person's own folder, twice: the second call does nothing again; nothing of theirs changes.

    Twelve pairs show nothing: the base is left as it was, and nothing is drawn, exported or published.
    """
    data, out = mine(tmp_path / "mine"), tmp_path / "out"
    theirs = {path: path.read_bytes() for path in data.iterdir()}
    words = ["align", "--base", "lab", "--data", str(data), "--out", str(out), *SMALL]
    first = call(finepref, *words)
    for said in (
        "The model was not changed.",
        "It had 12 pairs, and runs with fewer than 50 were never measured",
        "held-out pairs as people did; a coin: 50%",
        "report: ",
    ):
        assert said in first.stdout
    assert "in diffusers: " not in first.stdout
    assert "generate: left out, since the run left the base as it was" in first.stderr
    assert not (out / "eval").exists()
    assert "<h1>The model was left as it was</h1>" in (out / "report.html").read_text()
    assert read_heldout(out / "run")
    assert read_run(out / "run").kept == 0
    held = yaml.safe_load((out / "align.yaml").read_text())["data"]
    assert held == {"paths": [str(data)], "buckets": True}
    weights = (out / "run" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = call(finepref, *words)
    assert again.stderr.count(": done before") == 3
    assert again.stdout == first.stdout
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    refused = {
        "seed (0, not 1)": [*words, "--seed", "1"], "method (": [*words, "--method", "ipo"],
        "overrides (train.max_steps=2": [*words, "train.weight_decay=0.5"],
    }  # fmt: skip
    for said, other in refused.items():
        assert said in call(finepref, *other, code=2).stderr
    written = (data / "metadata.csv").stat().st_mtime_ns
    (data / "metadata.csv").write_bytes((data / "metadata.csv").read_bytes() + b" ")
    assert "state of its data" in call(finepref, *words, code=2).stderr
    (data / "metadata.csv").write_bytes(theirs[data / "metadata.csv"])
    os.utime(data / "metadata.csv", ns=(written, written))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "align.yaml").write_text((out / "align.yaml").read_text() + "# mine\n")
    assert "align.yaml: it is not as this alignment wrote it" in call(finepref, *words, code=2).stderr
    assert "no other model to publish" in call(finepref, "publish", f"{out}/run", "--to", f"{out}-pub", code=2).stderr
    assert "did you mean" in call(finepref, "publish", str(out), "--to", f"{out}-pub", code=2).stderr
    assert (out / "run" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == weights
    assert {path: path.read_bytes() for path in data.iterdir()} == theirs


@pytest.mark.slow
def test_votes_of_the_lab(finepref, tmp_path: Path) -> None:
    """With names of models and the lab's reward: ratings, rewards, the posterior, and two judges at the end."""
    votes, out = tmp_path / "votes.parquet", tmp_path / "out"
    call(finepref, "lab", "votes", "--out", str(votes), "--count", "60", "--prompts", "8")
    words = ("align", "--base", "lab", "--data", str(votes), "--out", str(out), *SMALL, "train.stop=null")
    told = call(finepref, *words)
    assert "signal: posterior, trained by posterior" in told.stderr
    assert "lab-true: the picture after is better in" in told.stdout
    assert "lab-reward (which it learned from): the picture after is better in" in told.stdout
    record = read_run(out / "run")
    assert (record.signals.kind, record.signals.rewards) == ("posterior", ("lab-reward",))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--base", "nowhere/at/all"), "no such model"), (("--card", "H101"), "--card: unknown GPU"),
        (("--method", "arenapo"), "needs the models"), (("--scorer", "lab-rewards"), "did you mean"),
        (("data.validation_share=0", "train.stop=null"), "name some with --prompts, or hold pairs out"),
        (("train.nope=1",), "unknown key"), (("--data", "nothing.csv"), "no such file"),
        (("data.paths=[x.csv]",), "data.paths: align looks at the data and the base, and sets this itself; use --data"),
        (("train={seed: 7}",), "use --seed"), (("model.base=x",), "use --base"), (("cache.folder=x",), "use --out"),
        (("signal.file=x",), "use --signal"), (("--prompts", "no.json"), "no.json"),
        (("--method", "dpo", "--scorer", "lab-reward"), "dpo with the votes alone learns from no scorer"),
        (("--scorer", "lab-reward", "--scorer", "lab-reward"), "--scorer: a scorer is named twice"),
        (("--scorer", "lab-true"), "no training may read lab-true"),
        (("objective.reduction=nothing",), "reduction"), (("--method", "kto", "data.list_size=4"), "data.list_size"),
    ],
)  # fmt: skip
def test_refusals(finepref, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """One sentence, exit code 2, and no folder left."""
    data = mine(tmp_path / "mine")
    given = {"--base": "lab", "--data": str(data)}
    kept = [word for key, value in given.items() if key not in words for word in (key, value)]
    told = call(finepref, "align", *kept, *words, "--out", str(tmp_path / "out"), "--dry-run", code=2)
    assert said in told.stderr
    assert not (tmp_path / "out").exists()


def test_a_judge_that_cannot_be_opened_is_found_before_anything_is_made(finepref, tmp_path: Path) -> None:
    """The judges work at the end: hours of training may lie before."""
    (tmp_path / "clip").mkdir()
    words = ("align", "--base", "lab", "--data", str(mine(tmp_path / "mine")), "--out", str(tmp_path / "out"))
    told = call(finepref, *words, "--judge", f"clip@{tmp_path / 'clip'}", code=2)
    assert str(tmp_path / "clip") in told.stderr
    assert not (tmp_path / "out" / "cache").exists()


def test_a_card_that_is_not_in_this_machine(finepref, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finepref.align.alignment.default_device", lambda: "cpu")
    words = ("align", "--base", "lab", "--data", str(mine(tmp_path / "mine")), "--out", str(tmp_path / "out"))
    told = call(finepref, *words, "--card", "T4", code=2)
    assert "--card: this machine has no GPU, and T4 is the card of another one" in told.stderr
    assert not (tmp_path / "out").exists()


def test_one_prompt_and_a_model_folder_of_the_lab(finepref, tmp_path: Path) -> None:
    data = mine(tmp_path / "mine")
    model, out = tmp_path / "model", str(tmp_path / "out")
    call(finepref, "lab", "model", "--out", str(model))
    shown = call(finepref, "align", "--base", str(model), "--data", str(data), "--out", out, "--dry-run").stdout
    assert "-c lab " in shown
    assert "--steps 10 --guidance 3" in shown
    rows = list(csv.reader((data / "metadata.csv").read_text().splitlines()))
    place = rows[0].index("prompt")
    with (data / "metadata.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([rows[0], *([*row[:place], "one", *row[place + 1 :]] for row in rows[1:])])
    told = call(finepref, "align", "--base", "lab", "--data", str(data), "--out", out, "--dry-run", code=2)
    assert "all pairs have one prompt, so that none can be held out" in told.stderr


def test_nobody_decided(finepref, tmp_path: Path) -> None:
    data = mine(tmp_path / "mine")
    rows = list(csv.reader((data / "metadata.csv").read_text().splitlines()))
    with (data / "votes.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["left_image", "right_image", "prompt", "winner"])
        writer.writerows([[*row[:2], row[2], "tie"] for row in rows[1:]])
    (data / "metadata.csv").unlink()
    words = ("align", "--base", "lab", "--data", str(data / "votes.csv"), "--out", str(tmp_path / "o"))
    told = call(finepref, *words, code=2)
    assert "nobody decided one of its pairs" in told.stderr
