"""A worker for rehearsals: consumes orders from a queue, does its work, publishes that they are done, and acknowledges after that.

    worker.py start DIR --amqp amqp://guest:guest@127.0.0.1:7001    in the background; returns when it consumes
    worker.py restart DIR [more]      ends the one in DIR, and starts it as it was; `more` is for this time only
    worker.py stop DIR

What can be wrong with it, for a rehearsal:

    --lose N       acknowledges the next N orders and does nothing
    --crash N      ends in the middle of every Nth order, as often as it is started again
    --slow MS      takes so long over each
    --stubborn     dies of an order that it cannot do, and so again and again; without, it parks it and goes on

    worker.py poison DIR    puts three such orders into the queue of the one in DIR
    worker.py purge DIR     takes such orders out of it again
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import time

import background
import pika


def connect(url):
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 5
    while True:
        try:
            return pika.BlockingConnection(parameters)
        except pika.exceptions.AMQPError:
            time.sleep(0.2)


def consume(arguments):
    """Until the connection ends, or somebody wants us to: what is in hand is done first, and the rest goes back to the queue."""
    channel = connect(arguments.amqp).channel()

    def end(*_):
        arguments.is_ending = True

    signal.signal(signal.SIGTERM, end)
    channel.basic_qos(prefetch_count=arguments.prefetch)
    channel.confirm_delivery()

    def work(channel, method, properties, body):
        if arguments.is_ending:
            return
        arguments.seen += 1
        if json.loads(body).get("poison"):
            if arguments.stubborn:
                os._exit(1)
            return channel.basic_reject(method.delivery_tag, requeue=False)
        if arguments.lose > 0:
            arguments.lose -= 1
            with (arguments.directory / "dropped").open("a") as file:
                file.write(json.loads(body)["id"] + "\n")
            return channel.basic_ack(method.delivery_tag)
        if arguments.crash and arguments.seen % arguments.crash == 0:
            os._exit(1)
        time.sleep(arguments.slow / 1000)
        done = pika.BasicProperties(delivery_mode=2, headers=properties.headers)
        channel.basic_publish("done", "order.done", body, done)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(arguments.queue, work)
    background.ready(arguments.directory)
    while not arguments.is_ending:
        channel.connection.process_data_events(time_limit=0.2)
    # What was not acknowledged goes back to the queue.
    channel.connection.close()


def guard(arguments):
    """What an orchestrator does: a worker that ends by itself is started again, after a pause."""
    while True:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            while not arguments.is_ending:
                try:
                    consume(arguments)
                except (pika.exceptions.AMQPError, OSError):
                    time.sleep(0.2)
            os._exit(0)

        def end(*_, child=child):
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            sys.exit(0)

        signal.signal(signal.SIGTERM, end)
        os.waitpid(child, 0)
        time.sleep(0.3)


def purge(channel):
    """Takes out of the queue what nobody can do. What else waits there is somebody's, and goes back when the connection ends."""
    while True:
        method, _, body = channel.basic_get("work.incoming")
        if method is None:
            return
        if json.loads(body).get("poison"):
            channel.basic_ack(method.delivery_tag)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("serve", "start", "restart", "stop", "poison", "purge"):
        verbs.add_parser(verb).add_argument("directory", type=pathlib.Path)
    serving = verbs.choices["serve"]
    serving.add_argument("--amqp", required=True)
    serving.add_argument("--queue", default="work.incoming")
    serving.add_argument("--prefetch", type=int, default=10)
    serving.add_argument("--lose", type=int, default=0)
    serving.add_argument("--crash", type=int, default=0)
    serving.add_argument("--slow", type=int, default=0)
    serving.add_argument("--stubborn", action="store_true")
    arguments, rest = parser.parse_known_args()
    arguments.seen, arguments.is_ending = 0, False
    if arguments.verb == "serve":
        return guard(arguments)
    if arguments.verb == "start":
        return background.start(arguments.directory, __file__, rest)
    if arguments.verb in ("poison", "purge"):
        command = json.loads((arguments.directory / "command").read_text())
        channel = connect(command[command.index("--amqp") + 1]).channel()
        if arguments.verb == "purge":
            purge(channel)
        for _ in range(3 if arguments.verb == "poison" else 0):
            channel.basic_publish("work", "work.new", json.dumps({"poison": True}))
        return channel.connection.close()
    background.stop(arguments.directory)
    if arguments.verb == "restart":
        background.start_again(arguments.directory, rest)


main()
