"""Prompt files of every kind, published sets, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finepref.core.errors import InputError
from finepref.data.prompt_sets import PUBLISHED, load_prompt_set
from finepref.formats.prompts import PromptSet, as_prompt_set, read_prompts

TEXTS = ("a red dog", 'say "hi", <b>you</b>', "naïve café\ttab")


def _write(path: Path, kind: str) -> Path:
    path = path / f"set.{kind}"
    if kind == "txt":
        path.write_text("\n".join(t.replace("\t", " ") for t in TEXTS) + "\n\n", encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps([{"prompt": t, "extra": 1} for t in TEXTS]), encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"Prompt": t}) + "\n" for t in TEXTS), encoding="utf-8")
    elif kind == "csv":
        path.write_text("id,caption\n" + "".join(f'1,"{t.replace(chr(34), chr(34) * 2)}"\n' for t in TEXTS), "utf-8")
    elif kind == "tsv":
        rows = "".join(f'"{t.replace(chr(34), chr(34) * 2)}"\tx\n' for t in TEXTS)
        path.write_text("Prompt\tStyle\n" + rows, encoding="utf-8")
    else:
        pq.write_table(pa.table({"caption": list(TEXTS), "blob": [b"x"] * 3}), path)
    return path


@pytest.mark.parametrize("kind", ["txt", "json", "jsonl", "csv", "tsv", "parquet"])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path: Path, kind: str) -> None:
    found = read_prompts(_write(tmp_path, kind))
    expected = tuple(t.replace("\t", " ") for t in TEXTS) if kind == "txt" else TEXTS
    assert found.prompts == expected
    assert found.name == "set"
    assert found.tags == ({"style": ("x", "x", "x")} if kind == "tsv" else {})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", '["x", 3]', "neither a text nor an object"),
        ("a.json", "[1]", "neither a text nor an object"),
        ("a.json", '[{"prompt": 3}]', "no text but int 3"),
        ("a.json", "[]", "no prompt"),
        ("a.jsonl", '{"prompt": "x"}\n{"pro', "line 2"),
        ("a.csv", "id,words\n1,x\n", "no column of prompts"),
        ("a.txt", "\n\n", "no prompt"),
        ("a.docx", "x", "not a prompt file"),
        ("a.parquet", "x", "not a readable parquet file"),
    ],
)
def test_bad_files_are_refused_with_their_place(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)


def test_missing_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="not utf-8"):
        read_prompts(tmp_path / "latin.txt")


def test_a_set_keeps_duplicates_by_row_and_is_cut_with_its_tags() -> None:
    found = PromptSet("s", ("x", "y", "x"), {"style": ("a", "", "b")})
    assert len(found) == 3
    assert found.tags_of(0) == {"style": "a"}
    assert found.tags_of(1) == {}
    assert found.head(2) == PromptSet("s", ("x", "y"), {"style": ("a", "")})
    assert found.head(None) is found
    assert found.sha256 != found.head(2).sha256
    assert as_prompt_set(found) is found
    assert as_prompt_set(["x"], "n") == PromptSet("n", ("x",))


def test_sets_that_do_not_hold_together_are_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        PromptSet("s", ())
    with pytest.raises(InputError, match="1 values of style for 2"):
        PromptSet("s", ("x", "y"), {"style": ("a",)})


def test_a_file_under_a_published_name_must_hold_the_published_prompts(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a dog\n", encoding="utf-8")
    with pytest.raises(InputError, match="not the published hpsv2"):
        load_prompt_set(f"hpsv2={path}")
    assert load_prompt_set(str(path)).prompts == ("a dog",)
    with pytest.raises(InputError, match="did you mean 'hpsv2'"):
        load_prompt_set("hpsv3")
    with pytest.raises(InputError, match="did you mean 'papv2'"):
        load_prompt_set(f"pap={path}")


def test_the_hub_is_asked_for_the_files_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def download(repository, name, *, repo_type, revision):
        asked.append((repository, name, repo_type, revision))
        path = tmp_path / f"{len(asked)}.json"
        path.write_text(json.dumps([f"prompt of {name}"]), encoding="utf-8")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(InputError, match="these 4 prompts are not the published hpsv2"):
        load_prompt_set("hpsv2")
    about = PUBLISHED["hpsv2"]
    assert asked == [(about.repository, name, "dataset", about.revision) for name in about.files]


def test_without_the_hub_the_error_says_what_to_give() -> None:
    with pytest.raises(InputError, match="--prompts partiprompts=FILE"):
        load_prompt_set("partiprompts")


@pytest.mark.parametrize(
    ("name", "file", "row", "tags"),
    [
        ("papv2", "papv2.json", 0, {}),
        ("hpsv2", "hpsv2.json", 1600, {"style": "paintings"}),
        ("partiprompts", "partiprompts.json", 0, {"category": "Abstract", "challenge": "Basic"}),
        ("partiprompts", "PartiPrompts.tsv", 0, {"category": "Abstract", "challenge": "Basic"}),
    ],
)
def test_published_sets_from_their_files(shared: Path, name: str, file: str, row: int, tags: dict) -> None:
    found = load_prompt_set(f"{name}={shared / 'prompts' / file}")
    assert len(found) == PUBLISHED[name].rows
    assert found.tags_of(row) == tags


def test_shipped_categories_are_those_of_the_published_table(shared: Path) -> None:
    table = read_prompts(shared / "prompts" / "PartiPrompts.tsv")
    assert load_prompt_set(f"partiprompts={shared / 'prompts' / 'partiprompts.json'}").tags == table.tags
