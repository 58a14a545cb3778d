"""A vision language model behind an OpenAI-compatible endpoint: ask, parse, ask again, keep every word on disk.

A question is named by the hash of the model, its settings, the text and the pixels of its images; its transcript is
`<transcripts>/<hash>.json`. A question that has a transcript is not asked again, so a killed run resumes where it was.
Delete a transcript to have its question asked again. The key is sent to the endpoint and written nowhere.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from PIL.Image import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from finepref.core.errors import InputError, cut
from finepref.core.files import parse_json, read_json, write_json
from finepref.core.progress import say
from finepref.core.provenance import hash_config, sha256_bytes
from finepref.core.text import visible
from finepref.evaluate.scorers.judge_client import Unanswered, check_url, post
from finepref.evaluate.scorers.preprocess import to_rgb
from finepref.formats.records import as_record

Parsed = TypeVar("Parsed")
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT = 60.0
SHORTEST_KEY = 6  # characters; what is shorter is no secret
REMINDER = "Your answer could not be used: {reason}. Answer again, in exactly the requested form."


class EndpointSettings(BaseModel):
    """Where the judge is and how it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: Annotated[str, AfterValidator(check_url)] = Field(
        description="https, or http to this machine, such as http://localhost:8000/v1; /chat/completions is added"
    )
    model: str = Field(min_length=1, description="model name that the endpoint knows; pin a dated one where you can")
    api_key_env: str | None = Field(None, description="environment variable with the key; none is sent without it")
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    max_tokens: int = Field(512, ge=1)
    seed: int | None = Field(0, description="sent as `seed`; null where the endpoint refuses it")
    timeout: float = Field(120.0, gt=0, le=3600, description="seconds that one reply may take as a whole")
    retries: int = Field(5, ge=0, le=100, description="further tries after a busy, failing or silent endpoint")
    attempts: int = Field(3, ge=1, le=100, description="replies to read before a question counts as unanswered")


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


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was asked and every reply. cut: numbers of the replies that ended at max_tokens, from 0."""

    text: str
    pictures: tuple[dict[str, str], ...]
    replies: tuple[str, ...] = ()
    cut: tuple[int, ...] = ()


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
        held, reason = self._transcript(path, text, pictures), ""
        messages: list[dict[str, Any]] = [{"role": "user", "content": _content(text, pictures)}]
        for number in range(max(self.settings.attempts, len(held.replies))):
            if number >= len(held.replies):
                reply, whole = self._reply(messages)
                ends = held.cut if whole else (*held.cut, number)
                held = replace(held, replies=(*held.replies, reply), cut=ends)
                write_json(path, {"settings": self.settings.model_dump(), **asdict(held)})
            try:
                if number in held.cut:
                    raise Unparsable("it was cut off at max_tokens")
                return parse(held.replies[number]), ""
            except Unparsable as error:
                reason = str(error)
            messages += [
                {"role": "assistant", "content": held.replies[number]},
                {"role": "user", "content": REMINDER.format(reason=reason)},
            ]
        return None, reason

    def _transcript(self, path: Path, text: str, pictures: Sequence[Picture]) -> Transcript:
        """What is on disk of a question; refuses a file that is damaged or of another question."""
        asked = Transcript(text, tuple({"label": p.label, "sha256": p.sha256} for p in pictures))
        if not path.is_file():
            return asked
        remedy = "delete it to ask again"
        held = as_record(Transcript, read_json(path), where=path, remedy=remedy)
        if (held.text, held.pictures) != (asked.text, asked.pictures):
            raise InputError("the transcript is of another question", where=path, remedy=remedy)
        return held

    def _reply(self, messages: Sequence[dict[str, Any]]) -> tuple[str, bool]:
        """The reply, and whether it ended by itself."""
        body = self.settings.model_dump(include={"model", "temperature", "max_tokens", "seed"}, exclude_none=True)
        record = self._post(json.dumps({**body, "messages": list(messages)}).encode())
        try:
            choice = record["choices"][0]
            content, end = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            content = end = None
        if not isinstance(content, str):
            what = "the endpoint's answer has no choices[0].message.content"
            raise InputError(what, where=self.settings.base_url, remedy="check that it speaks chat completions")
        return self._without_key(content), end != "length"

    def _post(self, body: bytes) -> Any:
        s, key = self.settings, self._key()
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        for number in range(s.retries + 1):
            pause = min(LONGEST_WAIT, 2.0**number)
            try:
                reply = post(s.base_url.rstrip("/") + "/chat/completions", body, headers, seconds=s.timeout)
                if reply.status == 200:
                    return parse_json(reply.content.decode())
                said = self._without_key(reply.content.decode(errors="replace"))
                reason, again = f"HTTP {reply.status}: {said[:300]}", False
                if reply.status in AGAIN:
                    again, pause = True, min(LONGEST_WAIT, pause if reply.retry_after is None else reply.retry_after)
            except Unanswered as error:
                reason, again = str(error), error.again
            except (ValueError, RecursionError):
                reason, again = "the reply is not JSON", True
            reason = cut(self._without_key(reason))
            if not again:
                raise InputError(reason, where=s.base_url, remedy="check address, model name, key and settings")
            if number < s.retries:
                say(f"judge: {visible(reason)}; again in {pause:.0f} s")
                self.wait(pause)
        remedy = "start it, then run again: finished questions are kept"
        raise InputError(f"no answer after {s.retries + 1} tries ({reason})", where=s.base_url, remedy=remedy)

    def _key(self) -> str | None:
        """The key, None where none is sent.

        Raises:
            InputError: its variable is not set, or holds what no header can.
        """
        name = self.settings.api_key_env
        if name is None:
            return None
        key = os.environ.get(name, "")
        if not key:
            raise InputError(f"the environment variable {name} is not set", where="api_key_env", remedy="export it")
        if not re.fullmatch("[!-~]+", key):
            what = f"the environment variable {name} holds a space, a line break or a letter that is not ASCII"
            raise InputError(what, where="api_key_env", remedy="export the key alone")
        return key

    def _without_key(self, text: str) -> str:
        """What an endpoint says, without the key that it may repeat, or the part of it that the end cuts off."""
        key = os.environ.get(self.settings.api_key_env or "", "")
        if len(key) < SHORTEST_KEY:
            return text
        text = text.replace(key, "***")
        begun = next((n for n in range(len(key) - 1, SHORTEST_KEY - 1, -1) if text.endswith(key[:n])), 0)
        return text[: len(text) - begun] + "***" * (begun > 0)


def _content(text: str, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    for shown in pictures:
        if shown.label:
            parts.append({"type": "text", "text": shown.label})
        parts.append({"type": "image_url", "image_url": {"url": shown.url}})
    return parts
