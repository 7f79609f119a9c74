"""What `terraform apply` has gcloud do to the page's service, done by the real gcloud to a stand-in of Cloud Run."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.terraform.deployment import FACES, deployment
from tests.terraform.rights import NUMBER

READY = [{"type": kind, "status": "True"} for kind in ("Ready", "ConfigurationsReady", "RoutesReady")]
SERVICE: dict[str, Any] = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {
        "name": "adaptml-dashboard",
        "namespace": NUMBER,
        "generation": 1,
        "annotations": {"run.googleapis.com/ingress": "all"},
        "labels": {"cloud.googleapis.com/location": "us-central1", "app": "adaptml"},
    },
    "spec": {
        "template": {
            "metadata": {"annotations": {"run.googleapis.com/sessionAffinity": "true"}},
            "spec": {"timeoutSeconds": 3600, "containers": [{"image": "x/dashboard@sha256:0"}]},
        },
        "traffic": [{"percent": 100, "latestRevision": True}],
    },
    "status": {"observedGeneration": 1, "conditions": READY, "latestReadyRevisionName": "r", "url": "https://page"},
}


class CloudRun(ThreadingHTTPServer):
    """Holds one service and its policy, as gcloud reads and writes them."""

    def __init__(self) -> None:
        self.service = copy.deepcopy(SERVICE)
        self.policy: dict[str, Any] = {"bindings": []}
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    """gcloud asks it as its proxy, so that names of hosts need not be known."""

    server: CloudRun

    def do_GET(self) -> None:
        self._say(self.server.policy if ":getIamPolicy" in self.path else self.server.service)

    def do_PUT(self) -> None:
        self.server.service = self._body() | {"status": SERVICE["status"]}
        self._say(self.server.service)

    def do_POST(self) -> None:
        self.server.policy = {"bindings": self._body()["policy"]["bindings"]}
        self._say(self.server.policy)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nobody reads it."""

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _say(self, said: dict[str, Any]) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def cloud_run() -> Iterator[CloudRun]:
    with CloudRun() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_command_puts_the_proxy_before_the_page_and_changes_nothing_that_terraform_looks_at(
    cloud_run: CloudRun, tmp_path: Path
) -> None:
    resources = list(deployment().resources(run=FACES))
    [command] = [row.values["input"] for row in resources if ".terraform_data.proxy" in row.address]
    environment = os.environ | {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN": "http://run.invalid/",
        "CLOUDSDK_PROXY_TYPE": "http_no_tunnel",
        "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
        "CLOUDSDK_PROXY_PORT": str(cloud_run.server_address[1]),
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(tmp_path),
    }
    for _ in range(2):  # each apply may do it again
        done = subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    made = cloud_run.service["metadata"]["annotations"]
    assert made["run.googleapis.com/iap-enabled"] == "true"
    left = set(made) - set(SERVICE["metadata"]["annotations"])
    # The provider calls them client, client_version and launch_stage, and the module ignores changes of these.
    assert left == {
        f"run.googleapis.com/{name}" for name in ("iap-enabled", "client-name", "client-version", "launch-stage")
    }
    assert cloud_run.service["spec"] == SERVICE["spec"]
    assert cloud_run.service["metadata"]["labels"] == SERVICE["metadata"]["labels"]

    # gcloud lets the proxy call the page, which Terraform does as well: it is the same right, once.
    bound = [
        row.values["member"]
        for row in resources
        if row.type == "google_cloud_run_v2_service_iam_member" and row.values["name"] == "adaptml-dashboard"
    ]
    assert cloud_run.policy == {"bindings": [{"role": "roles/run.invoker", "members": bound}]}
