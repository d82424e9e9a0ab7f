#!/usr/bin/env python3
"""Fails on an upward reference between folders of Sources/AdaLLaVA: code may name types of its own folder and of those below it.

Types are known by name, as declared at file scope, which is enough while names are unique; one that the using folder declares too is its own, and
`Swift.NAME` is the standard library's.
"""
import pathlib
import re
import sys

# Top to bottom; files outside a folder are the bottom.
FOLDERS = ["Conversion", "Generation", "Timing", "Adaptive", "Cost", "Language", "Vision", "Tokenizer", "Compute", "Checkpoint", "."]
SOURCES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent / "Sources/AdaLLaVA")
DECLARATION = re.compile(r"^( *)(?:@\w+ +)*((?:(?!func|var|let|case)[a-z]+ +)*?)(?:struct|class|enum|protocol|actor|typealias) +(\w+)", re.M)
# Of an interpolated string what is interpolated stays: it is code.
LITERAL = re.compile(r'"""(?:\\.|.)*?"""|"(?:\\\([^"\n]*?(?:"[^"\n]*"[^"\n]*?)*\)|\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.S)


def code(path):
    """The file without comments and the text of strings, line for line."""
    return LITERAL.sub(lambda m: (" ".join(re.findall(r"\\\((.*?)\)", m[0])) if m[0][0] == '"' else "") + "\n" * m[0].count("\n"), path.read_text())


def main():
    files = [(path, (path.relative_to(SOURCES).parts if path.parent != SOURCES else ".")[0], code(path)) for path in sorted(SOURCES.rglob("*.swift"))]
    if unknown := {folder for _, folder, _ in files} - set(FOLDERS):
        sys.exit(f"{SOURCES}: no place in the order for {', '.join(sorted(unknown))}")
    homes, own = {}, {folder: set() for folder in FOLDERS}
    for _, folder, text in files:
        for indent, modifiers, name in DECLARATION.findall(text):
            own[folder].add(name)
            if not indent and "private" not in modifiers:
                homes[name] = max(homes.get(name, 0), FOLDERS.index(folder))
    violations = 0
    for path, folder, text in files:
        for number, line in enumerate(text.splitlines(), 1):
            for name in sorted(set(re.findall(r"\b(?<!\bSwift\.)[A-Z]\w*", line)) - own[folder]):
                if homes.get(name, len(FOLDERS)) < FOLDERS.index(folder):
                    violations += 1
                    print(f"{path}:{number}: {name}: {folder} refers up to {FOLDERS[homes[name]]}")
    print(f"{SOURCES.name}: {len(files)} files, {len(homes)} types, {violations} upward references", file=sys.stderr)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
