"""What schemathesis does not try: a line break in a path. The router of functions-framework, which stands before the
API, knows no such path and says so in plain text."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    for name, value in (case.path_parameters or {}).items():
        case.path_parameters[name] = str(value).replace("%0A", "-")  # it is quoted by now
