"""What a person does on a page, and waits for: keys, mouse, fingers. Every wait has an end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import chromium

CODES = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32, "Backspace": 8, "Enter": 13, "=": 187,
    "z": 90, "Escape": 27, "Tab": 9, **{str(digit): 48 + digit for digit in range(10)},
}  # fmt: skip
READY = "document.readyState === 'complete' && !!document.querySelector('.ballot[aria-busy=false]:not([hidden]) .shot')"


def until(found: Callable[[], Any], what: str) -> Any:
    """Wait for something that is true, and return it; a page that is left meanwhile is asked again."""
    deadline = time.monotonic() + chromium.PATIENCE
    while True:
        try:
            value = found()
        except chromium.PageLeft:
            value = None
        if value:
            return value
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


def visit(page: chromium.Page, address: str, *, lands: str | None = None) -> None:
    """Open an address, also the same one anew, and wait until it is there; what was reported before is forgotten.

    lands: where it leads to, if elsewhere.
    """
    page.call("Page.navigate", url="about:blank")
    page.events.clear()
    page.call("Page.navigate", url=address)
    there = f"location.href === {json.dumps(lands or address)} && document.readyState === 'complete'"
    until(lambda: page.run(there), address)


def ready(page: chromium.Page) -> None:
    """Wait until a set is shown that can be answered."""
    until(lambda: page.run(READY), "a set")


def press(page: chromium.Page, *names: str) -> None:
    """Press keys, each when a set can be answered."""
    for name in names:
        ready(page)
        page.key(name, CODES[name])


def middle(page: chromium.Page, selector: str, at: float = 0.5) -> tuple[float, float]:
    """The point of an element at this share of its width, in the middle of its height."""
    box = page.run(
        f"(({{left, top, width, height}}) => [left + {at} * width, top + height / 2])"
        f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
    )
    return box[0], box[1]


def bring(page: chromium.Page, selector: str) -> tuple[float, float]:
    """Scroll to an element where it is out of sight; its middle."""
    page.run(
        f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest', behavior: 'instant'}})"
    )
    return middle(page, selector)


def mouse(page: chromium.Page, kind: str, where: tuple[float, float], buttons: int = 1) -> None:
    button = "none" if kind == "mouseMoved" and not buttons else "left"
    page.call(
        "Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button=button, buttons=buttons, clickCount=1
    )


def click(page: chromium.Page, selector: str) -> None:
    where = bring(page, selector)
    mouse(page, "mousePressed", where)
    mouse(page, "mouseReleased", where, 0)


def tap(page: chromium.Page, selector: str) -> None:
    """Touch and let go, and wait for the click that Chromium makes of it."""
    page.run(
        "(window.tapped = false, addEventListener('click', () => { tapped = true; }, {capture: true, once: true}))"
    )
    page.touch("touchStart", bring(page, selector))
    page.touch("touchEnd")
    until(lambda: page.run("tapped"), f"a tap on {selector}")


def text(page: chromium.Page, selector: str) -> str:
    found: str = page.run(f"document.querySelector({json.dumps(selector)})?.textContent || ''")
    return found


def shown(page: chromium.Page, selector: str) -> bool:
    return bool(page.run(f"!!document.querySelector({json.dumps(selector)})?.checkVisibility()"))


def offline(page: chromium.Page, on: bool) -> None:
    page.call("Network.emulateNetworkConditions", offline=on, latency=0, downloadThroughput=-1, uploadThroughput=-1)
