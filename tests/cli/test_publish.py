"""`finepref publish`: the card's metadata, its loading code run as it stands, pictures, weights, refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from PIL import Image

import tiny
from evaluation_folder import Table, make_folder
from finepref.align.publish import publish
from finepref.core.errors import InputError
from finepref.evaluate.compare import compare
from finepref.evaluate.named_models import as_source
from finepref.evaluate.score import score
from finepref.models.load import load_adapter, load_pipeline
from finepref.report.model_card import BASES, LICENCES, check_licence
from run_record import run_record
from tiny import TRAINED, perturb, picture


def finished(folder: Path, kind: str, **changes: object) -> Path:
    """A finished run of a tiny base, its weights moved; returns the run."""
    from finepref.core.provenance import sha256_folder
    from finepref.formats.run import write_run

    base = tiny.sd15(folder / "base")
    adapter = load_adapter(base, lora=TRAINED[kind], reference=False)
    perturb(adapter)
    run = folder / "runs" / "mine"
    adapter.saving()(run)
    section = {"base": str(base)}
    lora = {"rank": 4} if kind == "lora" else None
    config = {"model": section, "data": {"paths": ["pickapic.parquet"]}, "lora": lora}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_run(run, run_record(base=str(base), base_sha256=sha256_folder(base), **changes))
    return run


def test_whose_votes(tmp_path: Path) -> None:
    """Only what is called Pick-a-Pic is said to be that."""
    run = finished(tmp_path, "lora")
    given = {"repository": None, "formats": (), "licence": "mit", "evaluation": None}
    for number, (name, said) in enumerate({"hand_picked.csv": False, "pick-a-pic/v2.parquet": True}.items()):
        config = yaml.safe_load((run / "config.yaml").read_text()) | {"data": {"paths": [name]}}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        publish(run, folder=tmp_path / str(number), **given)
        assert ("Pick-a-Pic's" in (tmp_path / str(number) / "README.md").read_text()) == said


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_card_loads_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Its python block, executed where the folder lies, gives the run's picture; its metadata are the hub's."""
    run = finished(tmp_path, kind)
    to = tmp_path / "published"
    assert publish(run, repository=None, folder=to, formats=(), licence="mit", evaluation=None) == str(to)
    card = ModelCard.load(to / "README.md")
    data = card.data.to_dict()
    assert data["license"] in LICENCES
    assert (data["library_name"], data["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert ("lora" in data["tags"]) == (kind == "lora")
    assert ModelCardData(**data).to_dict() == data
    code = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code[1], "card", "exec"), names)
    pipe = names["pipe"]
    pipe.safety_checker = None  # type: ignore[attr-defined]
    pipe.set_progress_bar_config(disable=True)  # type: ignore[attr-defined]
    wanted = picture(load_pipeline(tmp_path / "base", run))
    assert (picture(pipe) - wanted).abs().max() < 1e-4
    assert (to / "comfyui.safetensors").is_file() == (kind == "lora")
    for said in ("Pick-a-Pic's", "not measured", "mit."):
        assert said in card.text
    assert str(tmp_path) not in card.text.replace(str(tmp_path / "base"), "")


def test_licences() -> None:
    """That of a known base, one that is named, and what the hub does not know."""
    assert check_licence(None, "lab") == "apache-2.0"
    assert check_licence("mit", "nowhere") == "mit"
    assert {*BASES.values()} <= LICENCES
    with pytest.raises(InputError, match="is not known here"):
        check_licence(None, "somebody/model")
    with pytest.raises(InputError, match="did you mean 'mit'"):
        check_licence("MIT!", "lab")


def test_refusals(tmp_path: Path) -> None:
    run = finished(tmp_path, "lora")
    given = {"repository": None, "folder": tmp_path / "out", "formats": (), "licence": "mit", "evaluation": None}
    for changes, said in (
        ({"folder": None}, "nowhere to put it"), ({"formats": ("nothing",)}, "nothing"),
        ({"formats": ("merged", "comfyui")}, "stands alone"), ({"licence": "x"}, "knows no licence"),
        ({"evaluation": tmp_path / "none"}, "no such folder"), ({"licence": None}, "is not known here"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            publish(run, **{**given, **changes})
        assert not (tmp_path / "out").exists()
    sound = (run / "config.yaml").read_text()
    for text, said in (("[1", "not valid YAML"), ("- 1\n", "config.yaml")):
        (run / "config.yaml").write_text(text)
        with pytest.raises(InputError, match=said):
            publish(run, **given)
        assert not (tmp_path / "out").exists()
    (run / "config.yaml").write_text(sound)
    (run / "run.json").unlink()
    with pytest.raises(InputError, match="no finished run"):
        publish(run, **given)
    for kept, said in ((0, "no other model to publish"), (None, "it holds a publication")):
        again = finished(tmp_path / f"kept {kept}", "lora", kept=kept)
        if kept is None:
            publish(again, **given)
        with pytest.raises(InputError, match=said):
            publish(again, **given)
    publish(again, **given, overwrite=True)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "README.md").write_text("mine")
    with pytest.raises(InputError):
        publish(finished(tmp_path / "again", "lora"), **{**given, "folder": tmp_path / "theirs"})
    assert (tmp_path / "theirs" / "README.md").read_text() == "mine"


def test_results_and_pictures(tmp_path: Path) -> None:
    """Pictures and a comparison beside the run are in the card: a table of as many columns everywhere, and a sheet."""
    run = finished(tmp_path, "full")
    seen = run.parent / "eval"
    rows = make_folder(seen, {"own": [f"prompt {n}" for n in range(8)]}, models=("before", "after"))
    score(seen, [Table(rows, lambda row: row.prompt_index + (row.model == "after"))])
    compare(seen, baseline="before")
    to = tmp_path / "published"
    publish(run, repository="me/mine", folder=to, formats=(), licence="mit", evaluation=None)
    assert "not measured" in (to / "README.md").read_text()  # the pictures beside it are of another run
    with pytest.raises(InputError, match="none of its pictures is of"):
        publish(run, repository="me/mine", folder=to, formats=(), licence="mit", evaluation=seen)
    manifest = json.loads((seen / "manifest.json").read_text())
    manifest["models"]["after"]["fingerprint"] = as_source(run).fingerprint
    (seen / "manifest.json").write_text(json.dumps(manifest))
    publish(run, repository="me/mine", folder=to, formats=(), licence="mit", evaluation=None, overwrite=True)
    text = (to / "README.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| ") and "[" in line]
    assert table
    assert {line.replace("\\|", "").count("|") for line in table} == {5}
    assert "me/mine" in text
    with Image.open(to / "samples.png") as sheet:
        assert sheet.width > sheet.height / 6
    assert json.loads((to / "finepref.json").read_text())["kind"] == "published"
