"""A site on this machine's own address, for whoever knows its secret name: login nodes have many users."""

import hmac
import html
import secrets
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from jobs.browser.site import Site
from serl.run.rundir import RunError

PATIENCE_S = 30.0  # of a connection that says nothing
HOSTS = ("127.0.0.1", "localhost")
POLICY = (
    "default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
PLAIN = '<!doctype html><meta charset="utf-8"><p>{}</p><p><a href="./">the run</a></p>'


class Server(ThreadingHTTPServer):
    """Pages of a site to those who know its secret name."""

    daemon_threads = True

    def __init__(self, site: Site, port: int):
        self.site, self.secret, self.num_pages = site, secrets.token_urlsafe(18), 0
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as e:
            raise ValueError(f"--port {port}: {e.strerror}; choose another, or leave it out") from e

    def serve(self) -> None:
        """Until Ctrl-C."""
        try:
            self.serve_forever()
        finally:
            self.server_close()

    def handle_error(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        """A reader that went away is no error of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{self.secret}/"


class Handler(BaseHTTPRequestHandler):
    """One request; says nothing to whoever lacks the secret, and to nobody what it runs on."""

    server: Server
    timeout = PATIENCE_S
    server_version, sys_version = "browse", ""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        host = self.headers.get("Host", "").rpartition(":")[0]
        match address.path.split("/"):
            case ["", secret, name] if host in HOSTS and self._known(secret):
                self._answer(name, dict(parse_qsl(address.query, max_num_fields=20)))
            case _:
                self._send(404, b"not found", "")

    def _known(self, secret: str) -> bool:
        return hmac.compare_digest(secret.encode(), self.server.secret.encode())

    def _answer(self, name: str, query: dict[str, str]) -> None:
        nonce = secrets.token_urlsafe(12)
        try:
            content = self.server.site.page(name, query, nonce)
        except (ValueError, RunError) as e:
            return self._send(400, _plain(str(e)), nonce)
        self.server.num_pages += 1
        return self._send(200, content, nonce) if content else self._send(404, _plain("no such page"), nonce)

    def _send(self, status: int, content: bytes, nonce: str) -> None:
        self.send_response(status)
        own = {"Content-Length": str(len(content)), "Content-Security-Policy": POLICY.format(nonce)}
        for name, value in (HEADERS | own).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: an address holds the secret."""


def _plain(message: str) -> bytes:
    return PLAIN.format(html.escape(message)).encode()
