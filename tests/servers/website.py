"""A website for the browser tests, on another origin than Switchyard's."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8"}


class Website:
    """Serves `pages` ({"/index.html": text or bytes}) on a free port until `close`."""

    def __init__(self, pages):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                page = pages.get(self.path.partition("?")[0])
                body = page.encode() if isinstance(page, str) else page or b""
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", TYPES.get(self.path.partition("?")[0].rsplit(".", 1)[-1], "text/plain"))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Log nothing: the page and Switchyard's log show what went wrong."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
