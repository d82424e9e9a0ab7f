#!/usr/bin/env python3
"""Fails where `swift format lint` finds a broken rule of .swift-format in the Swift code.

Not checked: where expressions are broken and how their continuation is indented, spaces around range operators and before comments,
and the length of a line that one string literal makes long. People decide these.
"""
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
FOLDERS = ["Package.swift", "Sources", "Tests", "Benchmarks", "Examples/Package.swift", "Examples/Sources", "Plugins"]
LINE_LENGTH = 200
FINDING = re.compile(r"(.+?):(\d+):(\d+): (?:warning|error): (\[\w+\] )?(.*)")
LAYOUT = {"[Indentation] ", "[AddLines] ", "[TrailingComma] "}
LITERAL = re.compile(r'(#+)".*?"\1|"(?:\\.|[^"\\])*"')


def is_left_to_people(rule, line, column):
    """Whether a finding is about layout that this check does not hold code to."""
    if rule in LAYOUT:
        return True
    if rule == "[Spacing] ":
        # The column counts bytes of UTF-8.
        near = line.encode()[max(0, column - 5):column + 4]
        return b"..<" in near or b"..." in near or bool(re.match(rb"\s*//", line.encode()[column - 1:]))
    if rule == "[LineLength] ":
        return len(line) - max((len(m[0]) for m in LITERAL.finditer(line)), default=0) <= LINE_LENGTH
    return False


def main():
    swift = shutil.which("swift")
    if not swift:
        sys.exit("check-format: no `swift` in PATH")
    paths = [name for name in FOLDERS if (ROOT / name).exists()]
    run = subprocess.run([swift, "format", "lint", "--parallel", "--recursive", *paths], cwd=ROOT, capture_output=True, text=True)
    lines, findings = {}, 0
    for message in run.stderr.splitlines():
        found = FINDING.match(message)
        if not found:
            sys.exit(f"check-format: swift format: {message}")
        path, number, column, rule, text = found.groups()
        if path not in lines:
            lines[path] = (ROOT / path).read_text().split("\n")
        if not is_left_to_people(rule, lines[path][int(number) - 1], int(column)):
            findings += 1
            print(f"{path}:{number}:{column}: {rule or ''}{text}")
    if run.returncode and not run.stderr:
        sys.exit(f"check-format: swift format ended with code {run.returncode}")
    print(f"format: {findings} findings", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
