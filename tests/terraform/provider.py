"""A provider that has the Google provider's schema and does nothing: Terraform itself validates against it.

It answers over plugin protocol 5, of which few messages are needed; they are written as they go over the wire, so that
no generated code is. It never plans and never applies: tests plan with Terraform's own mock of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

_NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}
_VARINT, _BYTES = 0, 2


@contextmanager
def serving(schema: Path) -> Iterator[dict[str, str]]:
    """Serves a schema; yields what Terraform's environment needs to use it in the provider's place."""
    [(address, provider)] = json.loads(schema.read_text("utf-8"))["provider_schemas"].items()
    answer = schemas(provider)
    handlers: dict[str, Callable[[bytes, Any], bytes]] = {
        "GetSchema": lambda request, context: answer,
        # Settings come in the field in which they are to go back.
        "PrepareProviderConfig": lambda request, context: request,
        "ValidateResourceTypeConfig": lambda request, context: b"",
        "ValidateDataSourceConfig": lambda request, context: b"",
        "Configure": lambda request, context: b"",
        "Stop": lambda request, context: b"",
    }
    methods = {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in handlers.items()}
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", 1 << 26)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tfplugin5.Provider", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    reattach = {
        address: {
            "Protocol": "grpc",
            "ProtocolVersion": 5,
            "Pid": os.getpid(),
            "Test": True,
            "Addr": {"Network": "tcp", "String": f"127.0.0.1:{port}"},
        }
    }
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps(reattach)}
    finally:
        server.stop(0)


def schemas(provider: dict[str, Any]) -> bytes:
    """GetProviderSchema's answer."""
    parts = [_field(1, _schema(provider["provider"]))]
    for number, kind in ((2, "resource_schemas"), (3, "data_source_schemas")):
        parts += [
            _field(number, _field(1, name.encode()) + _field(2, _schema(schema)))
            for name, schema in provider[kind].items()
        ]
    return b"".join(parts)


def _schema(schema: dict[str, Any]) -> bytes:
    return _number(1, schema["version"]) + _field(2, _block(schema["block"]))


def _block(block: dict[str, Any]) -> bytes:
    attributes = (
        _field(1, name.encode())
        + _field(2, json.dumps(attribute["type"]).encode())
        + b"".join(
            _number(number, attribute.get(flag, False))
            for number, flag in ((4, "required"), (5, "optional"), (6, "computed"))
        )
        for name, attribute in block["attributes"].items()
    )
    nested = (
        _field(1, name.encode())
        + _field(2, _block(inner["block"]))
        + _number(3, _NESTING[inner["nesting_mode"]])
        + _number(4, inner.get("min_items", 0))
        + _number(5, inner.get("max_items", 0))
        for name, inner in block["block_types"].items()
    )
    return b"".join([*(_field(2, part) for part in attributes), *(_field(3, part) for part in nested)])


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(int(value)) if value else b""


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
