"""Running programs for their times: one after another, resident ones that answer line by line, and neighbours that keep the machine busy."""
from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator, Optional


class Missing(Exception):
    """Something that a measurement needs is not there; the text says what to do."""


class Failed(Exception):
    """A program that was measured ended with an error."""


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def median(values: list[float]) -> Optional[float]:
    return statistics.median(values) if values else None


def run(command: list[str | Path], environment: dict[str, str] | None = None, accepts: tuple[int, ...] = (0,)) -> str:
    """The standard output of a program."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {}), check=False)
    except FileNotFoundError as error:
        raise Missing(f"{words[0]} is missing") from error
    if done.returncode not in accepts:
        lines = done.stderr.strip().splitlines()[-3:]
        raise Failed(f"{' '.join(words[:3])} … ended with {done.returncode}: {' / '.join(lines)}")
    return done.stdout


def run_json(command: list[str | Path], environment: dict[str, str] | None = None) -> dict | list:
    return json.loads(run(command, environment))


class Interruption:
    """Whether Ctrl-C was pressed: what was measured so far is still reported."""

    happened = False


class Progress:
    """How far a section is, with the time left as the steps so far suggest."""

    def __init__(self, name: str, total: int):
        self.name, self.total, self.done, self.start = name, total, 0, time.monotonic()

    def step(self, what: str) -> None:
        left = ""
        if self.done:
            seconds = (time.monotonic() - self.start) / self.done * (self.total - self.done)
            left = f", about {seconds:.0f} s left" if seconds < 100 else f", about {seconds / 60:.0f} min left"
        note(f"  {self.name} {self.done + 1}/{self.total}: {what}{left}")
        self.done += 1


def interleave(name: str, repeats: int, cases: dict[str, Callable[[], dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Measures every case once a round, each round beginning with another one, so that what else the machine does meanwhile hits all alike.

    A case that fails is told once and left out from then on; Ctrl-C ends the rounds. Returns case → quantity → one value a round.
    """
    results: dict[str, dict[str, list[float]]] = {case: {} for case in cases}
    progress = Progress(name, repeats * len(cases))
    failed: set[str] = set()
    names = list(cases)
    for turn in range(repeats):
        for index in range(len(names)):
            case = names[(index + turn) % len(names)]
            if case in failed:
                progress.done += 1
                continue
            progress.step(case)
            try:
                for quantity, value in cases[case]().items():
                    results[case].setdefault(quantity, []).append(value)
            except (Missing, Failed) as error:
                failed.add(case)
                note(f"  {case}: not measured: {error}")
            except KeyboardInterrupt:
                Interruption.happened = True
                note("  stopped; what was measured so far follows")
                return results
    return results


class Resident:
    """A program that is started once and measures once for each line it is given."""

    def __init__(self, command: list[str | Path], greets: bool):
        words = [str(word) for word in command]
        try:
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        except FileNotFoundError as error:
            raise Missing(f"{words[0]} is missing") from error
        self.name = Path(words[1] if len(words) > 1 and words[1].endswith(".py") else words[0]).name
        self.greeting = self._answer() if greets else {}

    def _answer(self) -> dict:
        while True:
            line = self.process.stdout.readline()
            if not line:
                self.process.wait()
                errors = self.process.stderr.read().strip().splitlines()[-1:]
                self.process.stdin.close()
                self.process.stdout.close()
                self.process.stderr.close()
                raise Failed(f"{self.name} ended with {self.process.returncode}: {' '.join(errors)}")
            if line.startswith("{"):
                return json.loads(line)

    def measure(self) -> dict:
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self._answer()

    def close(self) -> None:
        """Ends it, at once if it was interrupted in the middle of a measurement."""
        with contextlib.suppress(BrokenPipeError, OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=0 if Interruption.happened else 20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


@contextlib.contextmanager
def resident(command: list[str | Path], greets: bool = True) -> Iterator[Resident]:
    program = Resident(command, greets)
    try:
        yield program
    finally:
        program.close()


class Neighbours:
    """Programs that each keep one core busy: what else a machine may have to do."""

    def __init__(self, count: int):
        self.count = count
        self.processes: list[subprocess.Popen] = []
        self.start = 0.0

    def __enter__(self) -> "Neighbours":
        for _ in range(self.count):
            # Computes without end, from little memory.
            self.processes.append(
                subprocess.Popen(["sha256sum", "/dev/zero"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        self.start = time.monotonic()
        self.before = self._seconds()
        return self

    def _seconds(self) -> float:
        """Processor time that they have had."""
        ticks = os.sysconf("SC_CLK_TCK")
        total = 0.0
        for process in self.processes:
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / ticks
        return total

    def share(self) -> float:
        """The share of all processors' time that they took so far."""
        wall = time.monotonic() - self.start
        return (self._seconds() - self.before) / (wall * len(os.sched_getaffinity(0))) if wall > 0 else 0.0

    def __exit__(self, *_) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def seconds_to_first_byte(command: list[str | Path]) -> float:
    """From just before a program is started to the first byte that it prints."""
    start = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    first = os.read(process.stdout.fileno(), 1)
    elapsed = time.perf_counter() - start
    process.communicate()
    if not first or process.returncode != 0:
        raise Failed(f"{' '.join(str(word) for word in command[:2])} … ended with {process.returncode} and printed {'something' if first else 'nothing'}")
    return elapsed
