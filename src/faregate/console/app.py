"""Puts the console together: doors around a FastAPI application, one router per resource."""

from collections.abc import Sequence
from functools import cache

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from faregate.console import (
    alerts,
    azure_budget,
    bulk,
    capacities,
    changes,
    channels,
    comparing,
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
    pools,
    price_explain,
    price_files,
    prices,
    problems,
    providers,
    quota_api,
    quote,
    rehearsal,
    reloading,
    reports,
    requests,
    response_cache,
    services,
    spend,
    subscriptions,
    tokenize,
    usage,
    verify,
    ways,
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
    pools.router,
    model_names.router,
    services.router,
    corrections.router,
    requests.router,
    contents.router,
    usage.router,
    reports.router,
    comparing.router,
    response_cache.router,
    quote.router,
    rehearsal.router,
    payers.router,
    subscriptions.router,
    peppers.router,
    azure_budget.router,
    places.router,
    ways.router,
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

#: Whatever is added to a console asks for its permission first, or is refused to everybody.
FIRST = (Depends(permitted), Depends(asked_where_it_acts))


@cache
def _routes() -> Sequence[BaseRoute]:
    """The routes, which are the same for every console of a process.

    FastAPI takes them apart at the first request, which takes longer than nearly all requests do: once is enough.
    """
    routes = APIRouter(dependencies=FIRST)
    for router in ROUTERS:
        routes.include_router(router, prefix="/api/v1")
    for router in ALONE:
        routes.include_router(router)
    routes.include_router(health.probes)
    routes.include_router(metrics.router)
    routes.include_router(spend.router)

    @routes.get(OPENAPI_PATH, include_in_schema=False)
    @open_to_all("it tells what there is, and nothing of what is in it")
    async def openapi(request: Request) -> Response:
        return JSONResponse(await in_thread(lambda: document_of(request.app)))

    return routes.routes


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
        dependencies=FIRST,
    )
    app.state.console = console
    problems.install(app)
    app.router.routes.extend(_routes())
    # The last one added is the outermost.
    app.add_middleware(RepeatDoor, console=console)
    app.add_middleware(BodyDoor, console=console)
    app.add_middleware(IdentityDoor, console=console)
    app.add_middleware(NameDoor, console=console)
    return app
