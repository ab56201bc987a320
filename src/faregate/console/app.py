"""Puts the console together: doors around a FastAPI application, one router per resource."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from faregate.console import (
    alerts,
    azure_budget,
    capacities,
    changes,
    channels,
    corrections,
    deposits,
    health,
    keys,
    limits,
    metrics,
    payers,
    places,
    price_explain,
    price_files,
    prices,
    problems,
    quota_api,
    quote,
    rehearsal,
    requests,
    spend,
    tokenize,
    usage,
    verify,
)
from faregate.console.doors import BodyDoor, IdentityDoor, NameDoor
from faregate.console.state import Console

OPENAPI_PATH = "/api/openapi.json"

#: Every resource of the API, in the order of the documentation.
ROUTERS: tuple[APIRouter, ...] = (
    keys.router,
    limits.router,
    deposits.router,
    prices.router,
    price_files.router,
    price_explain.router,
    capacities.router,
    corrections.router,
    requests.router,
    usage.router,
    quote.router,
    rehearsal.router,
    payers.router,
    azure_budget.router,
    places.router,
    alerts.router,
    channels.router,
    changes.router,
    health.router,
    verify.router,
)


def create_app(console: Console) -> FastAPI:
    """The console as an ASGI application. It neither starts nor ends anything that ``console`` holds."""
    app = FastAPI(
        title="Faregate admin API",
        version=console.facts.version,
        description="Money is a decimal text in dollars, times are RFC 3339 UTC, errors are RFC 9457 problems.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.console = console
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router, prefix="/api/v1")
    app.include_router(tokenize.router)
    app.include_router(quota_api.router)
    app.include_router(azure_budget.hook)
    app.include_router(health.probes)
    app.include_router(metrics.router)
    app.include_router(spend.router)

    @app.get(OPENAPI_PATH, include_in_schema=False)
    async def openapi(request: Request) -> Response:
        return JSONResponse(_described(request.app))

    # The last one added is the outermost.
    app.add_middleware(BodyDoor, console=console)
    app.add_middleware(IdentityDoor, console=console)
    app.add_middleware(NameDoor, console=console)
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the one credential that every path wants."""
    document = app.openapi()
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"adminKey": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"adminKey": []}]
    return document
