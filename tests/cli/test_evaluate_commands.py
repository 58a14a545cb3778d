"""generate, score, compare and report as commands, on the lab's models; refusals leave nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluation_folder import Table, make_folder
from finepref.evaluate.score import score


def test_the_chain_from_models_to_report(finepref, tmp_path: Path) -> None:
    folder = tmp_path / "eval"
    words = ["generate", "--model", "base=lab", "--model", "early=lab:early", "--prompts", "lab-eval", "--limit", 3]
    options = ["--seeds", "0,1", "--steps", 2, "--guidance", 2, "--out", folder]
    assert finepref(*words, *options)[:2] == (0, f"{folder}/manifest.jsonl\n")
    manifest = (folder / "manifest.jsonl").read_text()
    code, _, err = finepref(*words, *options)
    assert (code, manifest) == (0, (folder / "manifest.jsonl").read_text())
    assert "all 6 images are there" in err

    assert finepref("score", folder, "--scorer", "lab-true")[0] == 0
    code, out, _ = finepref("compare", folder, "--baseline", "early")
    assert code == 0
    assert "lab-true" in out
    code, out, _ = finepref("compare", folder, "--baseline", "early", "--json")
    found = json.loads(out)
    assert [(row["n"], row["prompts"]) for row in found["pairs"]] == [(6, 3)]
    assert {row["model"] for row in found["models"]} == {"base", "early"}

    page = tmp_path / "out" / "report.html"
    assert finepref("report", tmp_path, "--out", page)[:2] == (0, f"{page}\n")
    html, text = page.read_text(encoding="utf-8"), page.with_suffix(".md").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert html.count("data:image/png") == 18  # 3 columns x 2 models in the strip, 12 in the gallery
    assert "| lab\\-true" in text or "| lab-true" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "--model", "base", "--prompts", "lab-eval"], "'base' is not NAME=PATH"),
        (["generate", "--model", "a=lab"], "no prompts"),
        (["generate", "--model", "a=lab", "--prompts", "lab-evil"], "lab-eval"),
        (["generate", "--model", "a=lab", "--prompts", "hpsv"], "did you mean 'hpsv2'"),
        (["generate", "--model", "a=lab:late", "--prompts", "lab-eval", "--limit", "1"], "lab:late"),
        (["generate", "--model", "a=lab", "--prompts", "lab-eval", "--seeds", "x"], "not a list of integers"),
        (["generate", "--model", "a=lab", "--prompts", "lab-eval", "--size", "big"], "not a size"),
        (["generate", "--model", "a=lab", "--protocol", "sdpo-2025", "--steps", "5"], "--steps: the protocol"),
        (["generate", "--model", "a=lab", "--protocol", "sdpo"], "did you mean 'sdpo-2025'"),
        (["generate", "--model", "a=lab", "--protocol", "sdpo-2025", "--prompts", "lab-eval"], "no prompt set of"),
        (["generate", "--model", "a=lab", "--prompts", "lab-eval", "--control-scale", "1"], "no effect"),
        (["generate", "--model", "a=lab", "--prompts", "lab-eval", "--controlnet", "x"], "needs its maps"),
        (["generate", "--model", "a=lab", "--prompts", "lab-eval", "--refiner-start", ".5"], "no effect"),
        (["generate", "--model", "a=no/such", "--prompts", "lab-eval", "--precision", "fp8"], "no, bf16, fp16"),
        (["generate", "--model", "a=no/such", "--prompts", "lab-eval", "--offload"], "on the CPU anyway"),
    ],
)
def test_bad_words_to_generate_are_one_sentence(finepref, tmp_path: Path, words: list[str], said: str) -> None:
    code, out, err = finepref(*words, "--out", tmp_path / "x")
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "x").exists()


def test_precision_is_in_the_manifest_and_refused_by_the_lab(finepref, tmp_path: Path) -> None:
    folder = tmp_path / "eval"
    words = ["generate", "--model", "base=lab", "--prompts", "lab-eval", "--limit", 1, "--steps", 1, "--out", folder]
    assert finepref(*words, "--precision", "bf16")[0] == 0
    assert json.loads((folder / "manifest.json").read_text())["sampling"]["base/lab-eval"]["precision"] == "bf16"
    code, _, err = finepref(*words)
    assert (code, "other weights, settings or prompts" in err) == (2, True)
    code, _, err = finepref("score", folder, "--scorer", "lab-true", "--precision", "bf16")
    assert (code, "lab-true has one precision" in err) == (2, True)
    assert not (folder / "scores.parquet").exists()


def test_bad_words_to_score_and_compare(finepref, tmp_path: Path) -> None:
    rows = make_folder(tmp_path / "e", {"set": ["a", "b"]})
    assert finepref("score", tmp_path / "e")[0] == 2
    code, _, err = finepref("score", tmp_path / "e", "--scorer", "lab-truth")
    assert (code, "did you mean 'lab-true'" in err) == (2, True)
    code, _, err = finepref("score", tmp_path / "none", "--scorer", "lab-true")
    assert (code, "finepref generate" in err) == (2, True)
    assert finepref("score", tmp_path / "e", "--scorer", "lab-true", "--out", tmp_path / "r.parquet")[0] == 2
    code, _, err = finepref("compare", tmp_path / "e", "--baseline", "base")
    assert (code, "scores.parquet" in err) == (2, True)
    score(tmp_path / "e", [Table(rows, lambda row: 1.0)])
    code, _, err = finepref("compare", tmp_path / "e", "--baseline", "bse")
    assert (code, "did you mean 'base'" in err) == (2, True)
    assert finepref("compare", tmp_path / "e")[0] == 2
    (tmp_path / "e" / rows[0].path).unlink()
    code, out, err = finepref("report", tmp_path / "e", "--out", tmp_path / "part.html")
    assert (code, out.strip()) == (0, str(tmp_path / "part.html"))
    assert err.splitlines()[-1] == "e: Images missing: 1 of 4 (1 of base)."
    code, _, err = finepref("report", tmp_path / "nothing", "--out", tmp_path / "r.html")
    assert (code, "no such folder" in err) == (2, True)
    assert not (tmp_path / "r.html").exists()


def test_rewards_of_a_preference_data_set(finepref, tmp_path: Path) -> None:
    pixels = []
    for colour in ((230, 40, 40), (20, 150, 60), (250, 220, 40)):
        path = tmp_path / "one.png"
        Image.new("RGB", (32, 32), colour).save(path)
        pixels.append(path.read_bytes())
    pairs = pa.table(
        {
            "caption": ["a red circle on a black background"] * 3,
            "jpg_0": [pixels[0], pixels[1], b"broken"],
            "jpg_1": [pixels[1], pixels[2], pixels[0]],
            "label_0": [1.0, 0.5, 0.0],
            "label_1": [0.0, 0.5, 1.0],
            "ranking_id": [11, 12, 13],
        }
    )
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    out = tmp_path / "rewards.parquet"
    code, printed, err = finepref("score", tmp_path / "pairs.parquet", "--scorer", "lab-true", "--out", out)
    assert (code, printed) == (0, f"{out}\n")
    assert "1 of 6 scores are missing" in err
    found = pq.read_table(out).to_pylist()
    assert [(row["pair_id"], row["side"]) for row in found] == [(p, s) for p in ("11", "12", "13") for s in (0, 1)]
    assert found[1]["value"] == found[2]["value"]  # one image of one prompt in two pairs
    assert found[4]["reason"].startswith("not a readable image")
    words = ("score", tmp_path / "pairs.parquet", "--scorer", "lab-true", "--out", tmp_path / "s.parquet")
    for shard, said in (("1/2", ""), ("0/2", f"{tmp_path / 's.parquet'}\n")):
        code, printed, err = finepref(*words, "--shard", shard)
        assert (code, printed, "next: " in err) == (0, said, bool(said))  # only of a file that is there
    assert len(pq.read_table(tmp_path / "s.parquet")) == 6
    assert finepref("score", tmp_path / "pairs.parquet", "--scorer", "lab-true", "--out", out, "--shard", "٠/2")[0] == 2


def test_printed_win_rates(finepref, tmp_path: Path) -> None:
    path = tmp_path / "printed.csv"
    path.write_text(
        "comparison,metric,prompts,n,win_rate\nx over y,CLIP,hpsv2,3200,50.5\nx over y,Aes,hpsv2,3200,47.6\n"
    )
    code, out, _ = finepref("compare", "--from-counts", path)
    assert code == 0
    assert [line.split("  ")[-1].strip() for line in out.splitlines()[1:]] == ["no evidence", "loss"]
    code, out, _ = finepref("compare", "--from-counts", path, "--json", "--out", tmp_path / "c.json")
    assert json.loads(out) == json.loads((tmp_path / "c.json").read_text())
    assert finepref("compare", tmp_path, "--from-counts", path)[0] == 2
    assert finepref("compare", "--from-counts", tmp_path / "none.csv")[0] == 2
