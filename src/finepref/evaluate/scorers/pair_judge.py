"""A vision language model that is shown two pictures and says which one people would prefer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image
from pydantic import Field

from finepref.core.errors import InputError
from finepref.core.progress import say
from finepref.evaluate.scorers.judge import EndpointSettings, Unparsable, picture
from finepref.evaluate.scorers.judge_scorer import PLACE, Question, endpoint_beside, read_settings

LABELS = ("Image 1", "Image 2")
QUESTION = f"""Image 1 and Image 2 were made for this description:

{PLACE}

Which one would most people prefer? Answer with one line and nothing else: "Image 1", "Image 2" or "equal"."""
REPLY = re.compile(r"\W*(?:image\s*#?\s*([12])|(equal))\W*", re.IGNORECASE)


class PairJudgeSettings(EndpointSettings):
    """An endpoint, and what it is asked of two pictures."""

    question: Question = Field(
        QUESTION, description='{prompt} stands for the prompt; asks for "Image 1", "Image 2" or "equal"'
    )
    transcripts: Path | None = Field(None, description="folder of the transcripts; default: beside the file")


def preferred(reply: str) -> str:
    """left, right or tie, of a reply whose last line is just that.

    Raises:
        Unparsable: it is not.

    Example:
        >>> preferred("Image 2.")
        'right'
    """
    lines = reply.strip().splitlines()
    found = REPLY.fullmatch(lines[-1]) if lines else None
    if found is None:
        raise Unparsable('its last line is not "Image 1", "Image 2" or "equal"')
    return "tie" if found[2] else ("left", "right")[int(found[1]) - 1]


def load_pair_judge(path: Path) -> Callable[[Sequence[Image], str, str], Any]:
    """Who answers pairs as a file's endpoint does; a pair without a usable reply is skipped.

    Raises:
        InputError: the file; later: the endpoint does not answer (what was answered is kept on disk), or a study
            whose sets are no pairs.
    """
    settings: PairJudgeSettings = read_settings(path, PairJudgeSettings)
    endpoint = endpoint_beside(path, settings, settings.transcripts)

    def answer(pictures: Sequence[Image], prompt: str, mode: str) -> str:
        if mode != "pair":
            remedy = "make the study with --mode pair"
            raise InputError(f"it answers pairs, and this study is of mode {mode}", where=path, remedy=remedy)
        shown = [picture(each, label) for each, label in zip(pictures, LABELS, strict=True)]
        said, reason = endpoint.ask(settings.question.replace(PLACE, prompt), shown, preferred)
        if said is None:
            say(f"{path.name}: no usable reply ({reason})")
        return said or "skip"

    return answer
