"""Puts the console together: doors around a FastAPI application, one router per resource."""

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from faregate.console import (
    alerts,
    azure_budget,
    bulk,
    capacities,
    changes,
    channels,
    contents,
    corrections,
    deployments,
    deposits,
    health,
    keys,
    limits,
    metrics,
    model_names,
    owned,
    payers,
    peppers,
    places,
    price_explain,
    price_files,
    prices,
    problems,
    providers,
    quota_api,
    quote,
    rehearsal,
    reloading,
    requests,
    spend,
    subscriptions,
    tokenize,
    usage,
    verify,
)
from faregate.console.doors import BodyDoor, IdentityDoor, NameDoor
from faregate.console.openapi import document_of
from faregate.console.reading import in_thread
from faregate.console.repeats import RepeatDoor
from faregate.console.rights import open_to_all, permitted
from faregate.console.state import Console
from faregate.console.versions import asked_where_it_acts

OPENAPI_PATH = "/api/openapi.json"

#: Every resource of the API, in the order of the documentation.
ROUTERS: tuple[APIRouter, ...] = (
    keys.router,
    limits.router,
    bulk.router,
    deposits.router,
    prices.router,
    price_files.router,
    price_explain.router,
    capacities.router,
    providers.router,
    deployments.router,
    model_names.router,
    corrections.router,
    requests.router,
    contents.router,
    usage.router,
    quote.router,
    rehearsal.router,
    payers.router,
    subscriptions.router,
    peppers.router,
    azure_budget.router,
    places.router,
    alerts.router,
    channels.router,
    owned.router,
    reloading.router,
    changes.router,
    health.router,
    verify.router,
)

#: What is at places of its own: interfaces that others know, and doors for other systems.
ALONE: tuple[APIRouter, ...] = (tokenize.router, quota_api.router, azure_budget.hook)


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
        # Whatever is added below asks for its permission first, or is refused to everybody.
        dependencies=[Depends(permitted), Depends(asked_where_it_acts)],
    )
    app.state.console = console
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router, prefix="/api/v1")
    for router in ALONE:
        app.include_router(router)
    app.include_router(health.probes)
    app.include_router(metrics.router)
    app.include_router(spend.router)

    @app.get(OPENAPI_PATH, include_in_schema=False)
    @open_to_all("it tells what there is, and nothing of what is in it")
    async def openapi(request: Request) -> Response:
        return JSONResponse(await in_thread(lambda: document_of(request.app)))

    # The last one added is the outermost.
    app.add_middleware(RepeatDoor, console=console)
    app.add_middleware(BodyDoor, console=console)
    app.add_middleware(IdentityDoor, console=console)
    app.add_middleware(NameDoor, console=console)
    return app
