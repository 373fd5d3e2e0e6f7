"""Answers every GET on port 8080 with the name of the host it runs on, and logs who asked."""

import os
import signal
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ.get("PORT", "8080"))


class Handler(BaseHTTPRequestHandler):
    """Says which pod was hit."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer any path."""
        body = f"You've hit {socket.gethostname()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """One line per request, on standard output, at once."""
        print(f"Received request from {self.client_address[0]}: {format % args}", flush=True)


class Server(ThreadingHTTPServer):
    """Takes bursts of connections, and leaves no thread to wait for at the end."""

    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serve until SIGTERM. The kernel gives process 1 no default action for it, so it needs a handler."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
    with Server(("", PORT), Handler) as server:
        print(f"Kubia server starting on port {PORT}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
