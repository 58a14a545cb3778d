"""Tables and manifests name regular files below one folder, and nothing else of the person's is read or copied."""

from __future__ import annotations

import csv
import os
import socket
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evaluation_folder import make_folder
from finepref.cli.main import build
from finepref.core.errors import InputError
from finepref.core.regular import MAX_BYTES, read_regular
from finepref.data.convert import convert
from finepref.data.inspect import inspect
from finepref.data.latents import LatentCache
from finepref.evaluate.score import score
from finepref.formats.layers import stack
from finepref.formats.manifest import read_manifest, read_rows, write_rows
from finepref.formats.preferences import read_pair_ids, read_preferences
from finepref.formats.reading import Reading
from finepref.plan.methods import commands
from finepref.report.thumbnails import data_uri
from finepref.train.config import load_config
from finepref.train.opened import make_cache
from finepref.train.processes import launched
from picture_files import drawn, encode

SECRET = b"root:x:0:0:the person's own words"


def table(folder: Path, *names: str) -> Path:
    """metadata.csv with a.png against each name; a.png is there, secret.txt and secret.png lie one level above."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(encode(drawn()))
    (folder.parent / "secret.txt").write_bytes(SECRET)
    (folder.parent / "secret.png").write_bytes(encode(drawn(seed=1)))
    with (folder / "metadata.csv").open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(("chosen_file_name", "rejected_file_name", "prompt"))
        rows.writerows(("a.png", name, f"prompt {number}") for number, name in enumerate(names))
    return folder / "metadata.csv"


def fill(folder: Path) -> dict[str, str]:
    """Files that may not be read, by name, and what is said of each."""
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "out.png").symlink_to(folder.parent / "secret.png")
    (folder / "way").symlink_to(folder.parent)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "note.png").write_bytes(SECRET)
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket is limited to about 100 characters
        try:
            server.bind("socket.png")
        finally:
            os.chdir(here)
    with (folder / "large.png").open("wb") as handle:
        handle.truncate(MAX_BYTES + 1)
    outside = "the image lies outside"
    return {
        "../secret.png": outside, "../secret.txt": outside, str(folder.parent / "secret.png"): outside,
        "/etc/passwd": outside, "out.png": outside, "way/secret.png": outside, "device.png": outside,
        "sub/../../secret.png": outside, "/dev/zero": outside, "pipe.png": "a named pipe, not an image file",
        "folder.png": "a folder, not an image file", "socket.png": "a socket, not an image file",
        "circle.png": "image cannot be read", "none.png": "image cannot be read (No such file or directory)",
        "https://example.org/a.png": "an address on the net, which is never fetched",
        "a" * 300 + ".png": "image cannot be read (File name too long)",
        "large.png": f"{MAX_BYTES + 1} bytes are too many for an image", "note.png": "text, not a picture",
    }  # fmt: skip


def test_what_a_table_may_not_name_is_left_out_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    refused = fill(tmp_path / "data")
    data = table(tmp_path / "data", "a.png", *refused, str(tmp_path / "data" / "a.png"))
    report = inspect(data)
    assert [problem.row for problem in report.problems] == list(range(1, len(refused) + 1))
    for problem, (name, reason) in zip(report.problems, refused.items(), strict=True):
        assert reason in problem.reason, name
    assert convert(data, tmp_path / "out.parquet") == (2, len(refused))
    written = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert {row[side] for row in written for side in ("image_0", "image_1")} == {encode(drawn())}
    reasons = (tmp_path / "out.parquet.quarantine.jsonl").read_text().splitlines()
    assert len(reasons) == len(refused)
    for line, reason in zip(reasons, refused.values(), strict=True):
        assert reason in line


@pytest.mark.parametrize(("name", "reason"), [("/dev/zero", "a device"), ("/", "a folder"), ("a\0b", "null")])
def test_what_a_program_names_is_a_regular_file_too(name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_regular(Path(name), root=None)


def test_links_inside_the_folder_and_snapshots_of_the_hub_are_read(tmp_path: Path) -> None:
    """A data set in the hub's cache is a folder of links to `blobs/` two levels above, its own; nothing else is."""
    hub = tmp_path / "datasets--owner--name"
    shot, blobs = hub / "snapshots" / "0a1b", hub / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "1234").write_bytes(encode(drawn(seed=2)))
    (hub / "refs").write_bytes(encode(drawn(seed=3)))
    data = table(shot, "blob.png", "link.png", "refs.png", "../../blobs/1234")
    (shot / "blob.png").symlink_to(Path("../../blobs/1234"))
    (shot / "link.png").symlink_to("a.png")
    (shot / "refs.png").symlink_to(hub / "refs")
    report = inspect(data)
    assert [(problem.row, "lies outside" in problem.reason) for problem in report.problems] == [(2, True), (3, True)]
    hub.rename(tmp_path / "mine")  # a person's folders of these names are no cache of the hub
    report = inspect(tmp_path / "mine" / "snapshots" / "0a1b" / data.name)
    assert [problem.row for problem in report.problems if "lies outside" in problem.reason] == [0, 2, 3]


def test_a_caption_is_a_file_of_its_folder(tmp_path: Path) -> None:
    """A link out of the folder, a pipe and a folder are no captions; a link within is one."""
    for side in ("w", "l"):
        (tmp_path / "data" / side).mkdir(parents=True)
        (tmp_path / "data" / side / "a.png").write_bytes(encode(drawn()))
    (tmp_path / "secret").write_text("password")
    (tmp_path / "data" / "about.md").write_text("a cat")
    note = tmp_path / "data" / "w" / "a.txt"
    note.symlink_to("../about.md")
    assert [pair.prompt for pair in read_preferences(tmp_path / "data")] == ["a cat"]
    for make, reason in (
        (lambda: note.symlink_to("../../secret"), "the caption lies outside"),
        (lambda: os.mkfifo(note), "a named pipe, not a caption file"),
        (lambda: note.symlink_to("nowhere"), "a link that leads nowhere"),
    ):
        note.unlink()
        make()
        with pytest.raises(InputError, match=reason):
            list(read_preferences(tmp_path / "data"))


def test_rows_in_memory_name_files_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "data", "a.png")
    monkeypatch.chdir(tmp_path / "data")
    rows = [{"prompt": "p", "chosen": "a.png", "rejected": str(tmp_path / "secret.png")}]
    rows += [{"prompt": "p", "chosen": Path("../secret.png"), "rejected": Path("a.png")}]
    assert all(image.read() for each in read_preferences(rows) for image in (each.image_0, each.image_1))
    (bounded, _) = read_preferences(rows, root=tmp_path / "data")
    assert bounded.image_0.read() == encode(drawn())
    with pytest.raises(InputError, match=r"lies outside .*; put it there, or name .* --images"):
        bounded.image_1.read()


def test_images_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths start at ROOT and stay below it; pair ids, which hash the images, follow."""
    data = table(tmp_path / "tables" / "mine", "b.png", "../secret.png")
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "a.png").write_bytes(encode(drawn(seed=5)))
    (root / "b.png").write_bytes(encode(drawn(seed=6)))
    (tmp_path / "secret.png").write_bytes(encode(drawn(seed=7)))
    found = inspect(data, reading=Reading(images=str(root)), full=True)
    assert (found.images, [problem.row for problem in found.problems]) == (2, [1])
    ids = [each.pair_id for each in read_preferences(data, root=root)]
    assert ids == read_pair_ids(data, reading=Reading(images=str(root)))[0] != read_pair_ids(data)[0]
    arguments = ("data", "inspect", str(data), "--images", str(root))
    build()([*arguments], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "2 distinct images" in shown
    assert "image conversions: none" in shown
    build()(["data", "convert", *arguments[2:], "--out", str(tmp_path / "out.parquet")], standalone_mode=False)
    assert "1 pairs, 1 left out" in capsys.readouterr().out
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["image_0"], row["image_1"]) == (encode(drawn(seed=5)), encode(drawn(seed=6)))


def test_images_of_a_run(tmp_path: Path) -> None:
    """`data.images` of a config: the cache reads there, its pair ids are those of `read_preferences`."""
    data = table(tmp_path / "tables" / "mine", "b.png", "b.png")
    for name in ("a.png", "b.png"):
        (tmp_path / "pictures" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "pictures" / name).write_bytes(encode(drawn(seed=len(name))))
    config = load_config("lab/arenapo", [f"data.paths=[{data}]", f"data.images={tmp_path / 'pictures'}"])
    summary = make_cache(config, tmp_path / "cache", world=launched())
    assert (summary.pairs, summary.images, summary.quarantined) == (2, 1, 0)
    ids = [each.pair_id for each in read_preferences(data, root=tmp_path / "pictures")]
    assert [*LatentCache(tmp_path / "cache").pairs] == ids
    lines = commands(stack(["lab/arenapo"]), config, layers=("lab/arenapo",))
    (line,) = (each for each in lines if each.startswith("finepref signals"))
    assert f" --images {tmp_path / 'pictures'} " in line


def test_a_manifest_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "eval"
    rows = make_folder(folder, {"set": ["a dog"]})
    (tmp_path / "secret.png").write_bytes(encode(drawn()))
    for path in ("../secret.png", str(tmp_path / "secret.png"), "images/../../secret.png"):
        write_rows(folder, [replace(rows[0], path=path), rows[1]])
        for read in (read_rows, read_manifest, lambda at: score(at, [])):
            with pytest.raises(InputError, match=r"manifest\.jsonl.* line 1: .* leaves the folder"):
                read(folder)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    write_rows(folder, [replace(rows[0], path="link.png"), rows[1]])
    leaving, own = read_rows(folder)
    assert data_uri(folder / leaving.path, root=folder) == ""
    assert data_uri(folder / own.path, root=folder).startswith("data:image/png;base64,")
    with pytest.raises(InputError, match="lies outside"):
        leaving.image(folder).read()


def test_an_empty_image(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    data = table(tmp_path / "data", "empty.png")
    (tmp_path / "data" / "empty.png").write_bytes(b"")
    (problem,) = inspect(data).problems
    assert "the image is empty (zero bytes)" in problem.reason
