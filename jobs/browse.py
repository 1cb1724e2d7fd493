"""Read what a run wrote, in a browser: `python -m jobs.browse RUN [--port P]`.

Instructions with what each was dropped for, the answers to each question with their equivalence classes,
votes and rewards, and graded responses: filtered, searched, sorted, page by page. The run may be under way;
what is not done yet is not shown. Nothing is written.

Served on 127.0.0.1 only, and under a random name that the address carries, because login nodes have many
users: whoever does not know the name gets nothing. Pages load nothing from elsewhere, and their policy lets
run no script but their own.

JSON, once it is stopped by Ctrl-C: `url`, `pages` (how many were served).
"""

import getpass
import signal
import socket
from collections.abc import Sequence

from jobs.browser.server import Server
from jobs.browser.site import Site
from jobs.runs.find import find_run
from jobs.shell.command import Answer, data_root, main, parser
from jobs.shell.screen import say
from serl.run.rundir import RunError


def body(argv: Sequence[str]) -> int:
    p = parser("browse", "Read instructions, answers, votes and grades of a run in a browser.")
    p.add_argument("run", help="a run's name, or its folder")
    p.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: any that is free)")
    args = p.parse_intermixed_args(argv)
    if not 0 <= args.port <= 65535:
        raise RunError(f"--port {args.port}: choose one up to 65535, or leave it out for any that is free")
    server = Server(Site(find_run(args.run, data_root(args))), args.port)
    port = server.server_address[1]
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has what it starts behind itself ignore Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        say(server.url)
        say(f"from elsewhere: ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{socket.getfqdn()}")
        say("Ctrl-C ends it")
        server.serve()
    except KeyboardInterrupt:
        say(f"{server.num_pages} pages read")
    return Answer(fields={"url": server.url, "pages": server.num_pages})


if __name__ == "__main__":
    main(body)
