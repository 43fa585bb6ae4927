"""The web server of an app: its page, its steps and the official client as it comes from npm."""

from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.interop.javascript import CLIENT

_PAGE = Path(__file__).with_name("page")
_FILES = {
    "/": (_PAGE / "index.html", "text/html; charset=utf-8"),
    "/steps.mjs": (_PAGE / "steps.mjs", "text/javascript"),
    "/pubky.js": (CLIENT / "index.js", "text/javascript"),
}


class AppFiles(BaseHTTPRequestHandler):
    """Three files."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with a file, or 404."""
        path, kind = _FILES.get(self.path, (None, ""))
        body = path.read_bytes() if path else b""
        self.send_response(200 if path else 404)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
