"""What a voter's browser receives does not tell which model made a picture.

Two hundred sets over HTTP: pages, JSON, headers, addresses, and the bytes of every picture but for its pixels. A
classifier that learns from half of it names the models of the other half no better than chance; it finds a leak that is
put in. Left out are decoded pixels and lengths of pictures in bytes, which pixels decide.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.stats import binom

from finepref.collect.desk import Desk, open_desk
from finepref.collect.founding import StudyOptions, found_study
from finepref.collect.plain_choice import FewestFirst
from finepref.collect.site import make_site
from finepref.formats.answers import PictureRow
from finepref.formats.collection import read_study

HERE, MODELS, PROMPTS, SETS, HASHES, USED = "http://study.test", 2, 220, 200, 4096, 20
SIZES = ((16, 16), (24, 24))  # a model each


def make_folders(place: Path) -> list[str]:
    """Noise that is the same for all models; sizes, kinds of files, names and texts in them tell the model."""
    for model, prompt in itertools.product(range(MODELS), range(PROMPTS)):
        file = place / f"secret-{model}" / f"{prompt:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        said = PngInfo()
        said.add_text("parameters", f"prompt {prompt}\nSteps: 20, Model: secret-{model}")
        width, height = SIZES[model]
        pixels = np.random.default_rng([model, prompt]).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert("RGB" if model else "RGBA").save(file, pnginfo=said, dpi=(72 + model, 72))
    return [f"model{model}={place / f'secret-{model}'}" for model in range(MODELS)]


def open_study(place: Path) -> Desk:
    folder = place / "study"
    folder.mkdir()
    found_study(folder, make_folders(place / "in"), StudyOptions(seed=3))
    images = read_study(folder).images
    return open_desk(
        folder, lambda pictures: FewestFirst(pictures, images=images, chance=np.random.default_rng(0)), lambda: 1e6
    )


def without_pixels(png: bytes) -> bytes:
    """A PNG file without the content and the length of its pixels."""
    kept, at = png[:8], 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        kept += kind if kind == b"IDAT" else png[at : at + 12 + length]
        at += 12 + length
    return kept


def received(desk: Desk, leak: bool) -> tuple[list[list[str]], list[list[str]]]:
    """(words that came with each of the two pictures of every set, words that are about the whole set)."""
    token = desk.invite("anna")[1]

    async def vote() -> tuple[list[list[str]], list[list[str]]]:
        transport = httpx.ASGITransport(make_site(desk))
        found, whole = list[list[str]](), list[list[str]]()
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            await client.get(f"/v/{token}")
            page = (await client.get("/vote")).text
            for number in range(SETS):
                answer = await client.get("/api/sets?count=1")
                (shown,) = answer.json()["sets"]
                whole.append(words("set", {**shown, "images": "", "prompt": ""}) + headers(answer) + page.split())
                for place, address in enumerate(shown["images"]):
                    picture = await client.get(address)
                    own = [*headers(picture), *words("address", address), f"place {place}"]
                    own += chunks(without_pixels(picture.content))
                    if leak:
                        made = desk.pictures[desk.shown(desk.seats[1], shown["id"]).pictures[place]].model
                        own.append(f"x-cache: {made if number % 2 else 'none'}")
                    found.append(own)
                body = {"set": shown["id"], "revision": shown["revision"], "answers": {"overall": "tie"}}
                measured = {"milliseconds": 900, "loaded": 40, "device": "desktop", "input": "key"}
                told = await client.post("/api/answers", json={**body, **measured}, headers={"Origin": HERE})
                assert told.status_code == 200
                whole[-1] += headers(told) + words("told", told.json())
        return found, whole

    return asyncio.run(vote())


def headers(answer: httpx.Response) -> list[str]:
    return [f"{name}: {value}" for name, value in answer.headers.items() if name != "content-length"]


def words(name: str, value: Any) -> list[str]:
    """Everything in a value: names, whole values, and every three characters of a text."""
    if isinstance(value, Mapping):
        return [word for key, each in value.items() for word in words(f"{name}.{key}", each)]
    text = str(value)
    return [f"{name}={text}", *(f"{name}~{text[at : at + 3]}" for at in range(len(text) - 2))]


def chunks(content: bytes) -> list[str]:
    return [f"png {content[at : at + 4].hex()}" for at in range(len(content) - 3)]


def features(found: list[list[str]]) -> np.ndarray:
    """How often each word is there, words hashed into so many columns."""
    table = np.zeros((len(found), HASHES))
    for row, own in enumerate(found):
        for word in own:
            table[row, zlib.crc32(word.encode()) % HASHES] += 1
    return table


def named_right(table: np.ndarray, model: np.ndarray) -> int:
    """How many of the second half a ridge regression names that learned from the first half.

    It uses the words that go best with the model there.
    """
    half = len(table) // 2
    scale = table[:half].std(0)
    used = np.flatnonzero(scale > 0)
    target = 2.0 * model[:half] - 1
    known = (table[:half, used] - table[:half, used].mean(0)) / scale[used]
    best = np.argsort(-np.abs(known.T @ (target - target.mean())), kind="stable")[:USED]
    known, used = known[:, best], used[best]
    asked = (table[half:, used] - table[:half, used].mean(0)) / scale[used]
    weights = np.linalg.solve(known.T @ known + 10.0 * np.eye(len(used)), known.T @ (target - target.mean()))
    return int(((asked @ weights + target.mean() > 0) == (model[half:] == 1)).sum())


@pytest.mark.parametrize("leak", [False, True])
def test_nothing_tells_the_model(tmp_path: Path, leak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finepref.collect.site.RATE", 1e9)
    monkeypatch.setattr("finepref.collect.site.BURST", 1e9)
    desk = open_study(tmp_path)
    found, whole = received(desk, leak)
    sets = [shown for shown in _shown(desk) if shown][:SETS]
    pictures: list[PictureRow] = list(desk.pictures)
    model = np.array([pictures[number].model for shown in sets for number in shown])
    desk.connection.close()
    assert set(model) == {0, 1}
    picture_names = named_right(features(found), model)
    chance = binom(SETS, 0.5)
    if leak:
        assert chance.sf(picture_names - 1) < 1e-6
        return
    assert chance.sf(picture_names - 1) > 1e-4
    first = model[::2]  # of the set as a whole: which model stands first
    assert binom(SETS // 2, 0.5).sf(named_right(features(whole), first) - 1) > 1e-4
    everything = b" ".join(word.encode() for own in (*found, *whole) for word in own)
    assert b"secret" not in everything
    assert b"model0" not in everything
    assert {word for own in found for word in own if word.startswith("png ")} == {
        word for word in found[0] if word.startswith("png ")
    }, "the bytes of every picture but for its pixels are the same"


def _shown(desk: Desk) -> list[tuple[int, ...]]:
    from finepref.formats.answers import shown_to

    return [shown.pictures for shown in shown_to(desk.connection, 1)]
