"""A real browser, the machine's own, driven by Playwright: what a page does at unload no other client can show.

Playwright's synchronous interface must not meet gevent's monkey patches: the test process is therefore never patched,
and the app under test is a process of its own (see switchyard.py).
"""

import os
import pathlib

from tests.servers import commands

# A browser that keeps to the test: no updates, no synchronising, no requests of its own to anywhere.
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"]
# A test machine has no graphics hardware, and looking for it takes time and fills the log.
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
    """A headless Browser, for `playwright.sync_api` and, awaited, for `playwright.async_api`."""
    return playwright.chromium.launch(executable_path=executable(), args=[*SANDBOX, *HEADLESS, *QUIET])
