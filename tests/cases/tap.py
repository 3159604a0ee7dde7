"""A forwarder between a node and its server that counts: requests as they pass, bytes both ways."""
import contextlib
import socket
import threading


class Tap:
    """Listens on a port of its own and forwards to `target`, an (address, port). One request a "GET /path" line."""

    def __init__(self, target):
        self.target = target
        self.requests = []
        self.bytes_down = 0
        self._lock = threading.Lock()
        self._sockets = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def blob_requests(self):
        with self._lock:
            return [line for line in self.requests if "/blobs/" in line]

    def close(self):
        # Closing a socket wakes nobody who waits on it; shutting it down does.
        with self._lock:
            sockets = [self._listener, *self._sockets]
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._join(client)

    def _join(self, client):
        try:
            server = socket.create_connection(self.target, timeout=10)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            self._sockets |= {client, server}
        threading.Thread(target=self._forward, args=(client, server, self._note_request), daemon=True).start()
        threading.Thread(target=self._forward, args=(server, client, self._note_answer), daemon=True).start()

    def _forward(self, source, sink, note):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                note(data)
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _note_request(self, data):
        # A client of ours sends no bodies, and a request whole: its first line begins what recv() returns.
        with self._lock:
            self.requests += [block.split(b"\r\n", 1)[0].decode(errors="replace")
                              for block in data.split(b"\r\n\r\n") if block]

    def _note_answer(self, data):
        with self._lock:
            self.bytes_down += len(data)
