"""An OpenAI-compatible endpoint on this machine that answers from a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# text of the message, HTTP status, raw body, whole JSON body, or what answers the request by itself
Reply = str | int | bytes | dict[str, Any] | Callable[[BaseHTTPRequestHandler], None]


class Script:
    """What the endpoint answers to each request, and what it was asked."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Reply]) -> None:
        self.answer, self.requests, self.headers = answer, [], []
        self.url, self.lock = "", threading.Lock()


@contextmanager
def endpoint(answer: Callable[[dict[str, Any], int], Reply]) -> Iterator[Script]:
    """Serve until the block ends. answer: (request body, its number from 0) -> reply."""
    script = Script(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                number = len(script.requests)
                script.requests.append({"path": self.path, **body})
                script.headers.append(dict(self.headers))
            reply = script.answer(body, number)
            if callable(reply):
                reply(self)
                return
            status = reply if isinstance(reply, int) else 200
            if isinstance(reply, str):
                reply = {"choices": [{"message": {"role": "assistant", "content": reply}}]}
            data = reply if isinstance(reply, bytes) else json.dumps({} if isinstance(reply, int) else reply).encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
