"""The load generator: C sources in generator/, compiled once per version into the cache of the tests, and driven line by line."""

import contextlib
import hashlib
import json
import pathlib
import re
import subprocess
import time
from typing import Any

from app import sdk
from app.identity.tokens import make_token
from bench import cpu
from tests.servers import cleanup, commands
from tests.servers.cache import made

CLIENT = pathlib.Path(sdk.__file__).with_name("realtime.js")
SOURCES = pathlib.Path(__file__).with_name("generator")
NO_COMPILER = "there is no C compiler for the load generator: install one, for example with `apt-get install gcc libc6-dev`"
PUBLISHER = {"sub": "publisher", "role": "service", "topics": {"pub": ["*"], "sub": ["*"]}}
TOKEN_TTL_S = 86_400


def program() -> pathlib.Path:
    """Return the compiled generator. Raises Unavailable with a sentence where no compiler is installed."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    state = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]

    def compile_into(folder: pathlib.Path) -> None:
        compiler = commands.on_path("cc", "gcc", "clang", otherwise=NO_COMPILER)
        commands.run(compiler, "-O2", "-Wall", "-o", folder / "generator", *SOURCES.glob("*.c"))

    return made(f"bench-realtime-generator-{state}", compile_into) / "generator"


def ack_habit() -> tuple[int, int]:
    """Return (messages, milliseconds) after which the project's JavaScript client acknowledges."""
    text = CLIENT.read_text()
    return tuple(int(re.search(rf"const {name} = (\d+);", text)[1]) for name in ("ACK_AFTER", "ACK_AFTER_MS"))  # type: ignore[return-value,index]


class Generator:
    """One process with the publisher and the subscribers of one server. Every method returns the figures that the generator counted."""

    def __init__(self, port: int, secret: str, ack: tuple[int, int] = (0, 0)):
        self._secret = secret
        self._folder = cleanup.new_folder("generator")
        with cpu.pinned(cpu.OTHER_CORES):
            command = [str(word) for word in (program(), port, *ack)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        cleanup.kill_at_end(self._process.pid)

    def connect(self, count: int) -> dict[str, Any]:
        """Join /realtime with the publisher and `count` subscribers, each a user with a token of its own."""
        expires = int(time.time()) + TOKEN_TTL_S
        users = ({"sub": f"u{number}", "topics": {"sub": ["bench:*"]}} for number in range(count))
        tokens = (make_token(self._secret, {**claims, "exp": expires}) for claims in (PUBLISHER, *users))
        path = self._folder / "tokens"
        path.write_text("\n".join(tokens) + "\n")
        return self.do("connect", path, count)

    def do(self, *words: object) -> dict[str, Any]:
        """Send a command of main.c and wait for its result. Raises RuntimeError if the generator gave up; it has printed why."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator gave up at: {' '.join(map(str, words))}")
        return json.loads(line)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        cleanup.forget(self._process.pid)
        cleanup.remove(self._folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
