"""A small data set in the form of K-Sort Eval's, and a judge whose taste is known."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LEADERS = {"A": (28.0, 0.8), "B": (26.0, 0.78), "C": (24.0, 0.8), "LCM-v1.5": (22.0, 0.79)}


def write_data(folder: Path, count: int = 6) -> Path:
    """A data set in the published form. The left half of image k of a rival is grey level 40 k."""
    meta = folder / "Image_meta"
    meta.mkdir(parents=True)
    rows = [{"\U0001f916 Model": m, "⭐ Score (μ/σ)": f"{mu - 3 * s:.2f} ({mu}/{s})"} for m, (mu, s) in LEADERS.items()]
    (meta / "Arena-Leaderboard-Image.json").write_text(json.dumps({"sorted_score_list": rows}))
    names = [f"inst{number:03d}" for number in range(count)]
    np.save(meta / "subfolders.npy", np.array(names))
    np.save(meta / "avg_capacitys.npy", 20.0 + np.arange(4 * count).reshape(count, 4) / 4)
    np.save(meta / "total_overlaps.npy", np.linspace(0, 1, count))
    for number, name in enumerate(names):
        place = folder / "Image" / name
        place.mkdir(parents=True)
        record = {
            "prompt": [f"prompt {number}"],
            "img_rank": [0, 1, 2, 3],
            "models_name": ["x_A", "y_B", "z_C", "w_LCM"],
        }
        (place / "result.json").write_text(json.dumps(record))
        for image in range(4):
            Image.new("RGB", (16, 16), (200 - 40 * image, 0, 0)).save(place / f"{image}.jpg", quality=95)
    return folder


def brightest_first(body: dict[str, Any], number: int) -> str:
    """A judge that ranks by red level: agrees with the people of `write_data`."""
    content = body["messages"][0]["content"]
    shown = [part["image_url"]["url"].split(",")[1] for part in content if part["type"] == "image_url"]
    labels = [part["text"] for part in content if part["type"] == "text"][1:]
    assert labels == [f"Image {place}:" for place in range(1, 6)]
    levels = [Image.open(io.BytesIO(base64.b64decode(data))).getpixel((3, 3))[0] for data in shown]
    order = sorted(range(5), key=lambda place: -levels[place])
    return ", ".join(f"Image {place + 1}" for place in order)
