"""`trygon load`: requests on schedule, and what came of them."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from trygon.cli.load_view import as_text, progress_line
from trygon.cli.terminal import Terminal
from trygon.errors import ConfigError
from trygon.loadtest.fleet import Fleet, find_address, split
from trygon.loadtest.limits import Limit, parse_limit
from trygon.loadtest.plan import LoadPlan, Target, TlsFiles, encode_request, parse_url
from trygon.loadtest.schedule import Phase, parse_duration, parse_ramp, parse_rate
from trygon.loadtest.sender import make_context

__all__ = ["load"]

_DURATION_S = 10.0
_CLOSED_CONNECTIONS = 64
#: An open loop opens what it needs; this bounds what a hanging service can cost.
_OPEN_CONNECTIONS = 1000
_PERIOD_S = 0.25
_INTERRUPTED = 130
_LIMIT_BROKEN = 3
#: Beyond a machine of one's own, more than this is worth a word.
_POLITE_RPS = 1000.0
_LOOPBACK = re.compile(r"127\.|::1$")

_Value = TypeVar("_Value")


class _Parsed(click.ParamType[_Value]):
    """An option whose text a pure function reads."""

    def __init__(self, name: str, read: Callable[[str], _Value]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _Value:
        try:
            # A default is not text, and is as it shall be.
            found: _Value = self._read(value) if isinstance(value, str) else value
            return found
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ConfigError(f"wanted a header such as 'Accept: application/json', found {text!r}")
    return name.strip(), value.strip()


_DURATION = _Parsed("DURATION", parse_duration)
_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command(
    short_help="Send load to a URL and show what comes of it.",
    epilog="Exit codes: 0 it was done; 1 nothing was answered, or an error; 3 a --fail-if holds; 130 after Ctrl-C.",
)
@click.argument("target", metavar="URL", type=_Parsed("URL", parse_url))
@click.option(
    "-c",
    "--connections",
    type=click.IntRange(1, 20000),
    help="Closed loop: clients at once (64). Open loop: connections at most (1000).",
)
@click.option(
    "-r",
    "--rate",
    type=_Parsed("RATE", parse_rate),
    help="Open loop: requests that leave on time, whatever the service does, e.g. 500/s.",
)
@click.option(
    "--ramp",
    "ramps",
    multiple=True,
    type=_Parsed("FROM:TO/DURATION", parse_ramp),
    help="Open loop with a rate that grows or falls, e.g. 100:1000/60s; several follow each other.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["poisson", "constant"]),
    default="poisson",
    show_default=True,
    help="Open loop: at random, as independent clients do, or evenly spaced.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is random.")
@click.option(
    "-d", "--duration", type=_DURATION, help="How long; 10s unless --requests or --ramp says when to end."
)
@click.option("-n", "--requests", "count", type=click.IntRange(1), help="End after so many requests.")
@click.option("--warmup", type=_DURATION, default=0.0, help="Send so long before counting begins.")
@click.option("--timeout", type=_DURATION, default=10.0, help="Give a request up after it (10s).")
@click.option("-X", "--method", help="GET, or POST when there is a body.")
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    type=_Parsed("HEADER", _header),
    help="'Name: value'; may be repeated.",
)
@click.option("-b", "--body", help="What to send, as text.")
@click.option("--body-file", type=_FILE, help="What to send, from a file.")
@click.option("--bodies", "bodies_file", type=_FILE, help="A file with a body on each line, sent in turn.")
@click.option("--bearer-file", type=_FILE, help="A file with a token, sent as 'Authorization: Bearer'.")
@click.option(
    "--new-connections",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the requests that get a connection of their own.",
)
@click.option("-k", "--insecure", is_flag=True, help="Accept any certificate.")
@click.option("--cacert", type=_FILE, help="Trust the authorities in this file.")
@click.option("--cert", type=_FILE, help="Certificate of the client.")
@click.option("--key", type=_FILE, help="Its key, if that is another file.")
@click.option(
    "-p",
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that send; one is good for some 20,000 requests a second.",
)
@click.option(
    "--fail-if",
    "limits",
    multiple=True,
    type=_Parsed("CONDITION", parse_limit),
    help="Exit with 3 when it holds: 'p99>200ms', 'errors>0.1%', 'rate<500/s'; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the JSON object into a file as well.",
)
def load(
    target: Target, *, limits: tuple[Limit, ...], as_json: bool, output: Path | None, **options: Any
) -> int:
    r"""Send requests to URL and show latencies, errors and the rate.

    Without --rate or --ramp it is a closed loop: each of --connections clients waits for its answer before it sends
    again, which finds out what a service can do. With them it is an open loop: requests leave on time whatever
    the service does, and their latency counts from then, which shows what users would see.

    \b
    Examples:
      trygon load http://127.0.0.1:8000/ --connections 64 --duration 30s
      trygon load http://127.0.0.1:8000/predict --rate 500/s --body '{"x": 1}'
      trygon load :8000/predict --ramp 100:1000/60s --bodies rows.jsonl --fail-if 'p99>200ms'
    """
    address = find_address(target, timeout_s=options["timeout"])
    plan = _plan(target, address, options)
    terminal = Terminal(sys.stderr)
    _warn(terminal, plan)
    is_interrupted = False
    with Fleet(split(plan, options["processes"])) as fleet:
        try:
            for result in fleet.progress(_PERIOD_S):
                terminal.status(progress_line(plan, result))
        except KeyboardInterrupt:
            is_interrupted = True
            terminal.status(
                "stopping: waiting for the answers that are under way; Ctrl-C again leaves at once"
            )
            try:
                fleet.stop()
            except KeyboardInterrupt:
                pass
        terminal.status("")
        has_failed = fleet.has_failed and not is_interrupted
        result = fleet.result
    if has_failed:
        raise ConfigError("a sender ended before its time; what it said is above")
    data = {"url": target.url, "loop": "open" if plan.phases else "closed", **result.to_builtins()}
    broken = [limit for limit in limits if limit.holds(result)]
    data["broken_limits"] = [limit.text for limit in broken]
    encoded = msgspec.json.format(msgspec.json.encode(data), indent=2)
    if output is not None:
        output.write_bytes(encoded + b"\n")
    click.echo(encoded if as_json else as_text(plan, result, options["processes"], broken))
    if is_interrupted:
        return _INTERRUPTED
    if broken:
        return _LIMIT_BROKEN
    return 0 if result.num_completed else 1


def _plan(target: Target, address: str, options: dict[str, Any]) -> LoadPlan:
    phases = _phases(options)
    duration_s = options["duration"]
    if phases and options["ramps"]:
        ramped_s = sum(phase.length_s for phase in phases) - options["warmup"]
        duration_s = ramped_s if math.isfinite(ramped_s) else duration_s
    elif duration_s is None and options["count"] is None:
        duration_s = _DURATION_S
    if options["count"] is not None and options["count"] < options["processes"]:
        raise click.UsageError("--requests must be at least as many as --processes")
    default = _OPEN_CONNECTIONS if phases else max(_CLOSED_CONNECTIONS, options["processes"])
    connections = options["connections"] or default
    if connections < options["processes"]:
        raise click.UsageError("--connections must be at least as many as --processes")
    method, requests = _requests(target, options)
    return LoadPlan(
        target=target,
        address=address,
        tls=_tls(target, options),
        requests=requests,
        is_head=method == "HEAD",
        connections=connections,
        new_connections=options["new_connections"],
        phases=phases,
        is_poisson=options["arrivals"] == "poisson",
        seed=options["seed"],
        warmup_s=options["warmup"],
        duration_s=duration_s,
        max_requests=options["count"],
        timeout_s=options["timeout"],
    )


def _phases(options: dict[str, Any]) -> tuple[Phase, ...]:
    rate, ramps, duration_s = options["rate"], options["ramps"], options["duration"]
    if rate is not None and ramps:
        raise click.UsageError("--rate and --ramp exclude each other; a ramp may begin and end with one rate")
    if ramps and duration_s is not None:
        raise click.UsageError("a --ramp says how long it takes; leave --duration out")
    if rate is None:
        return tuple(ramps)
    # Longer than any test: the end is decided by the duration or the number of requests.
    return (Phase(rate, rate, 1e9),)


def _requests(target: Target, options: dict[str, Any]) -> tuple[str, tuple[bytes, ...]]:
    given = [name for name in ("body", "body_file", "bodies_file") if options[name] is not None]
    if len(given) > 1:
        raise click.UsageError("of --body, --body-file and --bodies only one can be given")
    bodies = [b""]
    if options["body"] is not None:
        bodies = [options["body"].encode()]
    elif options["body_file"] is not None:
        bodies = [options["body_file"].read_bytes()]
    elif options["bodies_file"] is not None:
        bodies = [line for line in options["bodies_file"].read_bytes().splitlines() if line.strip()]
        if not bodies:
            raise click.UsageError(f"{str(options['bodies_file'])!r} has no line with a body")
    method = (options["method"] or ("POST" if given else "GET")).upper()
    headers = list(options["headers"])
    if options["bearer_file"] is not None:
        token = options["bearer_file"].read_text().strip()
        headers.append(("Authorization", f"Bearer {token}"))
    if given and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", _content_type(bodies[0])))
    return method, tuple(encode_request(target, method, headers, body) for body in bodies)


def _content_type(body: bytes) -> str:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            body.decode()
        except UnicodeDecodeError:
            return "application/octet-stream"
        return "text/plain; charset=utf-8"
    return "application/json"


def _tls(target: Target, options: dict[str, Any]) -> TlsFiles | None:
    names = ("cacert", "cert", "key")
    if target.scheme != "https":
        given = [name for name in (*names, "insecure") if options[name]]
        if given:
            raise click.UsageError(f"--{given[0]} is for https, and the URL is {target.url!r}")
        return None
    paths = {name: None if options[name] is None else os.fspath(options[name]) for name in names}
    files = TlsFiles(
        is_verified=not options["insecure"], ca_cert=paths["cacert"], cert=paths["cert"], key=paths["key"]
    )
    try:
        make_context(files)
    except OSError as error:
        raise ConfigError(
            f"the certificate files cannot be used: {error}; they must be PEM and fit together"
        ) from None
    return files


def _warn(terminal: Terminal, plan: LoadPlan) -> None:
    highest = max((max(phase.start_rps, phase.end_rps) for phase in plan.phases), default=math.inf)
    if not _LOOPBACK.match(plan.address) and highest > _POLITE_RPS:
        terminal.line(
            f"{plan.target.authority} is another machine: make sure that its owner expects this load"
        )
