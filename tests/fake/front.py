"""A registry that misbehaves on purpose: it hands on to a real `imgfs serve`, asks for logins, redirects, and does wrong things by seed.

All runs in threads of the test, on an ephemeral port of a loopback address.
"""
import base64
import contextlib
import http.client
import http.server
import json
import random
import secrets
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.parse

# What can be wrong with an answer about a blob.
FAULTS = (
    "stall-accept", "stall-headers", "stall-body", "reset", "close", "500", "503", "401", "404", "429", "truncated", "too-long",
    "wrong-range", "whole", "corrupt", "trickle", "redirect-loop",
)


class Listener(http.server.ThreadingHTTPServer):
    """Knows its connections, so that it can end like a process that is killed."""

    daemon_threads, allow_reuse_address, block_on_close, request_queue_size = True, True, False, 128

    def __init__(self, address, handler, context):
        self.context, self.connections, self.lock, self.dead = context, set(), threading.Lock(), threading.Event()
        super().__init__(address, handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def finish_request(self, request, client_address):
        # The handshake is in the connection's thread, so that one that stalls keeps nobody waiting.
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        with self.lock:
            self.connections.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            with self.lock:
                self.connections.discard(request)

    def handle_error(self, request, client_address):
        """Broken connections are what this server is for."""

    def kill(self):
        self.dead.set()
        self.shutdown()
        self.server_close()
        self.thread.join()
        with self.lock:
            for connection in self.connections:
                reset(connection)


def reset(connection):
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # As kill does: the descriptor stays its thread's, the connection goes.
        connection.shutdown(socket.SHUT_RDWR)


class Service:
    """One listener that can be killed and revived on its port. `tls` is an SSLContext or None."""

    def __init__(self, tls=None, address="127.0.0.1"):
        self.tls, self.address, self.port = tls, address, 0
        self.log = []  # of requests: method, path, headers, and the client's certificate or None
        self.listener = None
        self.revive()

    @property
    def host(self):
        return f"{self.address}:{self.port}"

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def revive(self):
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True

            def note(self):
                certificate = self.connection.getpeercert() if service.tls else None
                service.log.append((self.command, self.path, dict(self.headers), certificate or None))

            def do_GET(self):
                self.note()
                service.answer(self)

            do_HEAD = do_POST = do_GET

            def log_message(self, *_arguments):
                pass

        self.listener = Listener((self.address, self.port), Handler, self.tls)
        self.port = self.listener.server_address[1]

    def kill(self):
        if self.listener:
            self.listener.kill()
        self.listener = None

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.kill()

    def answer(self, request):
        raise NotImplementedError


def reply(request, status, body=b"", **headers):
    request.send_response(status)
    for name, value in ({"Content-Length": len(body)} | headers).items():
        request.send_header(name.replace("_", "-"), str(value))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
    request.wfile.flush()


class Tokens(Service):
    """Gives tokens to those it knows, and remembers them for as long as they are valid."""

    def __init__(self, user=None, identity=None, seconds=300, **options):
        self.user, self.identity, self.seconds = user, identity, seconds
        self.valid, self.given, self.faults = {}, 0, []
        self.more = {}  # what answers have besides
        super().__init__(**options)

    def answer(self, request):
        if self.faults:
            return reply(request, self.faults.pop(0))
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
        if request.command == "POST":
            form = request.rfile.read(int(request.headers["Content-Length"])).decode()
            query = urllib.parse.parse_qs(form)
            if not self.identity or query.get("refresh_token") != [self.identity] or query["grant_type"] != ["refresh_token"]:
                return reply(request, 401)
        elif self.user:
            wanted = "Basic " + base64.b64encode(self.user.encode()).decode()
            if request.headers.get("Authorization") != wanted:
                return reply(request, 401)
        elif self.identity:
            return reply(request, 401)
        if query.get("service") != ["front"] or query.get("scope") != ["repository:case:pull"]:
            return reply(request, 400)
        token = secrets.token_urlsafe(100)
        self.valid[token] = time.monotonic() + self.seconds
        self.given += 1
        name = "access_token" if request.command == "POST" else "token"
        return reply(request, 200, json.dumps({name: token, "expires_in": self.seconds} | self.more).encode(), Content_Type="application/json")

    def knows(self, header):
        scheme, _, token = (header or "").partition(" ")
        return scheme == "Bearer" and self.valid.get(token, 0) > time.monotonic()


class Front(Service):
    """The registry. What it does is in its attributes, which a test changes at any time."""

    def __init__(self, backend, seed=0, **options):
        self.backend = backend  # "ADDRESS:PORT"
        self.user = None  # "name:password"
        self.tokens = None  # Tokens
        self.elsewhere = None  # URL without path: where blobs are
        self.fault = None  # for every blob
        self.faults = None  # (faults, share of the answers about blobs that have one)
        self.retry_after = 1
        self.manifests = None  # what becomes of a manifest: a function of its bytes
        self.profile = None  # a start-up profile, if the server behind has none
        self.several = None  # what becomes of a request for several ranges: "whole", "first" (alone), or a status
        self.wasted = []  # bytes that such requests asked for in vain
        self.met = {}  # fault: how many times
        self.random, self.lock = random.Random(seed), threading.Lock()
        super().__init__(**options)

    def pick(self, request):
        if "/blobs/" not in request.path:
            return None
        with self.lock:
            fault = self.fault
            if not fault and self.faults and self.random.random() < self.faults[1]:
                fault = self.random.choice(self.faults[0])
            if fault:
                self.met[fault] = self.met.get(fault, 0) + 1
            return fault

    def refuse_several(self, request):
        """The fault that a request for several ranges meets, if that is wanted."""
        spans = request.headers.get("Range", "").removeprefix("bytes=").split(",")
        if not self.several or len(spans) == 1:
            return None
        self.wasted.append(sum(int(last) - int(first) + 1 for first, last in (span.split("-") for span in spans)))
        if self.several == "first":
            request.headers.replace_header("Range", f"bytes={spans[0]}")
            return None
        return self.several

    def refuses(self, request):
        header = request.headers.get("Authorization")
        if self.tokens and not self.tokens.knows(header):
            reply(request, 401, b"{}", WWW_Authenticate=f'Bearer realm="{self.tokens.url}/token",service="front",scope="repository:case:pull"')
            return True
        if self.user and header != "Basic " + base64.b64encode(self.user.encode()).decode():
            reply(request, 401, b"{}", WWW_Authenticate='Basic realm="front"')
            return True
        return False

    def answer(self, request):
        if self.refuses(request):
            return
        if self.elsewhere and "/blobs/" in request.path:
            reply(request, 307, Location=self.elsewhere + request.path)
            return
        if self.profile and request.path.startswith("/imgfs/profiles/"):
            reply(request, 200, self.profile)
            return
        fault = self.refuse_several(request) or self.pick(request)
        if fault == "stall-accept":
            self.stall(request)
        elif fault == "redirect-loop":
            reply(request, 302, Location=request.path)
        elif fault and fault.isdigit():
            reply(request, int(fault), **({"Retry_After": self.retry_after} if fault == "429" else {}))
        elif fault == "close":
            request.close_connection = True
        else:
            self.hand_on(request, fault)

    def stall(self, request):
        """Until the client gives up, or this listener ends."""
        listener, connection = self.listener, request.connection
        connection.settimeout(0.1)
        while listener and not listener.dead.is_set():
            try:
                if not connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        request.close_connection = True

    def hand_on(self, request, fault):
        headers = {name: value for name, value in request.headers.items() if name in ("Range", "Accept")}
        if fault == "whole":
            headers.pop("Range", None)
        backend = http.client.HTTPConnection(*self.backend.split(":"), timeout=30)
        try:
            backend.request(request.command, request.path, headers=headers)
            answer = backend.getresponse()
            if fault == "whole":
                self.pass_whole(request, answer)
            else:
                self.pass_on(request, answer, answer.read(), fault)
        finally:
            backend.close()

    @staticmethod
    def send_head(request, answer, length, shift=0):
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() == "content-range" and shift:
                first, last, total = value.removeprefix("bytes ").replace("/", "-").split("-")
                value = f"bytes {int(first) + shift}-{int(last) + shift}/{total}"
            if name.lower() not in ("content-length", "connection", "date", "server"):
                request.send_header(name, value)
        if length is None:
            request.send_header("Connection", "close")
            request.close_connection = True
        else:
            request.send_header("Content-Length", str(length))
        request.end_headers()

    def pass_whole(self, request, answer):
        self.send_head(request, answer, int(answer.getheader("Content-Length")))
        while block := answer.read(1 << 16):
            request.wfile.write(block)

    def pass_on(self, request, answer, body, fault):
        half = len(body) // 2
        if self.manifests and "/manifests/" in request.path:
            body = self.manifests(body)
            reply(request, answer.status, body, Content_Type=answer.getheader("Content-Type"))
            return
        if fault == "corrupt" and body:
            body = body[:half] + bytes([body[half] ^ 0x20]) + body[half + 1:]
        length = None if fault == "too-long" else int(answer.getheader("Content-Length") or len(body))
        if fault == "stall-headers":
            request.wfile.write(b"HTTP/1.1 206 Partial Content\r\nContent-")
            request.wfile.flush()
            self.stall(request)
            return
        self.send_head(request, answer, length, 1 if fault == "wrong-range" else 0)
        if request.command == "HEAD":
            return
        if fault in ("stall-body", "reset", "truncated"):
            request.wfile.write(body[:half])
            request.wfile.flush()
            if fault == "stall-body":
                self.stall(request)
            elif fault == "reset":
                reset(request.connection)
            request.close_connection = True
        elif fault == "trickle":
            for at in range(min(len(body), 20)):
                request.wfile.write(body[at:at + 1])
                request.wfile.flush()
                time.sleep(0.1)
            self.stall(request)
        else:
            request.wfile.write(body + (b"more" * 5000 if fault == "too-long" else b""))
        request.wfile.flush()


def make_authority(directory, name):
    """A private CA and a certificate of it for 127.0.0.1, localhost and registry.test; returns the paths of CA, certificate and key."""
    directory.mkdir(parents=True, exist_ok=True)
    ca, ca_key, cert, key = (directory / f"{name}-{part}" for part in ("ca.crt", "ca.key", "cert.pem", "key.pem"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
         f"/CN={name} CA", "-keyout", ca_key, "-out", ca], check=True, capture_output=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
         f"/CN={name}", "-CA", ca, "-CAkey", ca_key, "-addext", "basicConstraints=CA:FALSE", "-addext",
         "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test", "-keyout", key, "-out", cert], check=True, capture_output=True)
    return ca, cert, key


def server_context(cert, key, client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
