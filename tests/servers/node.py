"""Node with the official packages, since the promise is that stock clients work and not only Python's."""

import os
import pathlib
import subprocess

from tests.servers import commands, keeper
from tests.servers.cache import made

PACKAGES = ("socket.io-client@4.8.4",)


def executable():
    return commands.on_path("node", otherwise="there is no `node`: install Node.js 18 or newer")


def found():
    return f"node {commands.run(executable(), '--version', timeout_s=10)} ({executable()})"


def packages(*specs):
    """The node_modules folder holding exactly these packages ("name@version"), to be used as NODE_PATH."""

    def install(folder):
        (folder / "package.json").write_text('{"private": true}')
        npm(folder, "install", "--save-exact", *specs)

    return made("node-" + "+".join(specs).replace("/", "-"), install) / "node_modules"


def npm(folder, *words):
    """An npm command in a folder, with a cache of its own there."""
    program = commands.on_path("npm", otherwise="there is no `npm` to install Node's packages with")
    # npm trusts a list of authorities of its own; the machine's list also has that of a company's proxy.
    environment = {**os.environ, "NODE_OPTIONS": "--use-openssl-ca"}
    quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--cache", folder / "npm-cache"]
    commands.run(program, *words, *quiet, cwd=folder, env=environment, timeout_s=300)


class Node:
    """Runs scripts that may `require` the packages: a Path, or the script itself as text."""

    def __init__(self, *specs):
        self.executable = executable()
        self.node_path = packages(*(specs or PACKAGES))

    def run(self, script, *arguments, timeout_s=30):
        """What the script prints; a script that fails fails the test with what it said."""
        command = self._command(script, arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=self.environment(), stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"the script ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def spawn(self, script, *arguments):
        """The running script, with pipes to talk to it; it ends with the tests if not before."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen(self._command(script, arguments), **pipes, env=self.environment(), start_new_session=True)
        keeper.keep(process.pid)
        return process

    def environment(self):
        return {**os.environ, "NODE_PATH": str(self.node_path)}

    def _command(self, script, arguments):
        """`--` makes process.argv the same for both ways: the arguments start at index 2 for a file, at 1 for a text."""
        source = [str(script)] if isinstance(script, pathlib.Path) else ["-e", script, "--"]
        return [self.executable, *source, *map(str, arguments)]
