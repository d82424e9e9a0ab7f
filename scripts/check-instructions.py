#!/usr/bin/env python3
"""Fails where a hot path runs over 3 % more or fewer instructions than Benchmarks/instructions.json says. --update writes the file.

Counts `adallava-instructions` under valgrind, with the AVX2 kernels (valgrind does not know AVX-512). Elsewhere than on x86-64
Linux nothing is checked.
"""
import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "Benchmarks/instructions.json"
TOLERANCE = 0.03


def count(program, folder):
    """Instructions by path, in the order in which they ran: a path that is repeated has the mean of its runs."""
    # Valgrind fails on the debug information of newer compilers; function names are in the symbol table.
    stripped = folder / "adallava-instructions"
    objcopy = shutil.which("objcopy") or shutil.which("llvm-objcopy")
    if not objcopy:
        sys.exit("check-instructions: neither objcopy nor llvm-objcopy: apt-get install binutils")
    subprocess.run([objcopy, "--strip-debug", program, stripped], check=True)
    # Swift seeds its hash tables at random unless told not to.
    environment = dict(os.environ, ADALLAVA_KERNELS="avx2", SWIFT_DETERMINISTIC_HASHING="1", XDG_CACHE_HOME=str(folder / "cache"))
    run = subprocess.run(
        ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={folder}/counts", "--dump-before=*endPath*", stripped],
        cwd=ROOT, env=environment, capture_output=True, text=True)
    names = run.stdout.split()
    if run.returncode or not names:
        sys.exit(f"check-instructions: the program ended with code {run.returncode}\n{run.stderr}")
    # A dump is written when the function is entered that ends a path, so dump number n counts path number n.
    dumps = sorted(folder.glob("counts.*"), key=lambda path: int(path.suffix[1:]))
    totals = [int(re.search(r"^(?:totals|summary): (\d+)", path.read_text(), re.M)[1]) for path in dumps]
    if len(totals) != len(names):
        sys.exit(f"check-instructions: valgrind wrote {len(totals)} counts for the {len(names)} paths {' '.join(names)}")
    paths = {}
    for name, total in zip(names, totals):
        paths.setdefault(name, []).append(total)
    return {name: round(sum(counts) / len(counts)) for name, counts in paths.items() if name != "load"}


def differences(kept, found):
    """One line for each path that differs by more than the tolerance, or that only one side has."""
    lines = []
    for path in sorted(kept.keys() | found.keys()):
        if path not in kept or path not in found:
            lines.append(f"{path}: {'not measured' if path in kept else 'no kept value'}")
        elif abs(found[path] / kept[path] - 1) > TOLERANCE:
            lines.append(f"{path}: {found[path]:,} instructions, expected {kept[path]:,} ({100 * (found[path] / kept[path] - 1):+.1f} %)")
    return lines


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--update", action="store_true", help="write the file instead of comparing")
    arguments.add_argument("--program", default=str(ROOT / ".build/release/adallava-instructions"))
    options = arguments.parse_args()
    if platform.system() != "Linux" or platform.machine() != "x86_64" or "avx2" not in pathlib.Path("/proc/cpuinfo").read_text():
        print("instructions: not counted, since this is no x86-64 Linux with AVX2", file=sys.stderr)
        return 0
    if not shutil.which("valgrind"):
        sys.exit("check-instructions: no valgrind: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        found = count(options.program, pathlib.Path(folder))
    for path, instructions in found.items():
        print(f"{path:8} {instructions:14,} instructions", file=sys.stderr)
    if options.update:
        KEPT.write_text(json.dumps(found, indent=2) + "\n")
        return 0
    changed = differences(json.loads(KEPT.read_text()), found)
    if changed:
        print("\n".join(changed))
        print("if this is intended, run scripts/check-instructions.py --update and say why in the commit", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
