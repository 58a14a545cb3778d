"""Make the pictures of README and docs/ from what the product writes: screenshots in Chromium, light, at one size.

    python scripts/pictures.py --demo DIR [--crowd llmfao.csv]

DIR: what `finepref demo` left. --crowd: the 8,931 votes of the LLMFAO study (Ustalov, 2023), for docs/arena.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.web import chromium  # noqa: E402

WIDTH, HEIGHT = 1100, 1500
COLOURS = 256  # of a picture, which makes it a third as large


def main() -> None:
    """Take every picture that the given folders hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--crowd", type=Path)
    asked = parser.parse_args()
    program = chromium.find()
    if program is None:
        raise SystemExit("no Chromium on the path; install one")
    with tempfile.TemporaryDirectory() as place:
        pages = {"report": asked.demo / "report.html", "arena": asked.demo / "arena" / "arena.html"}
        if asked.crowd is not None:
            board = Path(place) / "crowd"
            subprocess.run([sys.executable, "-m", "finepref", "arena", asked.crowd, "--out", board], check=True)
            pages["arena_votes"] = board / "arena.html"
        browser = chromium.Page(program, Path(place) / "profile")
        browser.size(WIDTH, HEIGHT)
        for name, page in pages.items():
            shot, kept = Path(place) / f"{name}.png", ROOT / "docs" / "images" / f"{name}.png"
            browser.open(page.resolve())
            browser.screenshot(shot)
            Image.open(shot).convert("RGB").quantize(COLOURS).save(kept, optimize=True)
            print(f"{kept.relative_to(ROOT)}: {kept.stat().st_size / 1e3:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
