"""A hub of one's own: a real HTTP server with the few endpoints that the client asks."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


class Hub:
    """Serves `files`, {"models/owner/name": {path: content}}, at `url`; a context manager.

    requests: (method, path) of everything that was asked. break_after_bytes: the connection of every file ends there.
    Repositories that are made are listed in `made` as they were asked for; what is committed to a model goes into `files`.
    """

    def __init__(self, files: dict[str, dict[str, bytes]]):
        self.files = files
        self.made = []
        self.requests = []
        self.break_after_bytes = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                hub._answer(self)

            def do_GET(self):
                hub._answer(self)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else b""
                hub._take(self, body or _read_chunks(self.rfile))

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def fetched(self) -> list[str]:
        return [path.rsplit("/", 1)[1] for method, path in self.requests if method == "GET" and "/resolve/" in path]

    def _answer(self, request: BaseHTTPRequestHandler):
        path = request.path.split("?")[0].strip("/")
        self.requests.append((request.command, path))
        for name, files in self.files.items():
            if path.startswith(f"api/{name}/tree/"):
                return self._send_json(request, [_tree_entry(path, content) for path, content in files.items()])
            if path == f"api/{name}" or path.startswith(f"api/{name}/revision/"):
                siblings = [{"rfilename": path} for path in files]
                return self._send_json(request, {"id": name.split("/", 1)[1], "sha": COMMIT, "siblings": siblings})
            revision, _, file = path.removeprefix(f"{name.removeprefix('models/')}/resolve/").partition("/")
            if revision in (COMMIT, "main") and file in files:
                return self._send_file(request, files[file])
            if revision in (COMMIT, "main"):
                absent = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
                return self._send(request, 404, b"Entry not found", absent)
        self._send(request, 404, b"Not Found", {"X-Error-Code": "RepoNotFound"})

    def _take(self, request: BaseHTTPRequestHandler, body: bytes):
        path = request.path.split("?")[0].strip("/")
        self.requests.append((request.command, path))
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return self._send(request, 401, b"Unauthorized", {})
        if path == "api/repos/create":
            made = json.loads(body)
            self.made.append(made)
            name = "/".join(part for part in (made.get("organization"), made["name"]) if part)
            self.files[f"models/{name}"] = {}
            return self._send_json(request, {"url": f"{self.url}/{name}", "name": name})
        if path == "api/validate-yaml":
            return self._send_json(request, {"errors": [], "warnings": []})
        _, kind, owner, name, what = path.split("/")[:5]
        files = self.files[f"{kind}/{owner}/{name}"]
        if what == "preupload":
            kept = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._send_json(request, {"files": kept})
        for line in body.splitlines():  # of a commit
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        self._send_json(request, {"commitUrl": f"{self.url}/{owner}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def _send_file(self, request: BaseHTTPRequestHandler, content: bytes):
        headers = {"ETag": f'"{_blob_id(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = request.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(request, 206 if start else 200, content[start:], headers, self.break_after_bytes)

    def _send_json(self, request: BaseHTTPRequestHandler, content):
        self._send(request, 200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, request, status: int, body: bytes, headers: dict[str, str], break_after_bytes: int | None = None):
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body[:break_after_bytes])
            if break_after_bytes is not None and break_after_bytes < len(body):
                request.close_connection = True


def _read_chunks(stream) -> bytes:
    """A body of unknown length, as HTTP/1.1 sends it."""
    body = b""
    while size := int(stream.readline() or b"0", 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body


def _blob_id(content: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _tree_entry(path: str, content: bytes) -> dict:
    return {"type": "file", "path": path, "size": len(content), "oid": _blob_id(content)}
