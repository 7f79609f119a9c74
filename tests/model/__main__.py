"""Explores the protocol as it is, and without one guard after another.

    python -m tests.model [--nightly] [--traces] [NAME …]

Prints for each scene the number of states and of steps and how runs end, and for each guard what is violated without
it. `--traces` shows the shortest way to each violation.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import replace

from tests.model.explore import Found, explore
from tests.model.scenes import ABLATIONS, NIGHTLY, NIGHTLY_ABLATIONS, ONE, SCENES


def main() -> int:
    """The exit status: 1 where the protocol as it is violates something, or a guard turns out to be for nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.model")
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of names of scenes and guards; default: all")
    parser.add_argument("--nightly", action="store_true", help="larger bounds, too: minutes, and some GB of memory")
    parser.add_argument("--traces", action="store_true", help="the shortest way to each violation")
    given = parser.parse_args()

    def is_wanted(name: str) -> bool:
        return not given.names or any(part in name for part in given.names)

    is_well = True
    for name, scene in (SCENES | NIGHTLY if given.nightly else SCENES).items():
        if is_wanted(name):
            found = explore(scene)
            is_well = is_well and found.is_complete and not found.violations
            _tell(name, found, list(found.violations), given.traces)
    for ablation in ABLATIONS + NIGHTLY_ABLATIONS if given.nightly else ABLATIONS:
        if is_wanted(ablation.guard):
            found = explore(ablation.ablated, until=ablation.follows)
            shown = [ablation.follows] if ablation.follows in found.violations else []
            is_well = is_well and bool(shown) == (ablation.follows is not None)
            _tell(f"without {ablation.guard}", found, shown, given.traces)
    if not given.names:
        _tell_what_is_saved()
    return 0 if is_well else 1


def _tell(name: str, found: Found, violations: list[str], with_traces: bool) -> None:
    ends = "" if violations else "; ".join(f"{end}: {count}" for end, count in sorted(found.ends.items()))
    figures = f"{found.states:>9,} states {found.steps:>10,} steps {found.seconds:>6.1f} s"
    print(f"{name:52} {figures}   {'; '.join(violations) or 'nothing violated'}   {ends}".rstrip(), flush=True)
    if with_traces:
        for violation in violations:
            print(textwrap.indent(found.violations[violation], "    "), flush=True)


def _tell_what_is_saved() -> None:
    for guards in (frozenset[str](), frozenset({"claim"})):
        found = explore(replace(ONE, faults=0, counts_launches=True, without=guards))
        without = f"without {', '.join(guards)}" if guards else "as it is"
        print(f"{without:20} executions started for one run when nothing goes wrong: at most {found.most_launched}")
    for guards in (frozenset[str](), frozenset({"finish"})):
        found = explore(replace(ONE, faults=1, without=guards))
        without = f"without {', '.join(guards)}" if guards else "as it is"
        print(f"{without:20} states from which only the tick helps, with one fault: {found.waits_for_tick}")


if __name__ == "__main__":
    sys.exit(main())
