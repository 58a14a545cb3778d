"""Small studies whose pictures say which they are by their colour, and the real server of them, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from hands import until
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from finepref.collect.founding import StudyOptions, found_study
from finepref.collect.serving import listen, open_study
from finepref.collect.site import make_site

MODELS = ("amber", "birch", "cedar")
LOOKS = """[...document.querySelectorAll('.shot img')].map(image => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
  canvas.getContext('2d').drawImage(image, 0, 0, 1, 1);
  const [red, green] = canvas.getContext('2d').getImageData(0, 0, 1, 1).data;
  return [Math.round((red - 30) / 60), Math.round((green - 30) / 30)];
})"""
"""(model, prompt) of every picture that is shown, by its colour."""


def found(place: Path, *, prompts: int, size: int = 96, **options: Any) -> Path:
    """A study of pictures of one colour: red tells the model, green the prompt."""
    for at, model in enumerate(MODELS):
        for prompt in range(prompts):
            said = PngInfo()
            said.add_text("parameters", f"prompt {prompt}\nSteps: 20")
            file = place / "in" / model / f"{prompt}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (size, size), (30 + 60 * at, 30 + 30 * prompt, 128)).save(file, pnginfo=said)
    folder = place / "study"
    folder.mkdir()
    found_study(folder, [f"{model}={place / 'in' / model}" for model in MODELS], StudyOptions(**options))
    return folder


@dataclass(frozen=True)
class Site:
    """A server that runs. links: personal links of voters who are new; owner: the owner's page."""

    address: str
    port: int
    links: dict[str, str]
    owner: str


@contextmanager
def running(folder: Path, *, voters: Sequence[str] = (), port: int = 0) -> Iterator[Site]:
    """A study as `finepref collect` serves it. port: 0 for one that is free."""
    listening = listen("127.0.0.1", port)
    held: dict[str, Any] = {}

    def serve() -> None:  # the file of the votes belongs to the thread that opened it
        try:
            opened = open_study(folder, voters=voters, host="127.0.0.1", owner=None)
            site = make_site(opened.desk, local=opened.local)
            config = uvicorn.Config(site, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
            held["server"] = uvicorn.Server(config)
            held["opened"] = opened
            held["server"].run(sockets=[listening])
            opened.desk.connection.close()
        except BaseException as error:
            held["error"] = error
            raise

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    until(lambda: "error" in held or ("opened" in held and held["server"].started), "the server")
    assert "error" not in held, held
    port = listening.getsockname()[1]
    address, opened = f"http://127.0.0.1:{port}", held["opened"]
    try:
        links = {name: address + link for name, link in opened.links.items()}
        yield Site(address, port, links, address + opened.owner)
    finally:
        held["server"].should_exit = True
        thread.join(timeout=60)
        listening.close()
    assert not thread.is_alive()
