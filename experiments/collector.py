"""A collector for rehearsals: takes orders over HTTP, keeps them in a spool on disk, and publishes them to RabbitMQ when it can.

It answers 202 once an order is safe, and from then on answers for it. With --broken-spool it keeps orders in memory alone: what waits
when it is restarted is lost, and it says in DIR/dropped what that was.

    collector.py serve DIR --port 7002 --amqp amqp://guest:guest@127.0.0.1:7001   in the foreground
    collector.py start DIR ...      the same in the background; returns when it takes orders
    collector.py restart DIR [more]  ends the one in DIR, and starts it as it was; `more` is for this time only
    collector.py stop DIR
"""

import argparse
import collections
import http.server
import json
import os
import pathlib
import signal
import threading
import time

import background
import pika


class Spool:
    """Orders that wait for the broker, in the order in which they came. On disk: a file of them, and how many of it are done."""

    def __init__(self, directory, is_broken):
        self.directory, self.is_broken = directory, is_broken
        self.changed = threading.Condition()
        self.waiting = collections.deque()
        self.done = 0
        self.file = None
        if not is_broken:
            path = directory / "spool"
            done = directory / "done"
            self.done = int(done.read_text()) if done.exists() else 0
            if path.exists():
                lines = path.read_text().splitlines()[self.done :]
                self.waiting.extend(json.loads(line) for line in lines)
            self.file = path.open("a")

    def put(self, order):
        with self.changed:
            if self.file:
                self.file.write(json.dumps(order) + "\n")
                self.file.flush()
                os.fdatasync(self.file.fileno())
            self.waiting.append(order)
            self.changed.notify()

    def first(self):
        with self.changed:
            while not self.waiting:
                self.changed.wait()
            return self.waiting[0]

    def drop_first(self):
        with self.changed:
            self.waiting.popleft()
            self.done += 1
            if self.file:
                (self.directory / "done.new").write_text(str(self.done))
                os.replace(self.directory / "done.new", self.directory / "done")


class Publisher(threading.Thread):
    """Publishes what waits, one after the other, each until the broker has confirmed it."""

    def __init__(self, spool, url, exchange, routing_key):
        super().__init__(daemon=True)
        self.spool, self.exchange, self.routing_key = spool, exchange, routing_key
        self.parameters = pika.URLParameters(url)
        self.parameters.heartbeat = 5
        self.parameters.socket_timeout = self.parameters.stack_timeout = 2
        self.parameters.blocked_connection_timeout = 5

    def run(self):
        channel = None
        while True:
            order = self.spool.first()
            try:
                if channel is None or channel.is_closed:
                    channel = pika.BlockingConnection(self.parameters).channel()
                    channel.exchange_declare(self.exchange, "topic", durable=True)
                    channel.confirm_delivery()
                properties = pika.BasicProperties(delivery_mode=2, headers=order["headers"])
                channel.basic_publish(self.exchange, self.routing_key, order["body"], properties)
            except (pika.exceptions.AMQPError, OSError):
                channel = None
                time.sleep(0.2)
                continue
            self.spool.drop_first()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if not self.server.has_room():
            return self.answer(429)
        headers = {name: self.headers[name] for name in ("traceparent",) if name in self.headers}
        self.server.spool.put({"body": body, "headers": headers})
        self.answer(202)

    def do_GET(self):
        self.answer(200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        if self.server.is_ending:
            self.send_header("connection", "close")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Answers every request that it has taken before it ends."""

    daemon_threads = False
    allow_reuse_address = True
    request_queue_size = 256

    most, taken, second, lock = 0, 0, 0, threading.Lock()
    is_ending = False

    def has_room(self):
        """Whether this second has room for one more."""
        with self.lock:
            now = int(time.monotonic())
            self.second, self.taken = now, self.taken + 1 if now == self.second else 1
            return self.most == 0 or self.taken <= self.most

    def process_request(self, request, address):
        # A caller that keeps its connection open must not keep us from ending.
        request.settimeout(0.5)
        super().process_request(request, address)


def serve(arguments):
    directory = arguments.directory
    spool = Spool(directory, arguments.broken_spool)
    Publisher(spool, arguments.amqp, arguments.exchange, arguments.routing_key).start()
    server = Server(("127.0.0.1", arguments.port), Handler)
    server.spool, server.most = spool, arguments.throttle

    def end(*_):
        server.is_ending = True
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    background.ready(directory)
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    if arguments.broken_spool:
        with spool.changed, (directory / "dropped").open("a") as file:
            file.writelines(json.loads(order["body"])["id"] + "\n" for order in spool.waiting)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("serve", "start", "restart", "stop"):
        verbs.add_parser(verb).add_argument("directory", type=pathlib.Path)
    serving = verbs.choices["serve"]
    serving.add_argument("--port", type=int, required=True)
    serving.add_argument("--amqp", required=True)
    serving.add_argument("--exchange", default="orders")
    serving.add_argument("--routing-key", default="order.created")
    serving.add_argument("--broken-spool", action="store_true")
    serving.add_argument("--throttle", type=int, default=0, help="takes no more than so many a second")
    arguments, rest = parser.parse_known_args()
    if arguments.verb == "serve":
        return serve(arguments)
    if arguments.verb == "start":
        return background.start(arguments.directory, __file__, rest)
    background.stop(arguments.directory)
    if arguments.verb == "restart":
        background.start_again(arguments.directory, rest)


main()
