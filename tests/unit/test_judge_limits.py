"""The judge's client against endpoints that redirect, drip, flood, pack, cut, lie and repeat the key."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from finepref.core.errors import InputError
from finepref.evaluate.scorers.judge import Endpoint, EndpointSettings, Unparsable
from finepref.evaluate.scorers.judge_client import Reply
from finepref.evaluate.scorers.judge_scorer import JudgeScorer, JudgeSettings
from tiny_endpoint import Script, endpoint

KEY = "sk-very-secret-123"


def ask(script: Script, folder: Path, **own: Any) -> tuple[str | None, str]:
    settings = EndpointSettings(base_url=script.url, model="m", **{"retries": 0, "attempts": 1, **own})
    return Endpoint(settings, folder / "transcripts", wait=lambda seconds: None).ask("q", [], str)


def refused(script: Script, folder: Path, **own: Any) -> str:
    with pytest.raises(InputError) as caught:
        ask(script, folder, **own)
    text = str(caught.value)
    assert KEY not in text
    assert "\n" not in text
    assert len(text) < 400
    return text


def respond(status: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return write


def chat(content: object, **choice: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, **choice}]}).encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_gets_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with endpoint(lambda body, n: "4") as other:
        place = other.url.replace("127.0.0.1", "localhost") + f"/{KEY}"
        with endpoint(lambda body, n: respond(status, Location=place)) as script:
            text = refused(script, tmp_path, api_key_env="JUDGE_KEY", retries=3)
        assert script.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert len(script.requests) == 1
        assert other.requests == []
    assert f"HTTP {status}: it sends on to another address, which is not followed" in text


@pytest.mark.parametrize("head", [True, False])
def test_a_reply_that_drips_ends_at_the_deadline(tmp_path: Path, head: bool) -> None:
    """Every byte comes well within any time that one read may take."""
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"X-Slow: " if head else b"Content-Length: 9999999\r\n\r\n"))
        try:
            while not over.wait(0.01):
                handler.wfile.write(b" ")
        except OSError:
            over.set()

    with endpoint(lambda body, n: drip) as script:
        text = refused(script, tmp_path, timeout=0.3)
        assert over.wait(600)  # the connection was closed on it
    assert "no whole reply within 0.3 s" in text


@pytest.mark.parametrize("says", [True, False])
def test_a_flood_is_cut(tmp_path: Path, says: bool) -> None:
    sent = 0

    def flood(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 600000000\r\n" if says else b"") + b"\r\n")
        block = b" " * (1 << 20)
        try:
            for _ in range(600):
                handler.wfile.write(block)
                sent += 1
        except OSError:
            pass

    with endpoint(lambda body, n: flood) as script:
        assert "longer than 8 MiB" in refused(script, tmp_path, retries=3)
        assert len(script.requests) == 1
    assert sent < 200


def test_a_packed_reply_is_not_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(b" " * 9_000_000)
    with endpoint(lambda body, n: respond(200, bomb, Content_Encoding="gzip")) as script:
        assert "compressed, though" in refused(script, tmp_path, retries=3)
        assert script.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Sign in</body></html>",
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"choices": ' + b"9" * 5000 + b"}",
        chat("half"),
    ],
)
def test_what_is_no_json_is_said(tmp_path: Path, body: bytes) -> None:
    body = body.replace(b"half", b"\\ud83d")
    with endpoint(lambda _, n: body) as script:
        assert "no answer after 3 tries (the reply is not JSON)" in refused(script, tmp_path, retries=2)
        assert len(script.requests) == 3


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b'{"choices": {}}', b'{"choices": [5]}', chat(5), chat(None)])
def test_json_of_another_form_is_said(tmp_path: Path, body: bytes) -> None:
    with endpoint(lambda _, n: body) as script:
        assert "no choices[0].message.content" in refused(script, tmp_path)


def test_a_reply_that_is_cut_off_is_asked_again(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> Any:
        return respond(200, chat("4")[:10], Content_Length="60") if number == 0 else "4"

    with endpoint(answer) as script:
        assert ask(script, tmp_path, retries=1) == ("4", "")
        assert len(script.requests) == 2


def test_a_reply_that_ended_at_max_tokens_does_not_count(tmp_path: Path) -> None:
    with endpoint(lambda body, n: chat("Score: 1", finish_reason="length") if n == 0 else "Score: 10") as script:
        assert ask(script, tmp_path, attempts=2) == ("Score: 10", "")
        assert "cut off at max_tokens" in script.requests[1]["messages"][-1]["content"]
        assert ask(script, tmp_path, attempts=2) == ("Score: 10", "")
        assert len(script.requests) == 2


def test_a_key_that_the_endpoint_repeats_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with endpoint(lambda body, n: respond(401 if n == 0 else 503, f"bad key\n{KEY}".encode())) as script:
        assert "HTTP 401: bad key ***" in refused(script, tmp_path, api_key_env="JUDGE_KEY")
        assert "HTTP 503: bad key ***" in refused(script, tmp_path, api_key_env="JUDGE_KEY", retries=2)
    with endpoint(lambda body, n: f"you are {KEY}") as script:
        assert ask(script, tmp_path, api_key_env="JUDGE_KEY") == ("you are ***", "")
    (path,) = (tmp_path / "transcripts").glob("*.json")
    assert KEY not in path.read_text() + "".join(capsys.readouterr())


@pytest.mark.parametrize("kept", [6, len(KEY) - 1, len(KEY)])
def test_a_key_at_the_end_of_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """No part of it that would help is shown, wherever the text is cut: by us, or by the endpoint."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    judge = Endpoint(EndpointSettings(base_url="http://localhost", model="m", api_key_env="JUDGE_KEY"), tmp_path)
    for before in range(270, 305):
        body = b"no" + b" " * before + KEY[:kept].encode()
        monkeypatch.setattr("finepref.evaluate.scorers.judge.post", lambda *_, body=body, **__: Reply(401, body))
        with pytest.raises(InputError, match="HTTP 401: no") as refused:
            judge.ask("q", [], str)
        assert KEY[:5] not in str(refused.value)


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} ", f"{KEY}\r\nHost: x", "schlüssel"])
def test_a_key_that_no_header_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("JUDGE_KEY", key)
    with endpoint(lambda body, n: "4") as script:
        text = refused(script, tmp_path, api_key_env="JUDGE_KEY")
    assert script.requests == []
    assert key.strip() not in text


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry_After": "7"}, 7),
        ({"Retry_After": "0"}, 0),
        ({"Retry_After": "1e9"}, 60),
        ({"Retry_After": "9" * 400}, 60),
        ({"Retry_After": "-5"}, 1),
        ({"Retry_After": "nan"}, 1),
        ({"Retry_After": "soon"}, 1),
    ],
)
def test_retry_after(tmp_path: Path, headers: dict[str, str], pause: float) -> None:
    waits: list[float] = []
    with endpoint(lambda body, n: respond(429, **headers) if n == 0 else "4") as script:
        settings = EndpointSettings(base_url=script.url, model="m")
        assert Endpoint(settings, tmp_path, wait=waits.append).ask("q", [], str) == ("4", "")
    assert waits == [pause]


def test_retry_after_as_a_date(tmp_path: Path) -> None:
    def late(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(
            b"HTTP/1.1 503 Busy\r\nDate: Sun, 29 Nov 2026 10:00:00 GMT\r\nContent-Length: 0\r\n"
            b"Retry-After: Sun, 29 Nov 2026 10:00:21 GMT\r\n\r\n"
        )

    waits: list[float] = []
    with endpoint(lambda body, n: late if n == 0 else "4") as script:
        settings = EndpointSettings(base_url=script.url, model="m")
        Endpoint(settings, tmp_path, wait=waits.append).ask("q", [], str)
    assert waits == [21]


def test_this_machine_is_asked_without_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with endpoint(lambda body, n: "4") as script:
        assert ask(script, tmp_path) == ("4", "")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "5",
        "{}",
        '{"text": "q", "pictures": [], "replies": 5}',
        '{"text": "q", "pictures": [], "replies": [5]}',
        '{"text": "q", "pictures": 1, "replies": []}',
        '{"text": "another", "pictures": [], "replies": ["4"]}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_damaged_transcripts_are_said(tmp_path: Path, content: str) -> None:
    with endpoint(lambda body, n: "4") as script:
        assert ask(script, tmp_path) == ("4", "")
        (path,) = (tmp_path / "transcripts").glob("*.json")
        path.write_bytes(content.encode(errors="surrogateescape"))
        assert path.name in refused(script, tmp_path)
        assert len(script.requests) == 1


READ = {
    "Final Score: 4": 4.0,
    "**final score:** [[4.5]]": 4.5,
    'Final Score:": "3"': 3.0,
    "Final Score: 2. No, Final Score: 4.": 4.0,
    "Final Score: +.5e1": 5.0,
    "Final Score: 4/5": 4.0,
    "Final Score: 4, 5 at best": 4.0,
    "Final Score: 4,5": None,
    "Final Score: 45,6": None,
    "Final Score: four": None,
    "Final Score: nan": None,
    "Final Score: 1e999": None,
    "4": None,
    "Final Score:" * 80_000: None,
    "Final Score:" + "1" * 1_000_000 + ",5": None,
    "Final Score:" + " " * 1_000_000: None,
}


@pytest.mark.parametrize("reply", READ, ids=range(len(READ)))
@pytest.mark.parametrize("after", ["Final Score:", "Final score"])
def test_the_number_of_a_reply(tmp_path: Path, reply: str, after: str) -> None:
    settings = JudgeSettings(
        base_url="https://example.org", model="m", question="{prompt}", number_after=after, low=0, high=5
    )
    scorer = JudgeScorer("judge", settings, Endpoint(settings, tmp_path))
    if (value := READ[reply]) is not None:
        assert scorer._read(reply) == value
        return
    with pytest.raises(Unparsable, match=r"there is no number|is not between"):
        scorer._read(reply)


def test_reading_a_number_takes_time_in_proportion(tmp_path: Path) -> None:
    """Words that are digits and signs themselves: a pattern that tries again at every place would not end."""
    settings = JudgeSettings(
        base_url="https://example.org", model="m", question="{prompt}", number_after="1", low=0, high=5
    )
    with pytest.raises(Unparsable, match=r"there is no number|is not between"):
        JudgeScorer("judge", settings, Endpoint(settings, tmp_path))._read("1" * 200_000 + ",5")
