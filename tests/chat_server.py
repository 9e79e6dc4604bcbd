"""A real HTTP server that plays an OpenAI-compatible model, well-behaved or not."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What the server does with a request: a reply, an error status, a hang before it, or a cut connection."""

    text: str = ""
    status: int = 200
    headers: dict = field(default_factory=dict)
    error: dict | None = None
    hang_s: float = 0.0
    cut: bool = False
    body: bytes | None = None  # instead of a chat completion
    drip_s: float = 0.0  # for so long a blank every 50 ms before the body, as proxies keep a connection alive
    drip_headers: bool = False  # a header line instead of a blank


class ChatServer:
    """`with ChatServer(behave) as server`: serves at server.url; `behave(request JSON)` returns an Answer or a text.

    requests: every request body in order; answered: those whose reply was sent whole.
    """

    def __init__(self, behave: Callable[[dict], "Answer | str"]):
        self.behave = behave
        self.requests: list[dict] = []
        self.answered: list[dict] = []
        self.keys: set[str] = set()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                outer._serve(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "ChatServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler):
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(request)
            self.keys.add(handler.headers.get("Authorization", ""))
            answer = self.behave(request)
        if isinstance(answer, str):
            answer = Answer(answer)
        time.sleep(answer.hang_s)
        if answer.cut:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
            handler.close_connection = True
            return
        if answer.drip_s:
            _drip(handler, answer)
            return
        body = answer.body if answer.body is not None else json.dumps(self._body(request, answer)).encode()
        try:
            handler.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):  # the client was killed, or waited long enough
            return
        if answer.status == 200:
            with self._lock:
                self.answered.append(request)

    @staticmethod
    def _body(request: dict, answer: Answer) -> dict:
        if answer.status != 200:
            return {"error": answer.error or {"message": "no", "type": "error", "code": None}}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": answer.text}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }


def _drip(handler: BaseHTTPRequestHandler, answer: Answer):
    """Bytes that come so often that no single wait is long, and never end."""
    handler.close_connection = True
    end = time.monotonic() + answer.drip_s
    try:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        if not answer.drip_headers:
            handler.wfile.write(b"Content-Length: 100000\r\n\r\n")
        while time.monotonic() < end:
            handler.wfile.write(b"X-Wait: 1\r\n" if answer.drip_headers else b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except (BrokenPipeError, ConnectionResetError):
        return
