"""One of the experiments of this folder, on a sandbox of its own: starts what it needs, runs `journeyman experiment`, ends it again.

    recipe.py az-outage --amqp amqp://guest:guest@127.0.0.1:5672
    recipe.py az-outage --broken-spool --html report.html

What it does not know itself goes to `journeyman experiment`.
"""

import argparse
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.parse

import pika

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def declare(amqp):
    """The exchanges and queues that channels and workers expect."""
    channel = pika.BlockingConnection(pika.URLParameters(amqp)).channel()
    for exchange in ("orders", "work", "done"):
        channel.exchange_declare(exchange, "topic", durable=True)
    channel.queue_declare("work.incoming", durable=True, arguments={"x-dead-letter-exchange": "parked"})
    channel.queue_bind("work.incoming", "work", "work.new")
    channel.exchange_declare("parked", "fanout", durable=True)
    channel.queue_declare("work.parked", durable=True)
    channel.queue_bind("work.parked", "parked")
    for queue in ("work.incoming", "work.parked"):
        channel.queue_purge(queue)
    # Beside whoever else reads: what was published, by the broker's own word.
    channel.queue_declare("orders.audit", durable=True)
    channel.queue_purge("orders.audit")
    channel.queue_bind("orders.audit", "orders", "order.created")
    channel.queue_bind("orders.audit", "done", "#")
    channel.connection.close()


def published(amqp):
    """The ids of the orders that the broker has had, from the collector or as done."""
    channel = pika.BlockingConnection(pika.URLParameters(amqp)).channel()
    ids = set()
    while True:
        method, _, body = channel.basic_get("orders.audit", auto_ack=True)
        if method is None:
            return ids
        ids.add(json.loads(body).get("id"))


def at(amqp, port):
    """The same broker behind another port."""
    parts = urllib.parse.urlsplit(amqp)
    credentials = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{credentials}@127.0.0.1:{port}").geturl()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in HERE.glob("*.toml") if path.stem != "journeyman"))
    parser.add_argument("--amqp", default="amqp://guest:guest@127.0.0.1:5672")
    parser.add_argument("--journeyman", default="journeyman", help="the program")
    parser.add_argument("--broken-spool", action="store_true", help="the collector keeps orders in memory alone")
    parser.add_argument("--stubborn", action="store_true", help="the worker dies of orders that it cannot do")
    parser.add_argument("--short", action="store_true", help="`thousand-a-second` for three seconds, and a fifth of it")
    parser.add_argument("--keep", action="store_true", help="leave the sandbox's directory")
    arguments, rest = parser.parse_known_args()

    sandbox = pathlib.Path(tempfile.mkdtemp(prefix="journeyman-recipe-"))
    zone, shop = free_port(), free_port()
    broker = urllib.parse.urlsplit(arguments.amqp)
    real = {
        "amqp://guest:guest@127.0.0.1:5672": arguments.amqp,
        "127.0.0.1:5672": f"{broker.hostname}:{broker.port or 5672}",
        "127.0.0.1:7001": f"127.0.0.1:{zone}",
        "127.0.0.1:7002": f"127.0.0.1:{shop}",
        f"/tmp/journeyman-{arguments.name}": str(sandbox / "state"),
        **({'"1000/s"': '"200/s"', 'least = "60s"': 'least = "3s"'} if arguments.short else {}),
    }
    for path in [*HERE.glob("*.toml"), *HERE.glob("*.py")]:
        text = path.read_text()
        if path.suffix == ".toml":
            for written, meant in real.items():
                text = text.replace(written, meant)
        (sandbox / path.name).write_text(text)

    declare(arguments.amqp)
    state = sandbox / "state"
    state.mkdir()
    text = (sandbox / f"{arguments.name}.toml").read_text()
    system = None
    if 'journey = "order"' in text:
        system = [PYTHON, str(HERE / "collector.py")]
        serve = ["--port", str(shop), "--amqp", at(arguments.amqp, zone) if "[proxy.zone]" in text else arguments.amqp]
        serve += ["--broken-spool"] if arguments.broken_spool else []
    elif 'journey = "work"' in text:
        system = [PYTHON, str(HERE / "worker.py")]
        serve = ["--amqp", arguments.amqp, *(["--stubborn"] if arguments.stubborn else [])]
    if system:
        subprocess.run([*system, "start", str(state), *serve], check=True)
    try:
        config, experiment = sandbox / "journeyman.toml", sandbox / f"{arguments.name}.toml"
        command = [arguments.journeyman, "experiment", str(experiment), "--config", str(config), *rest]
        code = subprocess.run(command, check=False).returncode
    finally:
        if system:
            subprocess.run([*system, "stop", str(state)], check=True)
        dropped = state / "dropped"
        if dropped.exists():
            # One whose confirm was cut off is still in the spool, and with the broker all the same; one that was dropped may have
            # been done before.
            lost = set(dropped.read_text().split()) - published(arguments.amqp)
            print(f"the system dropped {len(lost)} orders", file=sys.stderr)
        if not arguments.keep:
            shutil.rmtree(sandbox)
    sys.exit(code)


main()
