#!/usr/bin/env python3
"""Fails where the public interface of the libraries differs from docs/public-interface.txt, or has no documentation. --update writes the file.

The file makes every change of the interface a line of a commit. Reads the symbol graphs of built modules (scripts/symbol-graphs.sh).
"""
import argparse
import difflib
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs/public-interface.txt"
TYPES = {"swift.struct", "swift.class", "swift.enum", "swift.protocol", "swift.actor", "swift.typealias"}
# Conformances that the compiler adds by itself.
IMPLICIT = {"Copyable", "Escapable", "SendableMetatype", "BitwiseCopyable"}
# Requirements of protocols, documented there, and members that the compiler makes.
DOCUMENTED_BY_PROTOCOL = {
    "description", "category", "init(from:)", "encode(to:)", "makeAsyncIterator()", "next()", "Element", "init(rawValue:)", "==(_:_:)", "hash(into:)",
}


def lines(graphs):
    """One line per public declaration: its path, how it is declared, and the protocols of a type. `graphs`: (module, parsed symbol graph)."""
    found = set()
    for module, graph in graphs:
        protocols = {}
        for relation in graph["relationships"]:
            if relation["kind"] == "conformsTo":
                name = relation.get("targetFallback") or next(
                    (s["names"]["title"] for s in graph["symbols"] if s["identifier"]["precise"] == relation["target"]), relation["target"])
                protocols.setdefault(relation["source"], set()).add(name.split(".")[-1])
        for symbol in graph["symbols"]:
            declaration = " ".join("".join(part["spelling"] for part in symbol["declarationFragments"]).split())
            # A protocol's declaration names the protocols that it refines.
            if symbol["kind"]["identifier"] in TYPES - {"swift.protocol"}:
                declaration += "".join(f", {name}" for name in sorted(protocols.get(symbol["identifier"]["precise"], set()) - IMPLICIT)).replace(",", ":", 1)
            found.add(f"{module}.{'.'.join(symbol['pathComponents'])}  {declaration}")
    return sorted(found)


def undocumented(graphs):
    """Paths of public declarations without a documentation comment."""
    return sorted(
        f"{module}.{'.'.join(symbol['pathComponents'])}" for module, graph in graphs for symbol in graph["symbols"]
        if "docComment" not in symbol and symbol["pathComponents"][-1] not in DOCUMENTED_BY_PROTOCOL)


def types(graphs):
    return sum(symbol["kind"]["identifier"] in TYPES for _, graph in graphs for symbol in graph["symbols"])


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--update", action="store_true", help="write the file instead of comparing")
    update = arguments.parse_args().update
    subprocess.run([ROOT / "scripts/symbol-graphs.sh"], check=True)
    graphs = [(path.name.split(".")[0].split("@")[0], json.loads(path.read_text())) for path in sorted((ROOT / "build/symbols").glob("*/*.symbols.json"))]
    now = lines(graphs)
    print(f"interface: {types(graphs)} public types, {len(now)} declarations", file=sys.stderr)
    if update:
        KEPT.write_text("\n".join(now) + "\n")
        return 0
    kept = KEPT.read_text().splitlines() if KEPT.exists() else []
    changes = [line for line in difflib.unified_diff(kept, now, "docs/public-interface.txt", "Sources", n=0, lineterm="") if not line.startswith("@@")]
    if changes:
        print("\n".join(changes))
        print("the public interface changed: if this is intended, run scripts/check-interface.py --update and say why in the commit", file=sys.stderr)
    missing = undocumented(graphs)
    for path in missing:
        print(f"{path}: no documentation comment")
    return 1 if changes or missing else 0


if __name__ == "__main__":
    sys.exit(main())
