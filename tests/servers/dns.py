"""A DNS server for one zone, and the environment that makes a Switchyard process ask only this server."""

import socket
import threading
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset

from tests.servers.switchyard import REPOSITORY

ZONE = "db.example.test"
# Names of the zone resolve to this machine. Both resolvers are replaced while they load, because gevent has to patch first.
SITECUSTOMIZE = """
import _socket, importlib.util, sys

class AsDnspythonIsLoaded:
    def find_spec(self, name, path=None, target=None):
        if name == "dns.resolver":
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            load = spec.loader.exec_module
            def exec_module(module):
                load(module)
                module.default_resolver = module.Resolver(configure=False)
                module.default_resolver.nameservers, module.default_resolver.port = ["127.0.0.1"], {port}
            spec.loader.exec_module = exec_module
            return spec

def getaddrinfo(host, *rest, ask=_socket.getaddrinfo, **options):
    name = host.decode() if isinstance(host, bytes) else host
    return ask("127.0.0.1" if name and name.endswith("{zone}") else host, *rest, **options)

sys.meta_path.insert(0, AsDnspythonIsLoaded())
_socket.getaddrinfo = getaddrinfo
"""


class Dns:
    """Answers SRV queries with the port `leads_to` of a MongoDB. While `leads_to` is None it answers nothing, like a DNS server
    that is unreachable."""

    def __init__(self, folder: Path):
        self.leads_to: int | None = None
        self._folder = folder
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def environment(self) -> dict:
        self._folder.mkdir(exist_ok=True)
        text = SITECUSTOMIZE.format(port=self._socket.getsockname()[1], zone=ZONE)
        (self._folder / "sitecustomize.py").write_text(text)
        return {"PYTHONPATH": f"{self._folder}:{REPOSITORY}"}

    def close(self):
        self._socket.close()

    def _serve(self):
        while True:
            try:
                wire, client = self._socket.recvfrom(4096)
            except OSError:
                return
            if self.leads_to is not None:
                self._socket.sendto(self._answer(dns.message.from_wire(wire)).to_wire(), client)

    def _answer(self, question):
        answer = dns.message.make_response(question)
        (asked,) = question.question
        if asked.rdtype == dns.rdatatype.SRV:
            answer.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "SRV", f"0 0 {self.leads_to} one.{ZONE}."))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer
