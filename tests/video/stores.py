"""File servers for the tests: a web server that answers range requests and fails on demand, and an S3 store."""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer:
    """Files of a folder. sent: bytes of all bodies so far; requests: how many.

    faults: by a file's name, one for each further request: a status, "stall", or "cut" (half of what was asked for).
    """

    def __init__(self, folder: Path):
        self.folder, self.sent, self.requests = folder, 0, 0
        self.faults: dict[str, list[int | str]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self._answer(body=False)

            def do_GET(self):
                self._answer(body=True)

            def _answer(self, body: bool):
                outer.requests += 1
                path = outer.folder / self.path.lstrip("/").split("?")[0]
                faults = outer.faults.get(path.name, [])
                fault = faults.pop(0) if faults else None
                if fault == "stall":
                    time.sleep(3)
                if isinstance(fault, int) or not path.is_file():
                    self.send_response(fault if isinstance(fault, int) else 404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                size = path.stat().st_size
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                start, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(end - start))
                self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
                self.end_headers()
                if not body:
                    return
                with path.open("rb") as file:
                    file.seek(start)
                    content = file.read(end - start)
                content = content[: len(content) // 2] if fault == "cut" else content
                outer.sent += len(content)
                self.wfile.write(content)
                self.close_connection = fault == "cut"

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "RangeServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def s3_with(folder: Path, bucket: str) -> Iterator[str]:
    """An S3 server with the files of a folder; "s3://BUCKET". Its address and keys are in the environment meanwhile."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket=bucket)
        for place, _, names in os.walk(folder, followlinks=True):
            for path in (Path(place) / name for name in names):
                client.upload_file(str(path), bucket, str(path.relative_to(folder)))
        yield f"s3://{bucket}"
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        server.stop()
