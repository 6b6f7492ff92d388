"""The base of all real servers: a process with a port and a folder for its data and log, killed when the tests end."""

import os
import signal
import subprocess
import time

from tests.servers import cleanup
from tests.servers.ports import free_port, is_listening, wait_until_closed


class Server:
    """A server as a child process. It keeps its port and folder through stop, kill and restart, until `close`.

    A subclass defines `command`. It overrides `answers` (is the server ready?) and `environment` where the defaults do not fit.
    """

    name = "server"
    starts_within_s = 60
    stops_within_s = 60

    def __init__(self):
        self.port = free_port()
        self.folder = cleanup.new_folder(self.name)
        self.process = None

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def answers(self):
        return is_listening(self.port)

    def start(self):
        with open(self._log_path, "ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in self.command()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=self.environment(), cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        cleanup.kill_at_end(self.process.pid)
        deadline = time.monotonic() + self.starts_within_s
        while not self.answers():
            assert self.is_running, f"{self.name} ended with {self.process.returncode} before it answered:\n{self.log}"
            assert time.monotonic() < deadline, f"{self.name} did not answer within {self.starts_within_s} s:\n{self.log}"
            time.sleep(0.05)
        return self

    def stop(self):
        """Send SIGTERM, wait for the end, and return the seconds it took."""
        started = time.monotonic()
        self._signal(signal.SIGTERM)
        try:
            self._wait(self.stops_within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} was still running {self.stops_within_s} s after SIGTERM:\n{self.log}") from None
        return time.monotonic() - started

    def kill(self):
        """Send SIGKILL to the whole process group, so that no process of it can clean up."""
        if self.is_running:
            os.killpg(self.process.pid, signal.SIGKILL)
            self._wait(10)
            # The workers, killed with the first process, may hold the port for a moment longer.
            wait_until_closed(self.port)

    def restart(self):
        """Stop the server if it runs, and start it on the same port and data."""
        if self.is_running:
            self.stop()
        return self.start()

    def pause(self):
        """Stop the process without closing its connections: nothing answers until `resume`."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.killpg(self.process.pid, signal.SIGCONT)

    def close(self):
        self.kill()
        cleanup.remove(self.folder)

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def workers(self):
        """The process ids of the children."""
        done = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        rows = (map(int, row.split()) for row in done.stdout.splitlines())
        return [pid for pid, parent in rows if parent == self.process.pid]

    @property
    def exit_code(self):
        """None while the process runs; a negative number is the signal that ended it."""
        return self.process.poll()

    @property
    def log(self):
        """All output since the first start."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    @property
    def _log_path(self):
        return self.folder / "log"

    def _signal(self, number):
        if self.is_running:
            self.process.send_signal(number)

    def _wait(self, seconds):
        if self.process is not None:
            self.process.wait(seconds)
            cleanup.forget(self.process.pid)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()
