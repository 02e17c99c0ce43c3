"""The servers of `polar ui`: `python -m polar_pipeline.defs.processes.servers NAME ...`, each in a process of its own.

They listen on this machine only. Beside what Dagster and MLflow serve, there are the reports, and links between the two
that hold whatever the ports are. Each server ends with the process that started it, even if that one is killed.
"""

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from polar_pipeline.defs.processes.workers import ONE_THREAD
from polar_pipeline.storage.home import Home

if TYPE_CHECKING:
    from starlette.applications import Starlette

HOST = "127.0.0.1"  # there is no login, so nobody but this machine may reach them
PARENT = "POLAR_UI_PIPE"  # the descriptor of a pipe that the starting process holds open
# What a run imports. Not torch: a process that has used CUDA must not be forked.
PRELOADED = [
    "polar_pipeline.definitions",
    "polar_pipeline.backbones.linear.backbone",
    "polar_pipeline.corpus.posts",
    "polar_pipeline.report.page",
    "alembic.command",
    "dagster._grpc.impl",
    "matplotlib.pyplot",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandera.pandas",
    "pyarrow.dataset",
    "safetensors.numpy",
    "sklearn.feature_extraction.text",
    "watchdog.observers",
]
_GRACE = 10.0  # seconds that a server and its children have to end when they are asked to
# the report may show what it has in itself, and nothing in it may act on the server that it comes from
_REPORT_HEADERS = {
    "Content-Security-Policy": "sandbox allow-scripts allow-popups allow-downloads",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def code_server(socket_path: str, profile: str) -> None:
    """Serve a profile's definitions, and start the runs that the daemon launches, over a socket.

    Dagster starts each run by spawning, which imports everything anew and costs more than a light run itself. Ours are
    forked from a process that has imported it and done nothing else. The rest of Dagster's server is as it was.
    """
    from dagster._cli.api import grpc_command
    from dagster._grpc import server

    class CodeServer(server.DagsterApiServer):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            if hasattr(self, "_mp_ctx"):
                self._mp_ctx = run_processes()

    os.environ.update(ONE_THREAD)  # as for `polar run`: runs share the cores
    server.DagsterApiServer = CodeServer  # type: ignore[misc] # what `grpc_command` makes
    arguments = ["--socket", socket_path, "--module-name", "polar_pipeline.definitions", "--location-name", profile]
    grpc_command([*arguments, "--log-level", "warning"], standalone_mode=False)


def run_processes() -> Any:
    """How processes of runs are started: forked from a preloaded server on Linux, spawned where forking is not safe."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def daemon(workspace: str) -> None:
    """Launch queued runs, and evaluate schedules, sensors and automation conditions."""
    from dagster._daemon.cli import run_command
    from dagster._serdes import serialize_value

    from polar_pipeline.defs.instance import open_instance

    _look_at_backfills_often()
    with open_instance(Home.from_environment().dagster) as instance:
        reference = serialize_value(
            instance.get_ref()
        )  # with our event log, for the daemon and the runs that it launches
    arguments = ["--workspace", workspace, "--instance-ref", reference, "--log-level", "warning"]
    run_command(arguments, standalone_mode=False)


def _look_at_backfills_often() -> None:
    """Look at backfills every five seconds, not thirty, and let them wait for a code server.

    Dagster has no settings for it, and fails a backfill of assets at once if it looks while a code server is starting.
    """
    from dagster._core.errors import DagsterAssetBackfillDataLoadError
    from dagster._daemon import backfill, controller

    otherwise = backfill._is_retryable_backfill_error

    def can_retry(e: Exception) -> bool:
        return isinstance(e, DagsterAssetBackfillDataLoadError) or otherwise(e)

    backfill._is_retryable_backfill_error = can_retry
    os.environ.setdefault("DAGSTER_MAX_BACKFILL_RETRIES", "120")  # ten minutes, as for queued runs
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 5


def webserver(workspace: str, port: str) -> None:
    """Dagster's own application, with our routes before its catch-all."""
    import dagster as dg
    import uvicorn
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.cli import DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_MAX_OVERFLOW, DEFAULT_POOL_RECYCLE

    with dg.DagsterInstance.get() as instance:
        instance.optimize_for_webserver(DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_RECYCLE, DEFAULT_POOL_MAX_OVERFLOW)
        with WorkspaceProcessContext(instance, WorkspaceFileTarget(paths=[workspace])) as context:
            app: Starlette = create_app_from_workspace_process_context(context)
            app.router.routes[:0] = dagster_routes(Home.from_environment(), os.environ["POLAR_MLFLOW_URL"])
            uvicorn.run(app, host=HOST, port=int(port), log_level="warning", timeout_graceful_shutdown=3)


def mlflow_server(store: str, artifacts: str, port: str) -> None:
    """MLflow's own application over a tracking store, with our routes before its catch-all."""
    from mlflow.server import constants

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store,
        constants.ARTIFACT_ROOT_ENV_VAR: artifacts,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # processes that evaluate prompts, which nobody here does
    }
    import uvicorn
    from mlflow.server.fastapi_app import app  # reads the variables
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(store, None, artifacts)
    app.router.routes[:0] = mlflow_routes(Home.from_environment(), os.environ["POLAR_DAGSTER_URL"])
    uvicorn.run(app, host=HOST, port=int(port), log_level="warning", timeout_graceful_shutdown=3)


def dagster_routes(home: Home, mlflow: str) -> list[Route]:
    """Reports, and links to MLflow, wherever it listens at present."""
    import httpx

    async def run(request: Request) -> Response:
        identity = request.path_params["run_id"]
        if not re.fullmatch(r"[0-9a-f]{32}", identity):
            return _not_found("MLflow run")
        try:
            async with httpx.AsyncClient(timeout=10) as client:
                answer = await client.get(f"{mlflow}/api/2.0/mlflow/runs/get", params={"run_id": identity})
        except httpx.HTTPError:
            return PlainTextResponse(f"MLflow does not answer at {mlflow}.", 502)
        if answer.status_code != 200:
            return _not_found("MLflow run")
        experiment = answer.json()["run"]["info"]["experiment_id"]
        return RedirectResponse(f"{mlflow}/#/experiments/{experiment}/runs/{identity}")

    return [Route("/polar/mlflow/runs/{run_id}", run), *_report_routes(home)]


def mlflow_routes(home: Home, dagster: str) -> list[Route]:
    """Reports, and links to Dagster, wherever it listens at present."""

    async def run(request: Request) -> Response:
        identity = request.path_params["run_id"]
        if not re.fullmatch(r"[0-9a-f-]{36}", identity):
            return _not_found("Dagster run")
        return RedirectResponse(f"{dagster}/runs/{identity}")

    return [Route("/polar/dagster/runs/{run_id}", run), *_report_routes(home)]


def _report_routes(home: Home) -> list[Route]:
    async def report(request: Request) -> Response:
        profile = request.path_params["profile"]
        file = home.results(profile).report
        if not re.fullmatch(r"\w[\w .-]*", profile) or not file.is_file():  # a name of a folder, not a path
            return _not_found("report of this profile; `polar run` makes it")
        return FileResponse(file, media_type="text/html", headers=_REPORT_HEADERS)

    async def slash(request: Request) -> Response:
        return RedirectResponse(f"{request.url.path}/")

    return [Route("/polar/report/{profile}/", report), Route("/polar/report/{profile}", slash)]


def _not_found(what: str) -> Response:
    return PlainTextResponse(f"There is no such {what}.", 404)


def _end_with_parent(descriptor: int) -> None:
    """End this process and its children once the other end of the pipe is closed, as it is when that process dies."""
    os.set_inheritable(descriptor, False)

    def watch() -> None:
        os.read(descriptor, 1)
        os.killpg(0, signal.SIGTERM)
        time.sleep(_GRACE)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


_SERVERS: dict[str, Any] = {"code": code_server, "daemon": daemon, "webserver": webserver, "mlflow": mlflow_server}

if __name__ == "__main__":
    _end_with_parent(int(os.environ.pop(PARENT)))
    _SERVERS[sys.argv[1]](*sys.argv[2:])
