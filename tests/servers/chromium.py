"""The machine's own Chromium or Chrome, driven by Playwright. Only a real browser shows what a page sends at unload.

Playwright's synchronous interface does not work with gevent's monkey patches. Therefore the test process is never patched,
and the app under test runs in a process of its own (switchyard.py).
"""

import os
import pathlib

from tests.servers import commands

# The browser sends no requests of its own: no updates, no synchronisation.
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"]
# Test machines have no graphics hardware; looking for it takes time and fills the log.
HEADLESS = ["--disable-gpu"]
# Chromium's sandbox refuses to run as root.
SANDBOX = ["--no-sandbox"] if os.geteuid() == 0 else []
ON_MACOS = pathlib.Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


def executable():
    if ON_MACOS.exists():
        return str(ON_MACOS)
    names = ("chromium", "chromium-browser", "google-chrome")
    return commands.on_path(*names, otherwise="there is no browser: install chromium or Google Chrome")


def found():
    return f"{commands.run(executable(), '--version', *SANDBOX, timeout_s=20)} ({executable()})"


def launch(playwright):
    """Launch a headless Browser (`playwright.sync_api`), or return its awaitable (`playwright.async_api`)."""
    return playwright.chromium.launch(executable_path=executable(), args=[*SANDBOX, *HEADLESS, *QUIET])
