"""A small order API: POST /orders publishes the order to an exchange and answers 202 once the broker has confirmed it."""

import argparse
import http.server
import json
import signal
import sys
import threading

import pika


class Broker:
    """One connection that publishes, made again when it has ended."""

    def __init__(self, url, exchange, routing_key):
        self.parameters = pika.URLParameters(url)
        self.parameters.heartbeat = 0  # nobody serves heartbeats between two requests
        self.exchange, self.routing_key = exchange, routing_key
        self.lock = threading.Lock()
        self.channel = None

    def connect(self):
        self.channel = pika.BlockingConnection(self.parameters).channel()
        self.channel.exchange_declare(self.exchange, "topic", durable=True)
        self.channel.confirm_delivery()

    def publish(self, body, headers):
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2, headers=headers)
        with self.lock:
            for is_last in (False, True):
                try:
                    if self.channel is None or self.channel.is_closed:
                        self.connect()
                    self.channel.basic_publish(self.exchange, self.routing_key, body, properties, mandatory=True)
                    return
                except (pika.exceptions.AMQPConnectionError, pika.exceptions.ChannelWrongStateError):
                    self.channel = None
                    if is_last:
                        raise


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != "/orders":
            return self.answer(404, {"error": "no such path"})
        try:
            order = json.loads(body)
            order["id"]
        except (ValueError, KeyError, TypeError):
            return self.answer(400, {"error": "an order is a JSON object with an id"})
        headers = {name: self.headers[name] for name in ("traceparent", "x-synthetic") if name in self.headers}
        try:
            self.server.broker.publish(body, headers)
        except Exception as error:
            return self.answer(503, {"error": repr(error)})
        self.answer(202, {"id": order["id"], "status": "accepted"})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--amqp", required=True)
    parser.add_argument("--exchange", default="orders")
    parser.add_argument("--routing-key", default="order.created")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    server.daemon_threads = True
    server.broker = Broker(arguments.amqp, arguments.exchange, arguments.routing_key)
    with server.broker.lock:
        server.broker.connect()
    print(f"ready {server.server_port}", flush=True)
    server.serve_forever()


main()
