"""In front of fake-gcs-server for gcloud: answers the one method that it lacks, and passes everything else on.

`gcloud storage` asks a bucket for its storage layout (flat or hierarchical names) before it copies a folder.
"""

from __future__ import annotations

import argparse
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

_LAYOUT = re.compile(r"/storage/v1/b/([^/?]+)/storageLayout(\?|$)")
_HOP_BY_HOP = {"connection", "content-encoding", "content-length", "host", "keep-alive", "transfer-encoding"}


def handler(upstream: str) -> type[BaseHTTPRequestHandler]:
    """A request handler that speaks for the storage server at `upstream`."""
    session = requests.Session()

    class Gateway(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            if match := _LAYOUT.match(self.path):
                layout = {
                    "kind": "storage#storageLayout",
                    "bucket": match[1],
                    "location": "US-CENTRAL1",
                    "locationType": "region",
                    "hierarchicalNamespace": {"enabled": False},
                }
                self._send(200, {"Content-Type": "application/json"}, json.dumps(layout).encode())
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
            headers["Accept-Encoding"] = "identity"
            reply = session.request(self.command, upstream + self.path, headers=headers, data=body, timeout=600)
            kept = {k: v for k, v in reply.headers.items() if k.lower() not in _HOP_BY_HOP}
            self._send(reply.status_code, kept, reply.content)

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer  # noqa: N815 - http.server's names

    return Gateway


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m local.storage_gateway", description="Cloud Storage for gcloud.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    options = parser.parse_args()
    ThreadingHTTPServer(("127.0.0.1", options.port), handler(options.upstream)).serve_forever()


if __name__ == "__main__":
    main()
