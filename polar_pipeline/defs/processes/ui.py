"""`polar ui`: Dagster's code servers, daemon and web server, and the MLflow server, kept running over one home.

Each profile that has results in the home is a code location of its own, so that their assets stand side by side. A
server that dies is started again. What the servers print goes to files in the home; the terminal shows the addresses
and what failed.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import NamedTuple

import click
import psutil
import yaml

from polar_pipeline.defs.instance import open_instance, prepare_home, runtime_folder
from polar_pipeline.defs.orphans import close_orphans, executing_pids
from polar_pipeline.defs.processes.servers import HOST, PARENT
from polar_pipeline.defs.project import Project, claim_results
from polar_pipeline.defs.resources import make_tracker
from polar_pipeline.errors import ExitCode, InputError
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.lock import serving
from polar_pipeline.tracking.store import sqlite_url

_QUICK = 30.0  # seconds; a server that dies sooner has not worked
_MOST_QUICK = 5  # deaths of that kind, one after the other, until we give up
_LONGEST_DELAY = 15.0  # seconds between a death and the next start
_GRACE = 10.0  # seconds that servers have to end when they are asked to
_LOG_BYTES, _OLD_LOGS = 5_000_000, 3


class Ports(NamedTuple):
    """Where the two user interfaces listen."""

    dagster: int
    mlflow: int


@dataclass
class Server:
    """A server that is started again when it dies."""

    title: str
    command: list[str]
    log: Path
    variables: dict[str, str] = field(default_factory=dict)  # of its environment, beside those of all servers
    optional: bool = False  # whether the others go on without it
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    quick_deaths: int = 0
    next_start: float = 0.0
    last_line: str = ""
    left: list[psutil.Process] = field(default_factory=list)  # what the process that died left running
    executing: list[psutil.Process] = field(default_factory=list)  # runs that go on without their code server

    def __post_init__(self) -> None:
        """Prepare the log, for all processes that this server has one after the other."""
        # opened with the first line, so that a disk that is full is no reason to leave what a server prints unread
        self._handler = RotatingFileHandler(
            self.log, maxBytes=_LOG_BYTES, backupCount=_OLD_LOGS, encoding="utf-8", delay=True
        )

    def start(self, environment: dict[str, str], pipe: int) -> None:
        """Start the process as the leader of a group of its own."""
        command = [sys.executable, "-m", "polar_pipeline.defs.processes.servers", *self.command]
        self.process = subprocess.Popen(
            command,
            env={**environment, **self.variables, PARENT: str(pipe)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[pipe],
        )
        self.started = time.monotonic()
        threading.Thread(target=self._keep_log, args=(self.process,), daemon=True).start()

    def note_death(self) -> str:
        """Decide when to start again; returns what to say."""
        assert self.process is not None
        code = self.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self.left = _group(self.process.pid)
        self.process = None
        self.quick_deaths = self.quick_deaths + 1 if time.monotonic() - self.started < _QUICK else 1
        delay = min(2.0 ** (self.quick_deaths - 1), _LONGEST_DELAY)
        self.next_start = time.monotonic() + delay
        if self.quick_deaths >= _MOST_QUICK:
            last = self.last_line or "none"
            return f"the {self.title} {how}, {self.quick_deaths} times in a row; its last message: {last}"
        return f"the {self.title} {how}; it is started again. Its log: {self.log}"

    @property
    def serves_code(self) -> bool:
        """Whether it serves the definitions of a profile."""
        return self.command[0] == "code"

    @property
    def needs_code(self) -> bool:
        """Whether it reads definitions from the code servers."""
        return self.command[0] in ("daemon", "webserver")

    def _keep_log(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process.stdout as pipe:
            for line in iter(lambda: pipe.readline(1 << 16), b""):
                text = line.decode(errors="replace").rstrip()
                self.last_line = text.strip() or self.last_line
                self._handler.handle(logging.makeLogRecord({"msg": text}))


def serve(project: Project, ports: Ports) -> int:
    """Run the servers until a signal ends them; returns the exit code.

    Raises InputError for a port or a home that is in use.
    """
    home, asked = project.home, threading.Event()
    for name, port in (("--dagster-port", ports.dagster), ("--mlflow-port", ports.mlflow)):
        if not _free(port):
            raise InputError(f"port {port} is in use: choose another with {name}.")
    if ports.dagster == ports.mlflow:
        raise InputError(f"port {ports.dagster} cannot be both: choose another with --mlflow-port.")
    with serving(home, project.profile.name), _signals(asked), ExitStack() as stack:
        claim_results(project)
        click.echo(f"home     {home.root}\nprofile  {project.profile.name}")
        sources = {project.profile.name: project.source, **dict(_other_profiles(project))}
        environment = {**os.environ, **prepare_home(home)}
        environment |= {"POLAR_MLFLOW_URL": _mlflow_url(ports), "POLAR_DAGSTER_URL": f"http://{HOST}:{ports.dagster}"}
        # a backfill, too, waits for the code server; otherwise Dagster fails it and cancels its queued runs
        environment["DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR"] = "true"
        tracker = make_tracker(project)
        tracker.connect()  # makes its database before several processes try to at once
        with open_instance(home.dagster) as instance:
            orphans = close_orphans(instance, home, tracker, launching=True)
        if orphans:
            click.echo(f"{len(orphans)} runs whose process is gone were marked as failed.")
        servers = _servers(project, sources, ports)
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        stack.callback(os.close, write_end)
        stack.callback(_stop, servers, asked)
        return _watch(home, servers, environment, read_end, asked, _addresses(project, sources, ports))


def _other_profiles(project: Project) -> Iterator[tuple[str, str]]:
    """Name and source (a bundled profile's name, or a path) of the other profiles with results here.

    One whose file is gone, wrong, or of another profile by now is left out with a sentence.
    """
    for name in project.home.profiles:
        if name != project.profile.name:
            try:
                yield name, Project.of_results(project.home, name).source
            except InputError as error:
                click.echo(f"profile {name} has results here and is not shown: {error}", err=True)


def _watch(
    home: Home, servers: list[Server], environment: dict[str, str], pipe: int, asked: threading.Event, addresses: str
) -> int:
    """Start the servers, and again those that die, until we are asked to end or give up."""
    announced = False
    while not asked.is_set():
        # the web server and the daemon look for the code servers when they start
        ready = announced or all(_answers(one) or one.quick_deaths for one in servers if one.serves_code)
        for server in list(servers):
            if server.process is None:
                if (ready or not server.needs_code) and time.monotonic() >= server.next_start:
                    server.start(environment, pipe)
            elif server.process.poll() is not None:
                click.echo(server.note_death(), err=True)
                if server.serves_code:
                    _keep_launched(server, home)
                _end(server.left, signal.SIGKILL)
                if server.quick_deaths >= _MOST_QUICK:
                    click.echo(f"polar: the {server.title} cannot be kept running: see {server.log}.", err=True)
                    if not server.optional:
                        return ExitCode.BROKEN_ENVIRONMENT
                    servers.remove(server)
        if not announced and all(server.process for server in servers if server.needs_code) and _answer(servers):
            announced = True
            click.echo(addresses)
        asked.wait(0.2)
    return 0


def _keep_launched(code: Server, home: Home) -> None:
    """Let the run processes of a dead code server go on whose launch the daemon has seen.

    It queues the other runs again. Their processes, which were about to start, have to end, or a run would have two.
    """
    starting = code.left[:]
    _end(starting, signal.SIGSTOP)  # none may begin while we look
    with open_instance(home.dagster) as instance:
        pids = executing_pids(instance)
    executing = [process for process in starting if process.pid in pids]
    _end(executing, signal.SIGCONT)
    code.executing = [process for process in [*code.executing, *executing] if _runs(process)]
    code.left = [process for process in starting if process not in executing]


def _answer(servers: list[Server]) -> bool:
    """Whether all servers that listen on a port accept connections; the port is the last word of their command."""
    return not any(_free(int(server.command[-1])) for server in servers if server.command[-1].isdecimal())


def _servers(project: Project, sources: dict[str, str], ports: Ports) -> list[Server]:
    """The code server of each profile first. There is no MLflow server of ours where tracking goes to another one."""
    home = project.home
    logs = home.root / "logs"
    logs.mkdir(exist_ok=True)
    logging.raiseExceptions = False  # a log that cannot be written is no reason for tracebacks
    folder = runtime_folder(home.dagster)
    for left in folder.glob("code*.sock"):
        left.unlink()
    servers, locations = [], []
    for place, (name, source) in enumerate(sources.items()):
        listens, own = folder / f"code-{place}.sock", name == project.profile.name
        locations.append({"grpc_server": {"socket": str(listens), "location_name": name}})
        title = "Dagster code server" + ("" if own else f" of profile {name}")
        log = logs / ("code-server.log" if own else f"code-server-{name}.log")
        servers.append(Server(title, ["code", str(listens), name], log, {"POLAR_PROFILE": source}, optional=not own))
    workspace = folder / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": locations}))
    servers += [
        Server("Dagster daemon", ["daemon", str(workspace)], logs / "daemon.log"),
        Server("Dagster web server", ["webserver", str(workspace), str(ports.dagster)], logs / "webserver.log"),
    ]
    if not _remote_tracking():
        artifacts = home.mlflow_artifacts.as_uri()
        store = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(home.mlflow_database)
        servers.append(Server("MLflow server", ["mlflow", store, artifacts, str(ports.mlflow)], logs / "mlflow.log"))
    return servers


def _remote_tracking() -> str | None:
    """The address of the MLflow server that runs are tracked on, if it is not ours."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    return address.rstrip("/") if address.startswith(("http://", "https://")) else None


def _mlflow_url(ports: Ports) -> str:
    return _remote_tracking() or f"http://{HOST}:{ports.mlflow}"


def _addresses(project: Project, sources: dict[str, str], ports: Ports) -> str:
    dagster = f"http://{HOST}:{ports.dagster}"
    return "\n".join(
        [
            f"Dagster  {dagster}",
            f"MLflow   {_mlflow_url(ports)}",
            *(f"report   {dagster}/polar/report/{name}/" for name in sources),
            f"logs     {project.home.root / 'logs'}",
            "Ctrl-C stops them.",
        ]
    )


@contextmanager
def _signals(asked: threading.Event) -> Iterator[None]:
    """Let the signals by which a terminal or a service manager ends a process set `asked`."""

    def ask(*_: object) -> None:
        asked.set()

    names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {name: signal.signal(name, ask) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _stop(servers: list[Server], asked: threading.Event) -> None:
    """End all servers and their children: asked to at first, and after a while, or at a second signal, killed."""
    asked.clear()
    running = [server.process for server in servers if server.process]
    everything = [process for server in servers for process in server.executing]
    everything += [member for process in running for member in _group(process.pid)]
    _end(everything, signal.SIGTERM)
    end = time.monotonic() + _GRACE
    while time.monotonic() < end and not asked.is_set():
        for process in running:
            process.poll()  # a zombie would count as running
        if not any(_runs(process) for process in everything):
            return
        asked.wait(0.1)
    everything += [member for process in running for member in _group(process.pid)]
    _end(everything, signal.SIGKILL)
    for process in running:
        process.wait()


def _group(leader: int) -> list[psutil.Process]:
    """The processes of a group. psutil knows each from a later one with its pid."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


def _end(processes: list[psutil.Process], how: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(how)
        except psutil.NoSuchProcess:
            continue


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((HOST, port)) != 0


def _answers(code: Server) -> bool:
    """Whether a code server accepts connections on its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(code.command[1]) == 0
