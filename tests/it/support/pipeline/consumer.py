"""A worker: takes orders from a queue, tells a webhook that each is done, and acknowledges after that."""

import argparse
import json
import signal
import sys
import time
import urllib.request

import pika


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amqp", required=True)
    parser.add_argument("--webhook", required=True, help="where a done order is POSTed")
    parser.add_argument("--header", action="append", default=[], help="'name: value', sent to the webhook")
    parser.add_argument("--exchange", default="orders")
    parser.add_argument("--routing-key", default="order.created")
    parser.add_argument("--queue", default="orders.incoming")
    parser.add_argument("--done-exchange", help="also publish the done order here, with key order.done")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    channel = pika.BlockingConnection(pika.URLParameters(arguments.amqp)).channel()
    channel.exchange_declare(arguments.exchange, "topic", durable=True)
    channel.queue_declare(arguments.queue, durable=True)
    channel.queue_bind(arguments.queue, arguments.exchange, arguments.routing_key)
    if arguments.done_exchange:
        channel.exchange_declare(arguments.done_exchange, "topic", durable=True)
    channel.basic_qos(prefetch_count=10)

    def work(channel, method, properties, body):
        done = json.dumps({**json.loads(body), "status": "done"}).encode()
        headers = {"content-type": "application/json"}
        headers.update((name, str(value)) for name, value in (properties.headers or {}).items())
        headers.update(header.split(": ", 1) for header in arguments.header)
        request = urllib.request.Request(arguments.webhook, done, headers, method="POST")
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError as error:
            print(f"webhook: {error}", flush=True)
            time.sleep(0.2)  # not in a tight loop while the webhook is away
            return channel.basic_nack(method.delivery_tag, requeue=True)
        if arguments.done_exchange:
            channel.basic_publish(arguments.done_exchange, "order.done", done, properties)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(arguments.queue, work)
    print("ready", flush=True)
    channel.start_consuming()


main()
