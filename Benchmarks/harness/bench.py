#!/usr/bin/env python3
"""Measures the engine against its requirements and its peers, and prints one table. Started by scripts/bench.sh."""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import engine
import language
from measuring import Failed, Interruption, Missing, note
from report import table, write
from setting import ROOT, Setting

SECTIONS = {
    "smollm2": ("1", language.smollm2), "busy": ("2", language.busy), "linearity": ("3", engine.linearity), "vision": ("4", engine.vision),
    "seven-b": ("5", engine.seven_b), "startup": ("6", engine.startup), "overhead": ("7", engine.overhead), "avx2": ("8", language.avx2),
}


def main() -> int:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; all by default")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, in each of which ours and the peers are measured once (5)")
    parser.add_argument("--threads", type=int, default=cores, help=f"threads of every program ({cores})")
    parser.add_argument("--types", default="Q8_0,Q4_0,F16,BF16", help="weights of SmolLM2, with commas between them")
    parser.add_argument("--peers", type=Path, default=default_peers(), help="where Benchmarks/peers/setup.sh put the peers (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench/results.json", help="the JSON file (%(default)s)")
    options = parser.parse_args()
    types = [type.strip().upper() for type in options.types.split(",")]
    wrong = [name for name in options.sections if name not in SECTIONS]
    unknown = [type for type in types if type not in language.ARITHMETIC]
    if wrong or unknown or options.repeats < 1 or options.threads < 1:
        parser.error(
            f"unknown section {wrong[0]}" if wrong else f"unknown type {unknown[0]}; known: {', '.join(language.ARITHMETIC)}" if unknown
            else "expected --repeats and --threads of 1 or more")
    if "ADALLAVA_BUILD" not in os.environ:
        for product in ("adallava", "adallava-bench"):
            command = ["swift", "build", "-c", "release", "--product", product, *os.environ.get("SWIFTFLAGS", "").split()]
            if subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode != 0:
                note(f"bench: {product} could not be built")
                return 70
    setting = Setting(options.peers.expanduser(), options.threads, options.repeats, types)
    rows = []
    for name in options.sections or SECTIONS:
        requirement, measure = SECTIONS[name]
        note(f"== {name} (requirement {requirement}), load {os.getloadavg()[0]:.2f}")
        try:
            rows += measure(setting)
        except (Missing, Failed) as error:
            note(f"  not measured: {error}")
            setting.notes.append(f"{name}: {error}")
        except KeyboardInterrupt:
            Interruption.happened = True
            note("  stopped; what was measured so far follows")
        if Interruption.happened:
            break
    environment = setting.environment()
    print(f"{environment['processor']}, {environment['cores']} cores, {options.threads} threads, medians of {options.repeats}, load {environment['load_average']:.2f}")
    if environment["ceilings"]:
        print("at most: " + ", ".join(f"{key} {value:.1f}" for key, value in environment["ceilings"].items()))
    print(table(rows))
    for text in setting.notes:
        print(f"not measured: {text}")
    write(options.out, rows, environment, setting.raw, setting.notes)
    note(f"written: {options.out}")
    return 130 if Interruption.happened else 0


def default_peers() -> Path:
    named = os.environ.get("ADALLAVA_PEERS")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "adallava-peers"


if __name__ == "__main__":
    sys.exit(main())
