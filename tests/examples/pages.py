"""Run the code blocks of a documentation page as a reader would; the rules stand in `test_readme.py`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("script.py")

#: Commands that set a machine up: shown to readers, not run by the tests.
SETUP = {"git", "cd", "pip", "pip3", "source", "deactivate", "sudo", "apt-get", "brew", "python3.11", "uv"}

_FENCE = re.compile(r"^( *)```([\w-]*)([^\n`]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
#: The output of a command as a part of another.
_SUBSTITUTION = re.compile(r"\$\((trygon [^()]*)\)")
_FILE_NAME = re.compile(r"# ([\w./-]+\.\w+)\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the line it starts in."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command line and the output shown below it; empty output is not compared."""

    text: str
    output: str = ""


def read_blocks(page: str) -> list[Block]:
    """Find the fenced blocks of a page."""
    return [
        Block(
            language=match[2],
            words=tuple(match[3].split()),
            text=textwrap.dedent(match[4]),
            line=page.count("\n", 0, match.start()) + 1,
        )
        for match in _FENCE.finditer(page)
    ]


def read_commands(block: Block) -> list[Command]:
    """Split a bash block into its lines, a console block into its ``$`` lines with their output."""
    text = re.sub(r"[ ]*\\\n[ ]*", " ", block.text)
    if block.language == "bash":
        return [
            Command(line.strip()) for line in text.splitlines() if line.strip() and line.strip()[0] != "#"
        ]
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not parts[0].strip(), f"line {block.line}: a console block starts with '$ '"
    return [
        Command(command.strip(), output.strip())
        for command, _, output in (p.partition("\n") for p in parts[1:])
    ]


def matches(shown: str, output: str) -> bool:
    """Say whether an output is as shown; ``...`` in what is shown stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in shown.strip().split("..."))
    return re.fullmatch(pattern, output.strip(), re.DOTALL) is not None


def free_port() -> int:
    """Find a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Reader:
    """Somebody who follows a page: a folder, a port, an instance apart from all others, and one server."""

    folder: Path
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    #: Socket paths must be short, so this one is not below pytest's folder.
    runtime_dir: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="trygon-")))
    server: subprocess.Popen[str] | None = None
    server_log: list[str] = field(default_factory=list)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        try:
            self.stop_server(is_checked=kind is None)
        finally:
            shutil.rmtree(self.runtime_dir, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """What the reader's commands see: this project's modules, this interpreter's programs."""
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "120",
            "TRYGON_HOME": str(self.folder / ".trygon"),
            "TRYGON_RUNTIME_DIR": str(self.runtime_dir),
        }

    def follow(self, block: Block) -> None:
        """Do what one block asks for."""
        if "no-run" in block.words:
            return
        text = self.with_ports(block.text)
        first_line = text.partition("\n")[0]
        if name := _FILE_NAME.match(first_line):
            path = self.folder / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif block.language == "python":
            path = self.folder / f"block_at_line_{block.line}.py"
            path.write_text(text, encoding="utf-8")
            self.run_python([path.name])
        elif block.language in {"bash", "console"}:
            for command in read_commands(block):
                output = self.run(self.with_ports(command.text))
                shown = self.with_ports(command.output)
                assert not shown or matches(shown, output), (
                    f"line {block.line}: {command.text}\nshown:\n{shown}\n\nfound:\n{output}"
                )

    def with_ports(self, text: str) -> str:
        """Put the page's own ports in place of the usual ones."""
        return text.replace("8000", str(self.port)).replace("8265", str(self.admin_port))

    def run(self, command: str) -> str:
        """Run one command line and return what it prints; nothing for setting up and for servers."""
        command = _SUBSTITUTION.sub(lambda found: self.run(found[1]).strip(), command)
        program, *arguments = shlex.split(command, comments=True)
        if program.startswith(("scripts/", "./scripts/")):
            assert os.access(ROOT / program, os.X_OK), f"{program} is not there, or not executable"
            return ""
        if program in SETUP or (program == "python" and arguments[:2] == ["-m", "venv"]):
            return ""
        if program == "python":
            return self.run_python(arguments)
        if program == "trygon" and arguments[:1] == ["run"]:
            self.start_server(arguments)
            return ""
        if program == "curl":
            if shutil.which("curl") is None:
                pytest.skip("needs curl")
            return self.run_program(["curl", "--silent", "--show-error", "--max-time", "20", *arguments])
        assert program == "trygon", f"the tests do not know how to run {command!r}: mark the block no-run"
        return self.run_program([program, *arguments])

    def run_python(self, arguments: list[str]) -> str:
        """Run ``python ARGUMENTS`` on the reader's port."""
        if arguments[0] == "-m":
            arguments = arguments[1:]
        target = self.folder / arguments[0]
        text = target.read_text(encoding="utf-8") if target.exists() else "serve.run("
        begins = self.server is None and "serve.run(" in text and "serve.start(" not in text
        begin = "start" if begins else "join"
        return self.run_program([sys.executable, str(SCRIPT), str(self.port), begin, *arguments])

    def run_program(self, command: list[str]) -> str:
        """Run a program to its end and return its standard output; anything but 0 is a failure."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, (
            f"{shlex.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.shown_server_log()}"
        )
        return done.stdout

    def start_server(self, arguments: list[str]) -> None:
        """Run ``trygon run`` until another one is started or the page ends; return when it serves."""
        self.stop_server()
        if "--port" not in arguments:
            arguments = [*arguments, "--port", str(self.port)]
        self.server = subprocess.Popen(
            ["trygon", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            executable=shutil.which("trygon", path=self.environment["PATH"]),
        )
        self.server_log.clear()
        threading.Thread(target=self._read_log, args=(self.server,), daemon=True).start()
        self._wait_served()

    def _read_log(self, server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        with server.stdout:
            self.server_log.extend(iter(server.stdout.readline, ""))

    def _wait_served(self) -> None:
        assert self.server is not None
        deadline = time.monotonic() + 30
        pause = threading.Event()
        while True:
            try:
                routes = httpx.get(f"http://127.0.0.1:{self.port}/-/routes", timeout=5)
            except httpx.TransportError:
                routes = None
            if routes is not None and routes.status_code == 200 and routes.json():
                return
            assert self.server.poll() is None, f"the server ended: {self.shown_server_log()}"
            assert time.monotonic() < deadline, f"the server does not answer: {self.shown_server_log()}"
            pause.wait(0.02)

    def stop_server(self, is_checked: bool = True) -> None:
        """Press Ctrl-C; the server must end by itself, and without a traceback (unchecked after a failure)."""
        if self.server is None:
            return
        server, self.server = self.server, None
        server.send_signal(signal.SIGINT)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
        if not is_checked:
            return
        assert server.returncode in {0, 130, -signal.SIGINT}, self.shown_server_log()
        assert "Traceback" not in self.shown_server_log(), self.shown_server_log()

    def shown_server_log(self) -> str:
        """Return what the server has printed."""
        return "".join(self.server_log)
