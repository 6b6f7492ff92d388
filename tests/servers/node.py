"""Node with the official packages, because stock clients have to work and not only Python's."""

import os
import pathlib
import subprocess

from tests.servers import cleanup, commands
from tests.servers.cache import made

PACKAGES = ("socket.io-client@4.8.4",)


def executable():
    return commands.on_path("node", otherwise="there is no `node`: install Node.js 18 or newer")


def found():
    return f"node {commands.run(executable(), '--version', timeout_s=10)} ({executable()})"


def packages(*specs):
    """Return a node_modules folder with exactly these packages ("name@version"), for NODE_PATH."""

    def install(folder):
        (folder / "package.json").write_text('{"private": true}')
        npm(folder, "install", "--save-exact", *specs)

    return made("node-" + "+".join(specs).replace("/", "-"), install) / "node_modules"


def npm(folder, *words):
    """Run an npm command in a folder, with a cache in that folder."""
    program = commands.on_path("npm", otherwise="there is no `npm` to install Node's packages with")
    # npm has its own list of certificate authorities; the machine's list also has the authority of a company's proxy.
    environment = {**os.environ, "NODE_OPTIONS": "--use-openssl-ca"}
    quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--cache", folder / "npm-cache"]
    commands.run(program, *words, *quiet, cwd=folder, env=environment, timeout_s=300)


class Node:
    """Runs scripts that may `require` the packages. A script is a Path or text."""

    def __init__(self, *specs):
        self.executable = executable()
        self.node_path = packages(*(specs or PACKAGES))

    def run(self, script, *arguments, timeout_s=30):
        """Return what the script prints. If the script fails, the test fails with its output."""
        command = self._command(script, arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=self.environment(), stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"the script ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def spawn(self, script, *arguments):
        """Start the script and return its process, with pipes. It is killed when the tests end, if not before."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen(self._command(script, arguments), **pipes, env=self.environment(), start_new_session=True)
        cleanup.kill_at_end(process.pid)
        return process

    def environment(self):
        return {**os.environ, "NODE_PATH": str(self.node_path)}

    def _command(self, script, arguments):
        """After `--`, process.argv has the arguments from index 2 (script in a file) or from index 1 (script as text)."""
        source = [str(script)] if isinstance(script, pathlib.Path) else ["-e", script, "--"]
        return [self.executable, *source, *map(str, arguments)]
