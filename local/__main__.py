"""`python -m local up | down | status | trace | demo | dashboard | serve`."""

from __future__ import annotations

import argparse
import sys

from local import cloud, prerequisites, supervisor
from local.supervisor import AlreadyRunning


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m local", description="The local cloud of this checkout.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start it in the background and wait until it is ready")
    commands.add_parser("down", help="stop it")
    commands.add_parser("status", help="say what runs")
    serve = commands.add_parser("serve", help="run it in the foreground")
    for starting in (up, serve):
        starting.add_argument("--ends-with", type=int, metavar="PID", help="stop it when this process is gone")
    commands.add_parser("dashboard", help="serve its web page")
    trace = commands.add_parser("trace", help="show what became of a run, step by step")
    trace.add_argument("run", help="the run's id")
    demo = commands.add_parser("demo", help="copy the demo drop in and follow its run to an adapter")
    demo.add_argument("--keep", action="store_true", help="leave the cloud running that the demo started")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "up":
                return cloud.up(options.ends_with)
            case "down":
                return cloud.down()
            case "status":
                return cloud.status()
            case "dashboard":
                from local import page

                return page.serve()
            case "trace":
                return show_trace(options.run)
            case "demo":
                from local.demo import demo as run_demo  # rich and the Google clients are not needed to go down

                return run_demo(keep=options.keep)
            case _:
                prerequisites.check()
                return supervisor.serve(options.ends_with)
    except prerequisites.Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    except AlreadyRunning:
        print("the local cloud of this checkout runs already", file=sys.stderr)
        return 1


def show_trace(run_id: str) -> int:
    """Prints the tree of the run's trace; 1 where there is none."""
    from rich.console import Console

    from local import paths, trace

    steps = trace.of_run(trace.read(paths.TRACES), run_id)
    if not steps:
        print(f"{paths.TRACES} has no trace of {run_id}", file=sys.stderr)
        return 1
    trace.show(steps, Console(highlight=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
