"""Every preference format to the same record; ids; refusals that name the place and the remedy."""

from __future__ import annotations

import csv
import hashlib
import importlib.machinery
import io
import json
import math
import socket
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from finepref.core.errors import InputError
from finepref.formats.preferences import Quarantined, detect_format, read_pair_ids, read_preferences, winner_of
from finepref.formats.sources import count_rows, tables


def png(value: int, size: tuple[int, int] = (4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def pickapic_rows(count: int = 6) -> list[dict]:
    labels = [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    return [
        {
            "are_different": True,
            "best_image_uid": f"u{i}",
            "caption": f"prompt {i % 2}",
            "has_label": True,
            "image_0_uid": f"u{i}",
            "image_1_uid": f"v{i}",
            "jpg_0": png(i),
            "jpg_1": png(100 + i),
            "label_0": labels[i % 3][0],
            "label_1": labels[i % 3][1],
            "model_0": "small",
            "model_1": "large",
            "ranking_id": 1000 + i,
            "user_id": i % 2,
        }
        for i in range(count)
    ]


def write(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def test_pickapic(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.parquet", pickapic_rows())
    assert detect_format(path) == "pickapic"
    pairs = list(read_preferences(path))
    assert [p.pair_id for p in pairs] == ["1000", "1001", "1002", "1003", "1004", "1005"]
    assert [p.label for p in pairs] == [1.0, 0.0, 0.5, 1.0, 0.0, 0.5]
    assert [winner_of(p.label) for p in pairs[:3]] == [0, 1, None]
    assert pairs[1].image_1.read() == png(101)
    assert (pairs[0].prompt, pairs[0].model_0, pairs[0].model_1, pairs[1].voter) == ("prompt 0", "small", "large", "1")
    ids, labels = read_pair_ids(path)
    assert ids == [p.pair_id for p in pairs]
    np.testing.assert_array_equal(labels, [p.label for p in pairs])


def test_pickapic_without_images_gives_the_same_ids(tmp_path: Path) -> None:
    full = write(tmp_path / "full.parquet", pickapic_rows())
    bare = [{k: v for k, v in row.items() if not k.startswith("jpg")} for row in pickapic_rows()]
    small = write(tmp_path / "bare.parquet", bare)
    assert detect_format(small) == "pickapic"
    assert read_pair_ids(small)[0] == read_pair_ids(full)[0]
    with pytest.raises(InputError, match=r"column 'jpg_0' is missing; .* it has .*caption"):
        list(read_preferences(small))


def test_hashed_ids_where_the_ranking_id_repeats(tmp_path: Path) -> None:
    """The id is a hash of (prompt, image hashes, voter, occurrence): recomputed here from that sentence."""
    rows = pickapic_rows(3)
    rows += [dict(rows[0]), {**rows[0], "user_id": 7}]
    path = write(tmp_path / "votes.parquet", rows)
    ids, _ = read_pair_ids(path)
    assert len(set(ids)) == 5

    def expected(row: dict, occurrence: int) -> str:
        images = [hashlib.sha256(row[f"jpg_{side}"]).hexdigest() for side in (0, 1)]
        text = "\x1f".join([row["caption"], *images, str(row["user_id"]), str(occurrence)])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    assert ids == [expected(r, n) for r, n in zip(rows, (1, 1, 1, 2, 1), strict=True)]


def test_ids_are_checked_over_the_whole_data_set(tmp_path: Path) -> None:
    """Two files with unique ids each, but not together."""
    one, two = pickapic_rows(2), pickapic_rows(3)[1:]
    write(tmp_path / "a.parquet", one)
    write(tmp_path / "b.parquet", two)
    alone, _ = read_pair_ids(tmp_path / "a.parquet")
    both, _ = read_pair_ids(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert alone == ["1000", "1001"]
    assert all(len(i) == 32 for i in both)
    assert len(set(both)) == 4
    assert read_pair_ids(tmp_path)[0] == both


def test_unlabelled_and_contradictory_rows(tmp_path: Path) -> None:
    rows = pickapic_rows(4)
    rows[1]["has_label"] = False
    rows[2]["label_1"] = 1.0
    rows[3]["caption"] = "  "
    path = write(tmp_path / "votes.parquet", rows)
    rejected: list[Quarantined] = []
    pairs = list(read_preferences(path, quarantine=rejected))
    assert [p.pair_id for p in pairs] == ["1000", "1001"]
    assert math.isnan(pairs[1].label)
    assert winner_of(pairs[1].label) is None
    assert [(r.row, r.pair_id) for r in rejected] == [(2, "1002"), (3, "1003")]
    assert "0.5 and label_1 1 do not add up" in rejected[0].reason
    with pytest.raises(InputError, match=r"row 2 \(pair 1002\): label_0 0\.5 and label_1 1 do not add up to 1"):
        list(read_preferences(path))
    assert len(read_pair_ids(path)[0]) == 4


def test_unknown_label_value(tmp_path: Path) -> None:
    rows = pickapic_rows(3)
    rows[2]["label_0"] = 1.7
    path = write(tmp_path / "votes.parquet", rows)
    with pytest.raises(InputError, match=r"row 2: label_0 '1\.7' is no outcome"):
        list(read_preferences(path))


def test_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{("picture" if k == "jpg_0" else k): v for k, v in row.items()} for row in pickapic_rows(2)]
    path = write(tmp_path / "votes.parquet", rows)
    with pytest.raises(InputError, match="column 'jpg_0' is missing"):
        list(read_preferences(path))
    pairs = list(read_preferences(path, columns={"jpg_0": "picture"}))
    assert pairs[1].image_0.read() == png(1)
    with pytest.raises(InputError, match="no field 'jpg0'; did you mean 'jpg_0'"):
        list(read_preferences(path, columns={"jpg0": "picture"}))
    with pytest.raises(InputError, match="column 'nowhere' is missing"):
        list(read_preferences(path, columns={"jpg_0": "nowhere"}))


def save_images(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i}.png" for i in range(count)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(png(i))
    return names


def test_hpdv3(tmp_path: Path) -> None:
    save_images(tmp_path / "images", 4)
    rows = [
        {"prompt": "p", "path1": "images/0.png", "path2": "images/1.png", "model1": "a", "model2": "b"},
        {"prompt": "q", "path1": "images/2.png", "path2": "images/3.png", "model1": "b", "model2": None},
    ]
    (tmp_path / "train.json").write_text(json.dumps(rows, indent=1))
    assert detect_format(tmp_path / "train.json") == "hpdv3"
    pairs = list(read_preferences(tmp_path / "train.json"))
    assert [(p.prompt, p.label, p.model_0, p.model_1) for p in pairs] == [("p", 1.0, "a", "b"), ("q", 1.0, "b", None)]
    assert pairs[1].image_0.read() == png(2)


def test_hpdv2_pairs_and_ranked_lists(tmp_path: Path) -> None:
    names = save_images(tmp_path, 3)
    train = [{"prompt": "p", "file_path": names[:2], "human_preference": [0, 1]}]
    test = [{"prompt": "p", "image_path": names, "rank": [1, 0, 1], "raw_annotations": []}]
    (tmp_path / "train.json").write_text(json.dumps(train))
    (tmp_path / "test.json").write_text(json.dumps(test))
    assert detect_format(tmp_path / "train.json") == detect_format(tmp_path / "test.json") == "hpdv2"
    assert [p.label for p in read_preferences(tmp_path / "train.json")] == [0.0]
    # ranks 1, 0, 1 (0 is best): pairs (0,1) (0,2) (1,2)
    assert [p.label for p in read_preferences(tmp_path / "test.json")] == [0.0, 0.5, 1.0]


def test_imagereward_groups_by_prompt(tmp_path: Path) -> None:
    names = save_images(tmp_path, 5)
    ranks = (2, 1, 2, 1, 3)
    rows = [
        {"prompt_id": "a" if i < 3 else "b", "prompt": "p", "image_path": name, "rank": rank}
        for i, (name, rank) in enumerate(zip(names, ranks, strict=True))
    ]
    path = write(tmp_path / "metadata.parquet", rows)
    assert detect_format(path) == "imagereward"
    assert [p.label for p in read_preferences(path)] == [0.0, 0.5, 1.0, 1.0]
    write(path, [rows[0], rows[3], rows[1]])
    with pytest.raises(InputError, match="prompt_id 'a' comes back"):
        list(read_preferences(path))


@pytest.mark.parametrize("kind", ["bytes", "record", "path"])
def test_chosen_rejected(tmp_path: Path, kind: str) -> None:
    save_images(tmp_path, 2)
    make = {
        "bytes": lambda i: png(i),
        "record": lambda i: {"bytes": png(i), "path": None},
        "path": lambda i: f"{i}.png",
    }[kind]
    path = write(tmp_path / "pairs.parquet", [{"prompt": "p", "chosen": make(0), "rejected": make(1)}])
    assert detect_format(path) == "chosen_rejected"
    (pair,) = read_preferences(path)
    assert (pair.image_0.read(), pair.image_1.read(), pair.label) == (png(0), png(1), 1.0)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_image_folder(tmp_path: Path, suffix: str) -> None:
    save_images(tmp_path, 2)
    row = {"chosen_file_name": "1.png", "rejected_file_name": "0.png", "prompt": "a, comma"}
    table = tmp_path / f"metadata.{suffix}"
    if suffix == "csv":
        with table.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(row))
            writer.writeheader()
            writer.writerow(row)
    elif suffix == "jsonl":
        table.write_text(json.dumps(row) + "\n")
    else:
        write(table, [row])
    assert detect_format(tmp_path) == "imagefolder"
    (pair,) = read_preferences(tmp_path)
    assert (pair.image_0.read(), pair.prompt, pair.label) == (png(1), "a, comma", 1.0)


def test_own_votes(tmp_path: Path) -> None:
    save_images(tmp_path, 2)
    head = "left,right,winner,left_image,right_image,prompt,voter\n"
    outcomes = ("left", "right", "tie", "ours", "base", "")
    lines = [f"ours,base,{outcome},0.png,1.png,p,v" for outcome in outcomes]
    (tmp_path / "votes.csv").write_text(head + "\n".join(lines) + "\n")
    assert detect_format(tmp_path / "votes.csv") == "votes"
    left_out: list[Quarantined] = []
    pairs = list(read_preferences(tmp_path / "votes.csv", quarantine=left_out))
    assert [p.label for p in pairs] == [1.0, 0.0, 0.5, 1.0, 0.0]
    assert [each.reason for each in left_out] == ["winner is missing (empty, null, nan or n/a)"]
    assert (pairs[0].model_0, pairs[0].model_1, pairs[0].voter) == ("ours", "base", "v")
    assert len({p.pair_id for p in pairs} | {left_out[0].pair_id}) == 6
    (tmp_path / "votes.csv").write_text(head + "ours,base,nobody,0.png,1.png,p,v\n")
    with pytest.raises(InputError, match=r"line 2: winner 'nobody' is no outcome.*--outcome nobody=left"):
        list(read_preferences(tmp_path / "votes.csv"))


def test_long_json_arrays_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finepref.formats.textfiles._BLOCK", 7)
    rows = [{"prompt": 'br[a]c{k}e",t' * i, "path1": "x", "path2": "y", "n": [1, {"a": None}]} for i in range(1, 9)]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    assert [line.cells for line in tables(tmp_path / "t.json")[0].lines(None)] == rows
    (tmp_path / "t.json").write_text(json.dumps(rows)[:-40])
    with pytest.raises(InputError, match="object 7: not valid JSON"):
        tables(tmp_path / "t.json")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        tables(tmp_path / "absent")
    with pytest.raises(InputError, match="no data was named"):
        tables([])
    (tmp_path / "x.bin").write_bytes(b"1")
    with pytest.raises(InputError, match=r"unknown kind of file '\.bin'"):
        tables(tmp_path / "x.bin")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match="not a readable parquet"):
        tables(tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_text("chosen,rejected,prompt\n")
    with pytest.raises(InputError, match="no usable preference"):
        list(read_preferences(tmp_path / "x.csv"))
    (tmp_path / "y.csv").write_text("alpha,beta\n1,2\n")
    with pytest.raises(InputError, match=r"no known preference format has these columns; .* alpha, beta"):
        detect_format(tmp_path / "y.csv")
    with pytest.raises(InputError, match="unknown format 'pickapick'; did you mean 'pickapic'"):
        list(read_preferences(tmp_path / "y.csv", format="pickapick"))
    (tmp_path / "z.jsonl").write_text('{"prompt": "p"\n')
    with pytest.raises(InputError, match="line 1: not valid JSON"):
        detect_format(tmp_path / "z.jsonl")
    empty = pa.Table.from_pylist(pickapic_rows(1)).slice(0, 0)
    pq.write_table(empty, tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="no usable preference"):
        list(read_preferences(tmp_path / "empty.parquet"))
    with pytest.raises(InputError, match="the data set is empty"):
        read_pair_ids(tmp_path / "empty.parquet")


def test_a_missing_image_still_has_an_id(tmp_path: Path) -> None:
    row = {"chosen_file_name": "gone.png", "rejected_file_name": "gone2.png", "prompt": "p"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    ids, labels = read_pair_ids(tmp_path)
    assert len(ids) == 1
    assert labels.tolist() == [1.0]
    (pair,) = read_preferences(tmp_path)
    assert pair.pair_id == ids[0]
    with pytest.raises(InputError, match="image cannot be read"):
        pair.image_0.read()


def test_twin_folders(tmp_path: Path) -> None:
    """The two-folder layout of kohya's preference proposal: w/ and l/ with equal names, captions beside the winner."""
    save_images(tmp_path / "w", 2)
    for i in range(2):
        (tmp_path / "w" / f"{i}.txt").write_text(f"caption {i}\n")
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "0.webp").write_bytes(png(50))
    (tmp_path / "l" / "1.png").write_bytes(png(51))
    assert detect_format(tmp_path) == "imagefolder"
    pairs = list(read_preferences(tmp_path))
    assert [p.prompt for p in pairs] == ["caption 0", "caption 1"]
    assert [p.image_1.read() for p in pairs] == [png(50), png(51)]
    (tmp_path / "l" / "1.png").unlink()
    with pytest.raises(InputError, match="no image of this name in l/"):
        list(read_preferences(tmp_path))


def test_twin_folders_of_any_spelling_and_nothing_in_silence(tmp_path: Path) -> None:
    """Of a.png, b.PNG, c.JPG only the first was read; what cannot be a pair is named, on either side."""
    names = {"w": ("a.png", "b.PNG", "c.JPG"), "l": ("a.WebP", "b.png", "c.jpeg")}
    for folder, files in names.items():
        (tmp_path / folder).mkdir()
        for i, name in enumerate(files):
            (tmp_path / folder / name).write_bytes(png(10 * i + (folder == "l")))
        (tmp_path / folder / ".hidden").write_bytes(b"")
    (tmp_path / "w" / "c.txt").write_text("the third")
    pairs = list(read_preferences(tmp_path, quarantine=(faults := [])))
    assert [(p.image_0.read(), p.image_1.read(), p.prompt) for p in pairs] == [(png(20), png(21), "the third")]
    assert [fault.row for fault in faults] == [0, 1]  # no caption
    wrong = {
        "l/d.png": r"d\.png: no image of this name in w/; give both folders equal names",
        "w/d.png": r"d\.png: no image of this name in l/",
        "w/d.doc": r"d\.doc: neither an image nor a caption; move it away; known are \.png, .*\.caption",
        "l/c.bmp": r"c\.jpeg: c\.bmp has the same name; keep one of the two",
    }
    for name, message in wrong.items():
        (tmp_path / name).write_bytes(png(1))
        with pytest.raises(InputError, match=message):
            list(read_preferences(tmp_path))
        (tmp_path / name).unlink()


def test_endings_of_tables_in_any_spelling(tmp_path: Path) -> None:
    rows = pickapic_rows(3)
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "votes.PARQUET", rows)
    assert len(list(read_preferences(tmp_path / "a"))) == count_rows([tmp_path / "a"]) == 3
    (tmp_path / "b").mkdir()
    table = "chosen\trejected\tprompt\nx.png\ty.png\tp\n"
    for name, text in (("b/metadata.TSV", table), ("c.Csv", table.replace("\t", ","))):
        (tmp_path / name).write_text(text)
    for place in ("b", "c.Csv"):
        (pair,) = read_preferences(tmp_path / place)
        assert (pair.prompt, pair.image_0.path.name, pair.image_1.path.name) == ("p", "x.png", "y.png")
    (tmp_path / "d.JSON").write_text(json.dumps([{"path1": "x.png", "path2": "y.png", "prompt": "p"}]))
    assert detect_format(tmp_path / "d.JSON") == "hpdv3"


class Streamed:
    """What the `datasets` library hands out for streaming=True, as far as the reader uses it."""

    def __init__(self, rows: list[dict], asked: list) -> None:
        self.rows, self.asked, self.features = rows, asked, dict.fromkeys(rows[0])

    def decode(self, on: bool) -> Streamed:
        self.asked.append(("decode", on))
        return self

    def select_columns(self, columns: list[str]) -> Streamed:
        self.asked.append(("columns", columns))
        return Streamed([{k: row[k] for k in columns} for row in self.rows], self.asked)

    def __iter__(self):
        return iter(self.rows)


def install_datasets(monkeypatch: pytest.MonkeyPatch) -> list:
    """A `datasets` library that streams three Pick-a-Pic rows; what it is asked for."""
    asked: list = []

    def load_dataset(name: str, *, split: str, revision: str, streaming: bool) -> Streamed:
        asked.append((name, split, revision, streaming))
        return Streamed(pickapic_rows(3), asked)

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    module.__spec__ = importlib.machinery.ModuleSpec("datasets", None)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_hub_names_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = install_datasets(monkeypatch)
    info = types.SimpleNamespace(sha="abc")
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name: info)
    pairs = list(read_preferences("owner/votes:validation"))
    assert [p.pair_id for p in pairs] == ["1000", "1001", "1002"]
    assert pairs[0].image_0.read() == png(0)
    assert asked[0] == ("owner/votes", "validation", "abc", True)
    assert ("decode", False) in asked
    assert ("columns", ["ranking_id"]) in asked
    (table,) = tables("owner/votes")
    assert table.version == "abc"
    assert read_pair_ids("owner/votes")[0] == ["1000", "1001", "1002"]
    assert not any("jpg_0" in columns for kind, columns in asked[-1:] if kind == "columns")


def test_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the hub's address: the http client's own error, which is no OSError, becomes the sentence."""
    from huggingface_hub import constants

    asked = install_datasets(monkeypatch)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(InputError, match=r"owner/votes: the hub does not hand it out \(.*refused\); .* network"):
            tables("owner/votes")
    assert asked == []


def test_hub_name_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finepref.formats.hubtable.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"owner/votes: no such file or folder; .* install finepref\[datasets\]"):
        tables("owner/votes")
