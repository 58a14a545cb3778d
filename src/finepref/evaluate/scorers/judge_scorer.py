"""A judge that gives every image a number for its prompt, described by a YAML file: `judge@FILE.yaml`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL.Image import Image
from pydantic import AfterValidator, Field, ValidationError, model_validator

from finepref.core.errors import InputError, nearest
from finepref.core.progress import say
from finepref.evaluate.scorers.judge import Endpoint, EndpointSettings, Unparsable, picture
from finepref.evaluate.scorers.network_scorer import check_inputs
from finepref.evaluate.scorers.weights import fingerprint
from finepref.formats.records import read_yaml

PLACE = "{prompt}"
DECISIVE = {"model", "temperature", "max_tokens", "seed", "attempts", "question", "number_after", "low", "high"}
"""The settings that decide a score."""
NUMBER = (
    r"[\s:=*_\"'`(\[{<]{0,16}"
    r"((?>[-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?))(?!,?[0-9])"
)
"""A number behind signs; reading it takes time in proportion to the reply, as no pattern of a person's own would."""


def _with_place(question: str) -> str:
    if PLACE not in question:
        raise ValueError(f"the question must contain {PLACE}")
    return question


Question = Annotated[str, AfterValidator(_with_place)]
"""What a judge is asked, with a place for the prompt."""


class JudgeSettings(EndpointSettings):
    """An endpoint, the question, and how a number is read from the reply."""

    question: Question = Field(description="what is asked; {prompt} stands for the image's prompt")
    number_after: str = Field(min_length=1, description="words before the number; the last time that they stand counts")
    low: float = Field(allow_inf_nan=False, description="smallest number that is a valid reply")
    high: float = Field(allow_inf_nan=False, description="largest number that is a valid reply")
    higher_is_better: bool = True
    workers: int = Field(4, ge=1, le=1000, description="questions under way at once")
    transcripts: Path | None = Field(None, description="folder of the transcripts; default: beside the file")

    @model_validator(mode="after")
    def _ordered(self) -> JudgeSettings:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        return self


def read_settings(path: Path, model: type[EndpointSettings]) -> Any:
    """Settings from a YAML file; unknown keys, missing keys and bad values are an `InputError` with the place."""
    try:
        return model.model_validate(read_yaml(path, remedy="see docs/scorers.md"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise InputError(f"unknown key {key!r}", where=path, remedy=nearest(key, model.model_fields)) from None
        raise InputError(f"{key or 'settings'}: {first['msg']}", where=path, remedy="see docs/scorers.md") from None


class JudgeScorer:
    """One number per image from a judge's replies; nan where no reply could be read (the transcripts say why)."""

    def __init__(self, name: str, settings: JudgeSettings, endpoint: Endpoint) -> None:
        """A scorer on an endpoint.

        Args:
            name: stable short name.
            settings: question, words before the number, range.
            endpoint: where to ask.
        """
        self.name, self.higher_is_better = name, settings.higher_is_better
        self.fingerprint = fingerprint({"scorer": "judge", "version": 2, **settings.model_dump(include=DECISIVE)})
        self._settings, self._endpoint = settings, endpoint
        self._pattern = re.compile(re.escape(settings.number_after) + NUMBER, re.IGNORECASE)

    def _read(self, reply: str) -> float:
        s = self._settings
        found = self._pattern.findall(reply)
        if not found:
            raise Unparsable(f"there is no number after {s.number_after!r} in it")
        value = float(found[-1])
        if not (math.isfinite(value) and s.low <= value <= s.high):
            raise Unparsable(f"{value:g} is not between {s.low:g} and {s.high:g}")
        return value

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> np.ndarray:
        """Numbers read from the replies, float64 [n], nan where there is none.

        Raises:
            InputError: the endpoint does not answer; what was answered is kept on disk.
        """
        check_inputs(self.name, images, prompts)

        def one(item: tuple[Image, str]) -> float:
            text = self._settings.question.replace(PLACE, item[1])
            value, reason = self._endpoint.ask(text, [picture(item[0])], self._read)
            if value is None:
                say(f"{self.name}: no usable reply ({reason})")
            return math.nan if value is None else value

        with ThreadPoolExecutor(self._settings.workers) as pool:
            return np.array(list(pool.map(one, zip(images, prompts, strict=True))), dtype=np.float64)


def load_judge_scorer(path: Path, *, name: str) -> JudgeScorer:
    """The judge that a YAML file describes. Transcripts go to `transcripts`, by default `FILE.transcripts/`."""
    settings: JudgeSettings = read_settings(path, JudgeSettings)
    return JudgeScorer(name, settings, endpoint_beside(path, settings, settings.transcripts))


def endpoint_beside(path: Path, settings: EndpointSettings, transcripts: Path | None) -> Endpoint:
    """The endpoint that a file describes. transcripts: as the file names them; None: `FILE.transcripts/`."""
    folder = transcripts or path.with_suffix(".transcripts")
    return Endpoint(settings, folder if folder.is_absolute() else path.parent / folder)
