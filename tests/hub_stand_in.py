"""A local stand-in for the HTTP interface of the Hugging Face Hub: one repository of models in memory."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_right"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server has, and what it shall do wrong."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.drop_downloads = 0
        """End this many downloads of weights in the middle."""
        self.drop_commits = False
        """End commits after the request's first bytes."""
        self.ranges: list[str] = []
        self.address = ""


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, content: bytes, **headers: object) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": len(content), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def json(self, value: Any, status: int = 200) -> None:
            self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/"):
                if not hub.files or not path.startswith("/api/models/me/digits"):
                    self.answer(404, b"{}", X_Error_Code="RepoNotFound")
                    return
                if "/tree/" in path:
                    kinds = {"type": "file", "oid": COMMIT}
                    self.json([{**kinds, "path": name, "size": len(hub.files[name])} for name in hub.files])
                    return
                names = [{"rfilename": name} for name in hub.files]
                self.json({"id": "me/digits", "sha": COMMIT, "siblings": names, "private": False})
                return
            name = path.rpartition("/")[2]
            if name not in hub.files:
                self.answer(404, b"", X_Error_Code="EntryNotFound")
                return
            content = hub.files[name]
            tag = f'"{hashlib.sha1(content).hexdigest()}"'
            about = {"ETag": tag, "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
            first = 0
            if asked := self.headers.get("Range"):
                hub.ranges.append(asked)
                first = int(asked.removeprefix("bytes=").partition("-")[0] or 0)
                about["Content_Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            if self.command == "GET" and name.endswith(".safetensors") and hub.drop_downloads:
                hub.drop_downloads -= 1
                self.send_response(200)
                for key, value in {**about, "Content_Length": len(content)}.items():
                    self.send_header(key.replace("_", "-"), str(value))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
                return
            self.answer(206 if asked else 200, content[first:], **about)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if "/commit/" in self.path and hub.drop_commits:
                self.rfile.read(min(length, 100))
                self.connection.close()
                self.close_connection = True
                return
            body = self.body(length)
            if self.path == "/api/validate-yaml":
                self.json({"errors": [], "warnings": []})
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.json({"error": "Invalid username or password."}, 401)
            elif self.path.startswith("/api/repos/create"):
                self.json({"url": f"{hub.address}/me/digits", "id": "me/digits", "name": "me/digits"})
            elif "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                files = [
                    {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked
                ]
                self.json({"files": files})
            elif "/commit/" in self.path:
                for line in body.splitlines():
                    part = json.loads(line)
                    if part["key"] == "file":
                        hub.files[part["value"]["path"]] = base64.b64decode(part["value"]["content"])
                self.json({"commitUrl": f"{hub.address}/me/digits/commit/{COMMIT}", "commitOid": COMMIT})
            else:
                self.json({}, 404)

        def body(self, length: int) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(length)
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that listens on this machine."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(hub)) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
