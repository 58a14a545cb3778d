"""A vision language model behind an OpenAI-compatible endpoint: ask, parse, ask again, keep every word on disk.

A question is named by the hash of the model, its settings, the text and the pixels of its images; its transcript is
`<transcripts>/<hash>.json`. A question that has a transcript is not asked again, so a killed run resumes where it was.
Delete a transcript to have its question asked again.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field

from finepref.core.errors import InputError
from finepref.core.files import read_json, write_json
from finepref.core.progress import say
from finepref.core.provenance import hash_config, sha256_bytes
from finepref.evaluate.scorers.preprocess import to_rgb

Parsed = TypeVar("Parsed")
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT = 60.0
REMINDER = "Your answer could not be used: {reason}. Answer again, in exactly the requested form."


class EndpointSettings(BaseModel):
    """Where the judge is and how it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(description="such as http://localhost:8000/v1; /chat/completions is added")
    model: str = Field(min_length=1, description="model name that the endpoint knows; pin a dated one where you can")
    api_key_env: str | None = Field(None, description="environment variable with the key; none is sent without it")
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(512, ge=1)
    seed: int | None = Field(0, description="sent as `seed`; null where the endpoint refuses it")
    timeout: float = Field(120.0, gt=0, description="seconds to wait for one reply")
    retries: int = Field(5, ge=0, description="further tries after a busy, failing or silent endpoint")
    attempts: int = Field(3, ge=1, description="replies to read before a question counts as unanswered")


class Unparsable(Exception):
    """A reply that is not in the requested form; its text says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image to show: a data URL and the hash of its pixels. label: text before it."""

    url: str
    sha256: str
    label: str


def picture(image: Image, label: str = "") -> Picture:
    """An image as PNG (lossless) in a data URL."""
    rgb, buffer = to_rgb(image), io.BytesIO()
    rgb.save(buffer, format="PNG")
    digest = sha256_bytes(f"{rgb.width}x{rgb.height}\0".encode() + rgb.tobytes())
    return Picture("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), digest, label)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint and the folder of its transcripts. wait: sleeps between tries (replaced in tests)."""

    settings: EndpointSettings
    transcripts: Path
    wait: Callable[[float], None] = field(default=time.sleep)

    def key(self, text: str, pictures: Sequence[Picture]) -> str:
        """Name of a question: everything that decides the reply."""
        chosen = self.settings.model_dump(include={"model", "temperature", "max_tokens", "seed"})
        shown = [[p.label, p.sha256] for p in pictures]
        return hash_config({"version": 1, **chosen, "text": text, "pictures": shown})[:32]

    def ask(self, text: str, pictures: Sequence[Picture], parse: Callable[[str], Parsed]) -> tuple[Parsed | None, str]:
        """Ask until a reply parses, at most `attempts` times; each further time the judge is told what was wrong.

        Args:
            text: instructions and question.
            pictures: images, shown after the text in order, each after its label.
            parse: reply -> value; raises `Unparsable`.

        Returns:
            The value and "", or None and the reason of the last reply.

        Raises:
            InputError: the endpoint cannot be reached, refuses, or does not speak the protocol. Nothing is lost:
                run again to continue.
        """
        path = self.transcripts / f"{self.key(text, pictures)}.json"
        replies: list[str] = read_json(path)["replies"] if path.is_file() else []
        reason = ""
        messages: list[dict[str, Any]] = [{"role": "user", "content": _content(text, pictures)}]
        for number in range(max(self.settings.attempts, len(replies))):
            if number >= len(replies):
                replies.append(self._reply(messages))
                self._save(path, text, pictures, replies)
            try:
                return parse(replies[number]), ""
            except Unparsable as error:
                reason = str(error)
            messages += [
                {"role": "assistant", "content": replies[number]},
                {"role": "user", "content": REMINDER.format(reason=reason)},
            ]
        return None, reason

    def _save(self, path: Path, text: str, pictures: Sequence[Picture], replies: Sequence[str]) -> None:
        shown = [{"label": p.label, "sha256": p.sha256} for p in pictures]
        record = {"settings": self.settings.model_dump(), "text": text, "pictures": shown, "replies": list(replies)}
        write_json(path, record)

    def _reply(self, messages: Sequence[dict[str, Any]]) -> str:
        body = self.settings.model_dump(include={"model", "temperature", "max_tokens", "seed"}, exclude_none=True)
        record = self._post(json.dumps({**body, "messages": list(messages)}).encode())
        try:
            content = record["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            content = None
        if not isinstance(content, str):
            what = "the endpoint's answer has no choices[0].message.content"
            raise InputError(what, where=self.settings.base_url)
        return content

    def _post(self, body: bytes) -> Any:
        s = self.settings
        request = urllib.request.Request(
            s.base_url.rstrip("/") + "/chat/completions", data=body, headers=self._headers()
        )
        for number in range(s.retries + 1):
            pause = min(LONGEST_WAIT, 2.0**number)
            try:
                with urllib.request.urlopen(request, timeout=s.timeout) as response:
                    return json.loads(response.read())
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {error.read(300).decode('utf-8', 'replace').strip()}"
                if error.code not in AGAIN:
                    raise InputError(reason, where=s.base_url, remedy="check model name, key and settings") from None
                asked = error.headers.get("Retry-After") or ""
                pause = min(LONGEST_WAIT, float(asked)) if asked.replace(".", "", 1).isdigit() else pause
            except (urllib.error.URLError, TimeoutError, http.client.HTTPException, OSError, ValueError) as error:
                reason = str(error)
            if number < s.retries:
                say(f"judge: {reason}; again in {pause:.0f} s")
                self.wait(pause)
        remedy = "start it, then run again: finished questions are kept"
        raise InputError(f"no answer after {s.retries + 1} tries ({reason})", where=s.base_url, remedy=remedy)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        name = self.settings.api_key_env
        if name is not None:
            if not os.environ.get(name):
                raise InputError(f"the environment variable {name} is not set", where="api_key_env", remedy="export it")
            headers["Authorization"] = f"Bearer {os.environ[name]}"
        return headers


def _content(text: str, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    for shown in pictures:
        if shown.label:
            parts.append({"type": "text", "text": shown.label})
        parts.append({"type": "image_url", "image_url": {"url": shown.url}})
    return parts
