"""The catalogue of base models."""

from __future__ import annotations

from fastapi import APIRouter

from functions.api import views
from functions.api.asked import Reader, listed
from schemas.api import BaseModelDocument, Listed
from schemas.catalogue import CATALOGUE
from schemas.errors import Refused, problem

routes = APIRouter(prefix="/v1/models", tags=["models"])


@routes.get("", response_model=Listed[BaseModelDocument])
def list_models(caller: Reader) -> Listed[BaseModelDocument]:
    """What `base_model` may be."""
    return listed([views.base_model(row) for row in CATALOGUE.values()], lambda model: model.id, has_more=False)


@routes.get("/{model:path}", response_model=BaseModelDocument)
def retrieve(caller: Reader, model: str) -> BaseModelDocument:
    """One of them."""
    if model not in CATALOGUE:
        raise Refused([problem("unknown_model", model=model)])
    return views.base_model(CATALOGUE[model])
