"""Secret Manager for tests, which has no emulator: a gRPC server of Google's own message types with one secret."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import google_crc32c
import grpc
from google.cloud.secretmanager_v1 import types

METHOD = "google.cloud.secretmanager.v1.SecretManagerService"


@contextmanager
def holding(version: str, value: bytes, *, crc32c: int | None = None) -> Iterator[str]:
    """Serves one version of a secret, and refuses others; yields host:port."""

    def access(request: Any, context: grpc.ServicerContext) -> types.AccessSecretVersionResponse:
        if request.name != version:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        checksum = google_crc32c.value(value) if crc32c is None else crc32c
        payload = types.SecretPayload(data=value, data_crc32c=checksum)
        return types.AccessSecretVersionResponse(name=version, payload=payload)

    handler = grpc.unary_unary_rpc_method_handler(
        access,
        request_deserializer=types.AccessSecretVersionRequest.deserialize,
        response_serializer=types.AccessSecretVersionResponse.serialize,
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(METHOD, {"AccessSecretVersion": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)
