"""What schemathesis is not to try: a line break in a path. The router of functions-framework, which stands before the
API, knows no such path and says so in plain text."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def filter_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> bool:
    return not any("\n" in str(value) for value in (path_parameters or {}).values())
