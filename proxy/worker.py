"""The data plane's process: one thread, one epoll loop, no gRPC. ``python -m proxy.worker FD``

It is a process of its own so that no Python that the control half runs (decoding ten thousand services, say) holds up a
byte, and so that connections live on when the control half is killed. It knows nothing of Kubernetes: ``dataplane.py``
sends it listeners over a socket pair, whose end of file means that the control half is gone: then the listeners close
at once, for its successor to open, and what is connected gets its time to finish.
"""

import argparse
import gc
import json
import logging
import random
import select
import signal
import socket
import sys
import time
from ipaddress import ip_network
from typing import Any

from proxy.balancer import Backend, Balancer, Policy
from proxy.reactor import Reactor
from proxy.sockets import descriptor_limit
from proxy.tcp import DataPath, Listener, listen
from proxy.udp import DatagramListener, bind

log = logging.getLogger("proxy.worker")

ORPHAN_GRACE_S = 60.0
"""How long connections may go on when the control half is gone, seconds."""

RESERVED_DESCRIPTORS = 64


class Worker:
    """Obeys the control half's messages, one JSON object per line:

    - ``{"op": "open", "id", "protocol", "address", "port", "backends": [[address, port, pod, node]], "policy",
      "affinity_s", "sources"}``: open the listener, or change it when it is open. Answer: ``{"id", "error"}``, error
      empty when it is open.
    - ``{"op": "close", "id"}``: no answer.
    - ``{"op": "report"}``: answer ``{"report": {id: {"accepted", "backends": [[address, port, pod, node, ready, open,
      total]]}}}``.
    - ``{"op": "drain", "grace_s"}``: close every listener, leave when the last connection has ended or the time is up.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.reactor = Reactor()
        self.descriptors = descriptor_limit()
        self.path = DataPath(self.reactor, 0)
        self.listeners: dict[int, Listener | DatagramListener] = {}
        self._channel = channel
        self._rng = random.Random()  # one for all: its state is 2.5 kB
        self._inbox = b""
        self._outbox = b""
        channel.setblocking(False)
        self.reactor.add(channel.fileno(), select.EPOLLIN, self._on_channel)

    def run(self) -> None:
        """Work until drained."""
        self._divide_descriptors()
        self.reactor.run()

    def open(self, message: dict[str, Any]) -> None:
        """See the class."""
        key = message["id"]
        listener = self.listeners.get(key)
        if listener is None:
            try:
                listener = self.listeners[key] = self._new_listener(message)
            except OSError as err:
                return self._send({"id": key, "error": err.strerror or str(err)})
            self._divide_descriptors()
        listener.sources = tuple(ip_network(source, strict=False) for source in message["sources"])
        listener.balancer.policy = Policy(message["policy"])
        listener.balancer.affinity_s = message["affinity_s"]
        listener.balancer.update([Backend(*backend) for backend in message["backends"]])
        if isinstance(listener, DatagramListener):
            listener.drop_draining()
        self._send({"id": key, "error": ""})
        return None

    def _new_listener(self, message: dict[str, Any]) -> Listener | DatagramListener:
        balancer = Balancer(time.monotonic, self._rng)
        if message["protocol"] == "UDP":
            return DatagramListener(self.path, balancer, bind(message["address"], message["port"]))
        return Listener(self.path, balancer, listen(message["address"], message["port"]))

    def close(self, message: dict[str, Any]) -> None:
        """See the class."""
        listener = self.listeners.pop(message["id"], None)
        if listener is not None:
            listener.close()
            self._divide_descriptors()

    def report(self, _message: dict[str, Any]) -> None:
        """See the class."""
        self._send({"report": {key: _report(listener) for key, listener in self.listeners.items()}})

    def drain(self, message: dict[str, Any]) -> None:
        """See the class."""
        for listener in self.listeners.values():
            listener.close()
        self.listeners.clear()
        if not self.path.connections:
            return self.reactor.stop()
        self.path.on_idle = self.reactor.stop
        self.reactor.call_later(message["grace_s"], self.reactor.stop)
        return None

    def _divide_descriptors(self) -> None:
        """Of the descriptors that listeners leave over, three quarters are for connections (two each), an eighth for
        UDP flows, and an eighth for bulk pipes."""
        spare = self.descriptors - len(self.listeners) - RESERVED_DESCRIPTORS
        self.path.connections_max = max(16, spare * 3 // 8)
        self.path.flows_max = max(16, spare // 8)

    def _on_channel(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        try:
            received = self._channel.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            return self._orphaned()
        *lines, self._inbox = (self._inbox + received).split(b"\n")
        for line in lines:
            message = json.loads(line)
            getattr(self, message["op"])(message)
        return None

    def _orphaned(self) -> None:
        log.warning("the control half is gone: finishing what is connected", extra={"open": len(self.path.connections)})
        self.reactor.forget(self._channel.fileno())
        self._channel.close()
        self.drain({"grace_s": ORPHAN_GRACE_S})

    def _send(self, message: dict[str, Any]) -> None:
        self._outbox += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self._channel.send(self._outbox)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # end of file is about to be read
        self._outbox = self._outbox[sent:]
        wanted = select.EPOLLIN | (select.EPOLLOUT if self._outbox else 0)
        self.reactor.modify(self._channel.fileno(), wanted)


def _report(listener: Listener | DatagramListener) -> dict[str, Any]:
    return {
        "accepted": listener.accepted,
        "backends": [
            [b.address, b.port, b.pod, b.node, not slot.draining, slot.open, slot.total]
            for slot in listener.balancer.slots()
            for b in [slot.backend]
        ],
    }


def main() -> None:
    """Serve the channel whose descriptor is the argument."""
    parser = argparse.ArgumentParser(prog="python -m proxy.worker", description=__doc__)
    parser.add_argument("fd", type=int, help="descriptor of the socket pair's end that speaks with the control half")
    options = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to the whole group by a terminal: the control half decides
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()
    Worker(socket.socket(fileno=options.fd)).run()


if __name__ == "__main__":
    main()
