"""A vote server for tests of the voter's page: it speaks as the real one does, and fails on demand."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image, ImageDraw

from finepref.collect.texts import best_language, texts

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
STATIC = {
    "page.css": ("finepref.report", "text/css"), "vote.css": ("finepref.collect", "text/css"),
    "ballot.js": ("finepref.report", "text/javascript"), "vote.js": ("finepref.collect", "text/javascript"),
}  # fmt: skip
OVERALL = ({"name": "overall", "text": "Which is best overall?"},)
THREE = (
    *OVERALL,
    {"name": "appeal", "text": "Which is more beautiful to look at?"},
    {"name": "text", "text": "Which shows better what the text says?"},
)
PAGES = Environment(loader=PackageLoader("finepref.collect"), autoescape=select_autoescape(), undefined=StrictUndefined)


@dataclass
class Study:
    """What the server holds, and how it fails.

    failing: what becomes of every answer that is sent, until it is None: a status; 0 drops the connection without an
    answer, -1 drops it after the answer was kept (a browser may try again by itself then). failures: statuses of the
    next answers only. missing: places of pictures that are not there. gate: closed, nothing that is sent is answered.
    late: closed, sets that were asked for are found, but not told yet.
    """

    mode: str = "pair"
    images: int = 2
    questions: Sequence[dict[str, str]] = OVERALL
    size: tuple[int, int] = (512, 512)
    of: int | None = 12
    prompts: Sequence[str] = ()
    state: str = "open"
    failing: int | None = None
    failures: list[int] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    late: threading.Event = field(default_factory=threading.Event)
    answers: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    revisions: dict[int, int] = field(default_factory=dict)
    undone: dict[int, dict[str, Any]] = field(default_factory=dict)
    given: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    address: str = ""

    def __post_init__(self) -> None:
        self.gate.set()
        self.late.set()

    def kept(self) -> dict[int, dict[str, Any]]:
        """Number of a set -> the answers that stand."""
        return {int(each["set"], 16): each["answers"] for each in self.answers if not each.get("undone")}

    def standing(self) -> dict[str, Any]:
        done = len(self.kept())
        state = "done" if self.state == "open" and self.of is not None and done >= self.of else self.state
        return {"progress": {"done": done, "of": self.of}, "state": state}

    def as_set(self, number: int) -> dict[str, Any]:
        name = f"{number:032x}"
        prompt = self.prompts[number % len(self.prompts)] if self.prompts else f"a red fox number {number} in the snow"
        return {
            "id": name, "prompt": prompt, "images": [f"/api/sets/{name}/{k}" for k in range(self.images)],
            "revision": self.revisions.get(number, 0), "mode": self.mode, "questions": list(self.questions),
            "answers": self.undone.get(number),
        }  # fmt: skip

    def sets(self, count: int) -> list[dict[str, Any]]:
        if self.state != "open":
            return []
        most = min(count, 4) if self.of is None else min(count, 4, self.of - len(self.kept()))
        while len(self.waiting) < most:
            self.waiting.append(self.given)
            self.given += 1
        return [self.as_set(number) for number in self.waiting[:most]]

    def store(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        number, revision = int(body["set"], 16), body["revision"]
        if number >= self.given:
            return 404, {"error": "no such set", "remedy": ""}
        same = [each for each in self.answers if each["set"] == body["set"] and each["revision"] == revision]
        if same and same[0]["answers"] == body["answers"]:
            return 200, {"stored": False, **self.standing()}
        if same or revision != self.revisions.get(number, 0):
            return 409, {"error": "another answer is there already", "remedy": "go on to the next set"}
        if self.state != "open":
            return 409, {"error": f"the study is {self.state}", "remedy": "ask its owner"}
        self.answers.append(body)
        self.waiting.remove(number)
        return 200, {"stored": True, **self.standing()}

    def undo(self) -> tuple[int, dict[str, Any]]:
        stand = [each for each in self.answers if not each.get("undone")]
        if not stand:
            return 409, {"error": "there is nothing to take back", "remedy": ""}
        stand[-1]["undone"] = True
        number = int(stand[-1]["set"], 16)
        self.revisions[number] = stand[-1]["revision"] + 1
        self.undone[number] = stand[-1]["answers"]
        self.waiting.insert(0, number)
        return 200, {"set": self.as_set(number)}


@cache
def picture(number: int, place: int, size: tuple[int, int]) -> bytes:
    """A picture that shows shapes in colours of its place and set, as PNG."""
    width, height = size
    hue = (37 * number + 90 * place) % 256
    image = Image.new("HSV", size, (hue, 90, 225))
    draw = ImageDraw.Draw(image)
    for k in range(6):
        x = width * ((k * 29 + number * 17 + place * 41) % 100) / 100
        y = height * ((k * 53 + place * 23) % 100) / 100
        r = width * (0.05 + 0.03 * k)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=((hue + 40 * k) % 256, 160, 120 + 20 * k))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _handler(study: Study) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

        def give(self, status: int, body: bytes, kind: str, **headers: str) -> None:
            self.send_response(status)
            headers = {"Cache_Control": "no-store", **headers}
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def tell(self, status: int, body: dict[str, Any]) -> None:
            self.give(status, json.dumps(body).encode(), "application/json")

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            parts = path.strip("/").split("/")
            study.asked.append(("GET", self.path))
            if parts[0] == "static" and parts[1] in STATIC:
                package, kind = STATIC[parts[1]]
                self.give(200, resources.files(package).joinpath("assets", parts[1]).read_bytes(), kind)
            elif path == "/vote":
                language = best_language(self.headers.get("Accept-Language", ""))
                page = PAGES.get_template("vote.html.j2").render(language=language, texts=dict(texts(language)))
                self.give(200, page.encode(), "text/html; charset=utf-8")
            elif path == "/favicon.ico":
                self.give(200, b"", "image/x-icon")
            elif path == "/api/state":
                self.tell(200, study.standing())
            elif path == "/api/sets":
                with study.lock:
                    found = {"sets": study.sets(int(query.partition("=")[2] or 2)), **study.standing()}
                study.late.wait(60)
                self.tell(200, found)
            elif parts[:2] == ["api", "sets"] and len(parts) == 4 and path not in study.missing:
                shown = picture(int(parts[2], 16), int(parts[3]), study.size)
                self.give(200, shown, "image/png", Cache_Control="private, max-age=3600")
            else:
                self.tell(404, {"error": "no such page", "remedy": ""})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null")
            study.asked.append(("POST", self.path))
            study.gate.wait(60)
            if self.headers.get("Origin") != study.address or self.headers["Content-Type"] != "application/json":
                self.tell(403, {"error": "the request does not come from a page of this server", "remedy": ""})
                return
            if self.path == "/api/undo":
                with study.lock:
                    self.tell(*study.undo())
                return
            failure = study.failures.pop(0) if study.failures else 200 if study.failing is None else study.failing
            with study.lock:
                status, answer = study.store(body) if failure in (200, -1) else (failure, {"error": "on demand"})
            if failure in (0, -1):
                self.close_connection = True
                self.connection.close()
            else:
                self.tell(status, answer)

    return Handler


@contextmanager
def serving(study: Study) -> Iterator[Study]:
    """The study on a free port of this machine; its address is set."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(study))
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a page that was left
    study.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield study
    finally:
        study.gate.set()
        study.late.set()
        server.shutdown()
        server.server_close()
        thread.join()
