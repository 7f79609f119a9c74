"""functions/main.py with services that die where a test wants it."""

from __future__ import annotations

import functools
import os

from adaptml.services import Services
from tests.crashing import crashing

_from_env = Services.from_env


@functools.cache
def _dying() -> Services:
    return crashing(os.environ["FUNCTION_TARGET"], _from_env())


Services.from_env = _dying

from functions.main import *  # noqa: E402, F403 - the functions, once what they work with is in its place
