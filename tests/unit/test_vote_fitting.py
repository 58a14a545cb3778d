"""Pictures of several sizes: voters see them at one size, the study keeps them as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finepref.collect.fitting import shown_file
from finepref.collect.founding import StudyOptions, found_study
from finepref.formats import answers as kept
from finepref.formats.collection import PICTURES


def study(place: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    for name, size in sizes.items():
        (place / name).mkdir()
        pixels = np.random.default_rng(len(name)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / name / "one.png")
    (place / "study").mkdir()
    found_study(place / "study", [f"{name}={place / name}" for name in sizes], StudyOptions())
    return place / "study"


def test_smaller_ones_are_shown_enlarged_and_kept_as_they_are(tmp_path: Path) -> None:
    sizes = {"a": (16, 24), "bb": (32, 48), "ccc": (30, 45)}
    folder = study(tmp_path, sizes)
    with kept.reading_votes(folder / kept.VOTES) as connection:
        pictures = kept.pictures_of(connection)
    for picture, (name, size) in zip(pictures, sizes.items(), strict=True):
        assert (picture.width, picture.height) == size
        source = np.asarray(Image.open(tmp_path / name / "one.png"))
        assert np.array_equal(np.asarray(Image.open(folder / PICTURES / picture.name)), source)
        shown = Image.open(shown_file(folder, picture))
        wanted = Image.fromarray(source).resize((32, 48), Image.Resampling.LANCZOS)
        assert np.array_equal(np.asarray(shown), np.asarray(wanted))
    assert shown_file(folder, pictures[1]).name == pictures[1].name


@pytest.mark.parametrize(("other", "told"), [((24, 16), True), ((16, 16), False)])
def test_several_shapes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: tuple[int, int], told: bool
) -> None:
    folder = study(tmp_path, {"a": (16, 16), "bb": other})
    assert ("several shapes" in capsys.readouterr().err) == told
    assert not list((folder / PICTURES).glob("*-shown.png"))
