"""Names, ports and environment of one local cloud. Pure."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from schemas.topology import TOPOLOGY

PROJECT = "adaptml-local"
REGION = "us-central1"
DROPS_BUCKET = "adaptml-drops"
ARTIFACTS_BUCKET = "adaptml-artifacts"
MODELS_BUCKET = "adaptml-models"
STORAGE_TOPIC = TOPOLOGY.storage_topic
"""Between fake-gcs-server and the Eventarc router; Google's Eventarc keeps its own out of sight."""


class Ports(BaseModel):
    """One free port for each part."""

    model_config = ConfigDict(frozen=True)

    pubsub: int
    firestore: int
    storage_http: int
    storage_https: int
    gateway: int
    eventarc: int
    jobs: int
    functions: dict[str, int]

    @classmethod
    def free(cls) -> Ports:
        """Asks the kernel for ports that nobody listens on. All are held until all are found."""
        ours = [name for name in cls.model_fields if name != "functions"]
        names = [*ours, *TOPOLOGY.functions]
        sockets = {}
        for name in names:
            sockets[name] = socket.socket()
            sockets[name].bind(("127.0.0.1", 0))
        ports = {name: s.getsockname()[1] for name, s in sockets.items()}
        for s in sockets.values():
            s.close()
        return cls(**{n: ports[n] for n in ours}, functions={n: ports[n] for n in TOPOLOGY.functions})


def client_environment(ports: Ports, home: Path, token: str = "") -> dict[str, str]:
    """What any client needs to reach the local cloud: the content of `.local/env`. `token` is the API's."""
    storage = f"http://127.0.0.1:{ports.storage_http}"
    return {
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{ports.pubsub}",
        "FIRESTORE_EMULATOR_HOST": f"127.0.0.1:{ports.firestore}",
        "STORAGE_EMULATOR_HOST": storage,
        "CLOUD_RUN_EMULATOR_HOST": f"127.0.0.1:{ports.jobs}",
        "BOTO_CONFIG": str(home / "boto"),
        "CLOUDSDK_CONFIG": str(home / "gcloud"),
        "CLOUDSDK_CORE_PROJECT": PROJECT,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"http://127.0.0.1:{ports.gateway}/storage/v1/",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"http://127.0.0.1:{ports.pubsub}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "ADAPTML_DROPS_BUCKET": DROPS_BUCKET,
        "ADAPTML_LOCAL_LOGS": str(home / "logs"),
        "ADAPTML_ARTIFACTS_BUCKET": ARTIFACTS_BUCKET,
        "ADAPTML_MODELS_BUCKET": MODELS_BUCKET,
        "ADAPTML_API_URL": f"http://127.0.0.1:{ports.functions['api']}",
        "ADAPTML_API_TOKEN": token,
    }


def env_file(environment: dict[str, str]) -> str:
    """The environment as a shell script to be sourced."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())


def boto_file(ports: Ports, home: Path) -> str:
    """gsutil's configuration: the local server, its self-signed certificate, state of its own."""
    return f"""[Credentials]
gs_json_host = 127.0.0.1
gs_json_port = {ports.storage_https}
[Boto]
https_validate_certificates = False
num_retries = 3
[GSUtil]
default_project_id = {PROJECT}
state_dir = {home / "gsutil"}
software_update_check_period = 0
"""
