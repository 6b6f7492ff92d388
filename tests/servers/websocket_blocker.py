"""A proxy that forwards HTTP and blocks websockets, as some company proxies do."""

import base64
import contextlib
import hashlib
import socket
import threading

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebsocketBlocker:
    """A proxy to `port` of this machine. It never answers an upgrade (`mode` "drop"), or answers 101 and then nothing
    (`mode` "silent"). `upgrades` counts the blocked upgrades."""

    def __init__(self, port, mode):
        self._target, self._mode, self.upgrades = port, mode, 0
        self._held = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for held in self._held:
            held.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            more = client.recv(65536)
            if not more:
                client.close()
                return
            head += more
        if b"upgrade: websocket" in head.lower():
            self._block(client, head)
            return
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            server.sendall(head)
            back = threading.Thread(target=_pipe, args=[server, client], daemon=True)
            back.start()
            _pipe(client, server)
            back.join()

    def _block(self, client, head):
        self.upgrades += 1
        self._held.append(client)
        if self._mode == "silent":
            lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            key = next(value for name, value in lines.items() if name.lower() == b"sec-websocket-key")
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            client.sendall(answer + accept + b"\r\n\r\n")


def _pipe(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # one side has closed, so close the other, too
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
