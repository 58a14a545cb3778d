"""A headless Chromium over its debugging pipe: no driver, no sockets, no further package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 30.0  # seconds after which a wait has been in vain: for hangs, not for speed
STARTING = 60.0  # those of a browser that starts
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")


def find() -> str | None:
    """The first Chromium on the path."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class PageLeft(AssertionError):
    """What was asked has no answer, because the page was left meanwhile."""


class Page:
    """One page; `events` collects what it reported (console errors, dialogs, requests)."""

    def __init__(self, program: str, profile: Path) -> None:
        to_child, self._write = os.pipe()
        self._read, from_child = os.pipe()

        def pipes() -> None:
            os.dup2(to_child, 13)
            os.dup2(from_child, 14)
            os.dup2(13, 3)
            os.dup2(14, 4)

        self._process = subprocess.Popen(
            [
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",  # containers have little of it
                "--disable-background-timer-throttling",  # a second tab is not slower
                "--disable-backgrounding-occluded-windows",
                "--disable-renderer-backgrounding",
                "--disable-component-update",
                "--disable-background-networking",
                "--no-first-run",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._buffer, self._number = b"", 0
        self._session: str | None = None
        self._patience, self._finger = STARTING, time.time()
        self.events: list[dict[str, Any]] = []
        self._target = ""
        self.new_tab()
        self._patience = PATIENCE

    def new_tab(self) -> None:
        """Go on in a new tab; the one before is closed."""
        old, self._target = self._target, self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._attach(self._target)
        if old:
            self.call("Target.closeTarget", targetId=old)

    def _attach(self, target: str) -> str:
        """Listen to a tab."""
        before = self._session
        session: str = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self._session = before
        return session

    @contextmanager
    def second_tab(self) -> Iterator[Callable[[int], None]]:
        """Drive another tab of the same browser; the function chooses which one (0, 1) is driven."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        sessions = [self._session, self._attach(target)]

        def drive(number: int) -> None:
            self._session = sessions[number]

        drive(1)
        try:
            yield drive
        finally:
            drive(0)
            self.call("Target.closeTarget", targetId=target)

    def close(self) -> None:
        """End this browser."""
        self._process.kill()
        self._process.wait(timeout=PATIENCE)
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                self._check(answer)
                return answer["result"]

    @staticmethod
    def _check(answer: dict[str, Any]) -> None:
        said = answer.get("error", {}).get("message", "")
        if any(words in said for words in ("context was destroyed", "navigated or closed", "Cannot find context")):
            raise PageLeft(said)
        assert "error" not in answer, answer

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._patience
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium went away"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
            if message["method"] == "Page.javascriptDialogOpening":
                self.call("Page.handleJavaScriptDialog", accept=False)
        return message

    def open(self, path: Path) -> None:
        """Open a file and wait until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + PATIENCE
        while self.run("document.readyState") != "complete" or self.run("location.href") != path.as_uri():
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def key(self, name: str, code: int) -> None:
        """Press and release a key such as Tab or ArrowLeft."""
        text = {"Enter": "\r", " ": " "}.get(name, "")
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **extra)

    def touch(self, kind: str, *where: tuple[float, float]) -> None:
        """touchStart, touchMove or touchEnd of a finger whose clock goes on by a tenth of a second.

        One that is faster is taken for a throw, after which Chromium gives no click for a while.
        """
        self._finger = max(self._finger + 0.1, time.time())
        points = [{"x": x, "y": y} for x, y in where]
        self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points, timestamp=self._finger)

    def size(self, width: int, height: int, *, dark: bool = False, touch: bool = False) -> None:
        """Set the window, light or dark, and whether fingers touch it."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> None:
        """Write what is visible as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def wait_for_problems(self, text: str, count: int) -> None:
        """Wait until that many problems with this text were reported."""
        deadline = time.monotonic() + PATIENCE
        while sum(text in problem for problem in self.problems()) < count:
            assert time.monotonic() < deadline, f"the page does not report {text!r}"
            self.run("1")
            time.sleep(0.05)

    def problems(self) -> list[str]:
        """Console errors, exceptions, refused resources and dialogs since the page was opened."""
        found = []
        for event in self.events:
            method, params = event["method"], event.get("params", {})
            if method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
                found.append(json.dumps(params))
            if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(json.dumps(params["args"]))
        return found

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened, data: left out."""
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]
