"""What a comparison found: printed, written as JSON, held against what was asked."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.pairs import ratios, spread

_SENSES = {"at least": lambda value, asked: value >= asked, "at most": lambda value, asked: value <= asked}


@dataclass(frozen=True)
class Check:
    """A figure beside what was asked of it; `asked` is None where nothing was."""

    what: str
    value: float
    sense: str = "at least"
    asked: float | None = None

    @property
    def met(self) -> bool:
        """Whether the figure is what was asked."""
        return self.asked is None or _SENSES[self.sense](self.value, self.asked)


@dataclass(frozen=True)
class Contest:
    """One of our sides against a peer, and how many times as fast it is asked to be."""

    ours: str
    peer: str
    asked: float | None = None


@dataclass
class Comparison:
    """A benchmark's result.

    Attributes
    ----------
    title : str
        What is compared.
    unit : str
        What is counted, such as "texts".
    n_units : int
        How many of them each side does in a round.
    seconds : dict of str to list of float
        Of each side, by round.
    contests : list of Contest
        Which sides are held against each other.
    checks : list of Check
        Figures other than speed.
    settings : dict
        What else decides the result.
    packages : list of str
        Peers, whose versions are noted.
    device : str
        Where the networks run.
    """

    title: str
    unit: str = "rows"
    n_units: int = 1
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    contests: Sequence[Contest] = ()
    checks: Sequence[Check] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    packages: Sequence[str] = ()
    device: str = "cpu"

    def all_checks(self) -> list[Check]:
        """Return the ratios that something is asked of, then the other figures."""
        speeds = []
        for contest in (one for one in self.contests if one.asked is not None):
            ratio = spread(ratios(self.seconds[contest.ours], self.seconds[contest.peer])).median
            speeds.append(Check(f"speed of {contest.ours} over {contest.peer}", ratio, "at least", contest.asked))
        return [*speeds, *self.checks]

    def as_json(self, machine: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything, the seconds of each round included, as JSON can write it."""
        sides = {}
        for name, seconds in self.seconds.items():
            rate = spread([self.n_units / one for one in seconds])
            sides[name] = {"seconds": list(seconds), "rate": asdict(rate)}
        contests = []
        for contest in self.contests:
            found = ratios(self.seconds[contest.ours], self.seconds[contest.peer])
            contests.append({**asdict(contest), "ratios": found, "ratio": asdict(spread(found))})
        return {
            "title": self.title,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "machine": dict(machine),
            "settings": dict(self.settings),
            "unit": self.unit,
            "n_units": self.n_units,
            "sides": sides,
            "contests": contests,
            "checks": [{**asdict(check), "met": check.met} for check in self.all_checks()],
        }


def make_parser(doc: str, *, n_pairs: int, device: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the options that comparisons have in common."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    if n_pairs:
        parser.add_argument("--pairs", type=int, default=n_pairs, help="rounds, of one run of each side")
    if device:
        parser.add_argument("--device", default="cpu", help="cpu or cuda, for all sides")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a figure is not what was asked")
    return parser


def finish(comparison: Comparison, options: argparse.Namespace, machine: Mapping[str, Any]) -> int:
    """Print a comparison, write it where that is asked for, and return the exit status."""
    result = comparison.as_json(machine)
    write_json(options.json, result)
    print(f"\n{comparison.title}")
    print(", ".join(f"{name} {value}" for name, value in machine.items() if value is not None))
    print(", ".join(f"{name}: {value}" for name, value in comparison.settings.items()))
    _print_sides(result)
    for check in comparison.all_checks():
        asked = (
            ""
            if check.asked is None
            else f"  (asked {check.sense} {check.asked:g}: {'met' if check.met else 'MISSED'})"
        )
        print(f"{check.what}: {check.value:.6g}{asked}")
    return 1 if options.strict and not all(check.met for check in comparison.all_checks()) else 0


def choose(parser: argparse.ArgumentParser, tasks: Mapping[str, Any], prefixes: Sequence[str] | None) -> dict[str, Any]:
    """Return the tasks whose names begin as one of the prefixes says, all without one."""
    unknown = [one for one in prefixes or () if not any(name.startswith(one) for name in tasks)]
    if unknown:
        parser.error(f"no task is called {', '.join(unknown)}; there are {', '.join(tasks)}")
    return {name: task for name, task in tasks.items() if not prefixes or name.startswith(tuple(prefixes))}


def write_json(path: Path | None, made: Mapping[str, Any]) -> None:
    """Write a result where a file was asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def write_evaluation(
    title: str,
    options: argparse.Namespace,
    machine: Mapping[str, Any],
    tasks: Mapping[str, Any],
    checks: Sequence[Check] = (),
) -> None:
    """Write the tasks that are done; called after each, since all of them take long."""
    made = {
        "title": title,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "machine": dict(machine),
        "tasks": dict(tasks),
        "checks": [{**asdict(check), "met": check.met} for check in checks],
    }
    write_json(options.json, made)


def begin(title: str, packages: Sequence[str], device: str) -> dict[str, Any]:
    """Announce a comparison, and return the machine as it is before the work."""
    machine = describe(packages, device)
    if machine["load_average"] > 0.5:
        print(f"note: other work is running (load average {machine['load_average']}); only the ratios mean something")
    print(f"{title} ...", flush=True)
    return machine


def _print_sides(result: Mapping[str, Any]) -> None:
    if not result["sides"]:
        return
    width = max(map(len, result["sides"])) + 2
    print(f"\n{'':<{width}}{'seconds':>12}{result['unit'] + '/s':>16}   quartiles")
    for name, side in result["sides"].items():
        rate = side["rate"]
        seconds = spread(side["seconds"]).median
        quartiles = f"{_rate(rate['lower_quartile'])} .. {_rate(rate['upper_quartile'])}"
        print(f"{name:<{width}}{seconds:>12.3f}{_rate(rate['median']):>16}   {quartiles}")
    print()
    for contest in result["contests"]:
        ratio = contest["ratio"]
        print(
            f"{contest['ours']} / {contest['peer']}: median {ratio['median']:.2f} of {len(contest['ratios'])} pairs, "
            f"quartiles {ratio['lower_quartile']:.2f} .. {ratio['upper_quartile']:.2f}, "
            f"from {ratio['lowest']:.2f} to {ratio['highest']:.2f}"
        )


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
