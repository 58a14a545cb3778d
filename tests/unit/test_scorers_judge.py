"""The judge adapter: what is asked, retried, parsed, written down and never asked twice."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from finepref.core.errors import InputError
from finepref.evaluate.scorers.judge import Endpoint, EndpointSettings, Unparsable, picture
from finepref.evaluate.scorers.judge_scorer import JudgeSettings, read_settings
from finepref.evaluate.scorers.scorer_rows import make
from tiny_endpoint import endpoint
from tiny_scorers import picture as noise
from tiny_scorers import pictures


def _number(reply: str) -> int:
    if not reply.isdigit():
        raise Unparsable("it is not a number")
    return int(reply)


def _endpoint(url: str, folder: Path, **own: Any) -> tuple[Endpoint, list[float]]:
    waits: list[float] = []
    settings = EndpointSettings(base_url=url, model="m", **own)
    return Endpoint(settings, folder / "transcripts", wait=waits.append), waits


def test_question_images_and_labels_arrive(tmp_path: Path) -> None:
    with endpoint(lambda body, n: "4") as script:
        judge, _ = _endpoint(script.url + "/", tmp_path, temperature=0.5, max_tokens=9, seed=3)
        answer = judge.ask("how many?", [picture(noise(), "Image 1:"), picture(noise(seed=1))], _number)
    assert answer == (4, "")
    (sent,) = script.requests
    assert sent["path"] == "/v1/chat/completions"
    assert (sent["model"], sent["temperature"], sent["max_tokens"], sent["seed"]) == ("m", 0.5, 9, 3)
    (message,) = sent["messages"]
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["text", "text", "image_url", "image_url"]
    assert [p["text"] for p in message["content"] if p["type"] == "text"] == ["how many?", "Image 1:"]
    assert message["content"][2]["image_url"]["url"].startswith("data:image/png;base64,")


def test_malformed_replies_are_answered_with_the_reason(tmp_path: Path) -> None:
    with endpoint(lambda body, n: ["well...", "about 4", "4"][n]) as script:
        judge, _ = _endpoint(script.url, tmp_path, attempts=3)
        assert judge.ask("how many?", [], _number) == (4, "")
    assert [len(r["messages"]) for r in script.requests] == [1, 3, 5]
    last = script.requests[-1]["messages"]
    assert [m["role"] for m in last] == ["user", "assistant", "user", "assistant", "user"]
    assert last[1]["content"] == "well..."
    assert "it is not a number" in last[2]["content"]


def test_an_unanswered_question_is_none_with_its_reason(tmp_path: Path) -> None:
    with endpoint(lambda body, n: "no") as script:
        judge, _ = _endpoint(script.url, tmp_path, attempts=2)
        for _ in range(2):
            assert judge.ask("q", [], _number) == (None, "it is not a number")
    assert len(script.requests) == 2


def test_transcripts_hold_every_word_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with endpoint(lambda body, n: ["hm", "7"][n]) as script:
        judge, _ = _endpoint(script.url, tmp_path, api_key_env="MY_KEY")
        shown = picture(noise(), "Image 1:")
        judge.ask("q", [shown], _number)
        assert script.headers[0]["Authorization"] == "Bearer sk-secret"
    (path,) = (tmp_path / "transcripts").glob("*.json")
    text = path.read_text()
    record = json.loads(text)
    assert path.stem == judge.key("q", [shown])
    assert record["replies"] == ["hm", "7"]
    assert record["text"] == "q"
    assert record["pictures"] == [{"label": "Image 1:", "sha256": shown.sha256}]
    assert record["settings"]["model"] == "m"
    assert "sk-secret" not in text


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    with endpoint(lambda body, n: "5") as script:
        judge, _ = _endpoint(script.url, tmp_path)
        judge.ask("q", [picture(noise())], _number)
    again = judge.ask("q", [picture(noise())], _number)  # the endpoint is gone
    assert again == (5, "")
    assert len(script.requests) == 1


def test_a_killed_dialogue_continues_after_its_last_reply(tmp_path: Path) -> None:
    with endpoint(lambda body, n: "hm" if n == 0 else 500) as script:
        judge, _ = _endpoint(script.url, tmp_path, retries=0)
        with pytest.raises(InputError, match="no answer after 1 tries"):
            judge.ask("q", [], _number)
    with endpoint(lambda body, n: "3") as script:
        judge, _ = _endpoint(script.url, tmp_path)
        answer = judge.ask("q", [], _number)
    assert answer == (3, "")
    assert len(script.requests[0]["messages"]) == 3


def test_key_follows_what_decides_a_reply(tmp_path: Path) -> None:
    shown = [picture(noise())]
    key = _endpoint("https://a", tmp_path)[0].key("q", shown)
    assert _endpoint("https://b", tmp_path, retries=1, timeout=3.0)[0].key("q", shown) == key
    others = {
        _endpoint("https://a", tmp_path)[0].key("p", shown),
        _endpoint("https://a", tmp_path)[0].key("q", [picture(noise(seed=1))]),
        _endpoint("https://a", tmp_path)[0].key("q", [picture(noise(), "Image 1:")]),
        _endpoint("https://a", tmp_path, temperature=0.1)[0].key("q", shown),
        _endpoint("https://a", tmp_path, seed=None)[0].key("q", shown),
        _endpoint("https://a", tmp_path, max_tokens=3)[0].key("q", shown),
    }
    assert len(others | {key}) == 7


@pytest.mark.parametrize("trouble", [408, 429, 500, 503, b"<html>", {"choices": []}])
def test_trouble_is_retried_or_told(tmp_path: Path, trouble: Any) -> None:
    with endpoint(lambda body, n: trouble if n == 0 else "2") as script:
        judge, waits = _endpoint(script.url, tmp_path)
        if isinstance(trouble, dict):
            with pytest.raises(InputError, match=r"no choices\[0\]"):
                judge.ask("q", [], _number)
            return
        assert judge.ask("q", [], _number) == (2, "")
    assert waits == [7.0 if trouble == 429 else 1.0]


def test_waits_grow_and_end(tmp_path: Path) -> None:
    with endpoint(lambda body, n: 503) as script:
        judge, waits = _endpoint(script.url, tmp_path, retries=8)
        with pytest.raises(InputError, match=r"no answer after 9 tries \(HTTP 503"):
            judge.ask("q", [], _number)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(script.requests) == 9


@pytest.mark.parametrize("status", [400, 401, 404])
def test_refusals_are_not_retried(tmp_path: Path, status: int) -> None:
    with endpoint(lambda body, n: status) as script:
        judge, waits = _endpoint(script.url, tmp_path)
        with pytest.raises(InputError, match=f"HTTP {status}"):
            judge.ask("q", [], _number)
    assert (waits, len(script.requests)) == ([], 1)


def test_nobody_there(tmp_path: Path) -> None:
    judge, waits = _endpoint("http://127.0.0.1:9/v1", tmp_path, retries=1)
    with pytest.raises(InputError, match="finished questions are kept"):
        judge.ask("q", [], _number)
    assert waits == [1]


def test_a_missing_key_is_said_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    judge, _ = _endpoint("http://127.0.0.1:9/v1", tmp_path, api_key_env="NO_SUCH_KEY")
    with pytest.raises(InputError, match="NO_SUCH_KEY is not set"):
        judge.ask("q", [], _number)


# ---- the pointwise scorer ----------------------------------------------------------------------------------------

SETTINGS = {
    "base_url": "http://127.0.0.1:9/v1",
    "model": "m",
    "question": "How well does it show {prompt}?",
    "number_after": "Final Score:",
    "low": 1,
    "high": 5,
    "retries": 0,
}


def _write(path: Path, **own: Any) -> Path:
    path.write_text(yaml.safe_dump({**SETTINGS, **own}))
    return path


def test_scores_come_from_the_last_match_in_range(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> str:
        text = body["messages"][0]["content"][0]["text"]
        if "{braces}" in text:
            return "Final Score: 2 ... no. Final Score: 4.5"
        return "Final Score: 9" if "nine" in text else "Final Score: 3"

    with endpoint(answer) as script:
        scorer = make(f"judge@{_write(tmp_path / 'fair.yaml', base_url=script.url, attempts=2)}")
        found = scorer.score(pictures(3), ["a {braces}", "nine", "cat"])
    assert scorer.name == "judge-fair"
    assert scorer.higher_is_better
    assert found[0] == 4.5
    assert math.isnan(found[1])
    assert found[2] == 3
    assert len(list((tmp_path / "fair.transcripts").glob("*.json"))) == 3
    assert len(script.requests) == 4


def test_fingerprint_follows_the_question_not_the_address(tmp_path: Path) -> None:
    base = make(f"judge@{_write(tmp_path / 'a.yaml')}").fingerprint
    assert make(f"judge@{_write(tmp_path / 'b.yaml', base_url='https://other/v1', workers=1)}").fingerprint == base
    assert make(f"judge@{_write(tmp_path / 'c.yaml', model='m2')}").fingerprint != base
    assert make(f"judge@{_write(tmp_path / 'd.yaml', question='Rate {prompt}')}").fingerprint != base


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"modle": "x"}, "did you mean 'model'"),
        ({"question": "no place"}, "must contain"),
        ({"number_after": ""}, "number_after"),
        ({"pattern": "([0-9]+)"}, "unknown key 'pattern'.*number_after"),
        ({"low": ".nan"}, "low"),
        ({"base_url": ""}, "whole address"),
        ({"base_url": "localhost:8000/v1"}, "whole address"),
        ({"base_url": "file:///etc/passwd"}, "whole address"),
        ({"base_url": "ftp://localhost/v1"}, "whole address"),
        ({"base_url": "http://example.org/v1"}, "http is for this machine"),
        ({"base_url": "http://127.0.0.1.example.org/v1"}, "http is for this machine"),
        ({"base_url": "https://me:secret@example.org/v1"}, "leave user, password"),
        ({"base_url": "https://example.org/v1?key=secret"}, "leave user, password"),
        ({"base_url": "https://example.org:port/v1"}, "base_url"),
        ({"base_url": "https://[::1/v1"}, "base_url"),
        ({"base_url": "https://example.org/v1\n"}, "whole address"),
        ({"low": 5, "high": 5}, "low must be below high"),
        ({"temperature": -1}, "temperature"),
        ({"attempts": 0}, "attempts"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, own: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(f"judge@{_write(tmp_path / 'a.yaml', **own)}")


@pytest.mark.parametrize("content", ["- a", "a: [", ""])
def test_not_a_settings_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(InputError):
        read_settings(tmp_path / "a.yaml", JudgeSettings)
