#!/usr/bin/env python3
"""Runs the command blocks of README.md and docs/*.md, and compares the transcripts among them with what the commands print.

A command block is an indented or fenced block whose lines are commands, or commands after "$ " with their output. Commands run one after the
other in a scratch folder: links to the repository's own folders, and small stand-ins for the names that the documents use (photo.jpg, val.json, MODEL).
A command must end with 0. Output must be equal, line by line, to standard output or to what a terminal shows of both streams, but for
times, the lines "machine" and "build" of benchmarks, and what "…" stands for. Of `make` only the plan is asked for (`make -n`).

A comment above a block says what else is to be expected of it:

    <!-- commands: not run: REASON -->          never run
    <!-- commands: slow: REASON -->             run with --slow only
    <!-- commands: background: REASON -->       started, and left running while the document's other blocks run
    <!-- commands: figures vary: REASON -->     every number of the output may be another one
    <!-- commands: ends with 66: REASON -->     the exit code of the block's last command

usage: check-docs.py [--slow] [--update] [--binary FILE] [FILE.md …]
"""
import argparse
import base64
import difflib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = r"(?:[A-Z_]+=\S* )*(?:adallava|hf|adallava-bench|make|swift|python3|pip|torchrun|echo|cat|printf|cd|mkdir|git|curl|apt-get|(?:\./)?scripts/\S+)(?:\s|$)"
MARK = re.compile(r"<!--\s*commands:\s*(not run|slow|background|figures vary|ends with \d+)\s*[:,]\s*(\S.*?)\s*-->", re.S)
# A command that hangs must not hang the tests; nothing here takes a tenth of it on a loaded machine.
LIMIT_SECONDS = 1800
READY_SECONDS = 120


class Block:
    def __init__(self, file, line, indent, lines, mark):
        self.file, self.line, self.indent, self.lines = file, line, indent, lines
        self.kinds = {kind: reason for kind, reason in mark}
        self.is_transcript = any(text.startswith("$ ") for text in lines)

    @property
    def place(self):
        return f"{self.file.relative_to(ROOT) if self.file.is_relative_to(ROOT) else self.file}:{self.line}"

    @property
    def status(self):
        return next((int(kind.split()[-1]) for kind in self.kinds if kind.startswith("ends with")), 0)

    def commands(self):
        """Commands with their expected output; None where the block shows none."""
        found = []
        for text in self.lines:
            if found and found[-1][0].endswith("\\"):
                found[-1][0] = found[-1][0][:-1] + text.strip()
            elif self.is_transcript and not text.startswith("$ "):
                if not found:
                    raise ValueError(f"{self.place}: expected a command after \"$ \" first, found: {text}")
                found[-1][1].append(text)
            elif text.strip() and not text.lstrip().startswith("#"):
                command = text[2:] if self.is_transcript else text
                if not re.match(PROGRAM, command):
                    raise ValueError(f"{self.place}: expected a command (or \"$ \" before the commands and output without it), found: {text}")
                found.append([command, [] if self.is_transcript else None])
        for _, output in found:
            while output and not output[-1].strip():
                output.pop()
        return found


def blocks(file):
    """The command blocks of a Markdown file."""
    lines = file.read_text().split("\n")
    position, marks = 0, []
    while position < len(lines):
        text = lines[position]
        if text.lstrip().startswith("<!--"):
            end = next((i for i in range(position, len(lines)) if "-->" in lines[i]), position)
            comment = "\n".join(lines[position:end + 1])
            marks += MARK.findall(comment)
            if re.search(r"<!--\s*commands:", comment) and not MARK.search(comment):
                raise ValueError(f"{file}:{position + 1}: expected `commands: KIND: REASON`, found: {comment}")
            position = end + 1
            continue
        fence = re.match(r"\s*(```+|~~~+)", text)
        if fence:
            end = next((i for i in range(position + 1, len(lines)) if lines[i].strip().startswith(fence[1])), len(lines))
            first, body, indent, position = position + 2, lines[position + 1:end], "", end + 1
        elif text.startswith("    ") and (position == 0 or not lines[position - 1].strip()):
            end = position
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            while not lines[end - 1].strip():
                end -= 1
            first, body, indent, position = position + 1, [line[4:] for line in lines[position:end]], "    ", end
        else:
            if text.strip():
                marks = []
            position += 1
            continue
        if any(re.match(r"(?:\$ )?" + PROGRAM, line) for line in body):
            yield Block(file, first, indent, body, marks)
        marks = []


def prepare(folder, binary, commands, slow):
    """Fills a folder with the files that the documents' commands name; `slow` also with those that are downloaded."""
    for name in ["Models", "Recipes", "scripts", "Tests", "docs", "Makefile", "Package.swift"]:
        (folder / name).symlink_to(ROOT / name)
    (folder / "bin").mkdir()
    (folder / "bin/adallava").symlink_to(binary)
    (folder / "build").mkdir()
    if (ROOT / "build/models").is_dir():
        (folder / "build/models").symlink_to(ROOT / "build/models")
    home = folder / "home"
    for name in [".local/share/bash-completion/completions", ".zsh", ".config/fish/completions", "data"]:
        (home / name).mkdir(parents=True)
    model = ROOT / "Models/scenes-ref"
    for name in ["MODEL", "CHECKPOINT", "ada-llava-L-7b"]:
        (folder / name).symlink_to(model)
    shutil.copy(model / "config.json", folder / "config.json")
    # Models by name lie in the Hugging Face cache.
    named = {name for command in commands for name in re.findall(r"(?:-m|--model)[ =](\S+)", command)}
    for name in named:
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not (ROOT / "Models" / name).exists():
            hub = home / ".cache/huggingface/hub" / ("models--" + name.replace("/", "--"))
            (hub / "snapshots").mkdir(parents=True)
            (hub / "refs").mkdir()
            (hub / "refs/main").write_text("0123")
            (hub / "snapshots/0123").symlink_to(model)

    environment = {name: value for name, value in os.environ.items() if not re.match(r"HF_|XDG_|ADALLAVA_(?!KERNELS|MOVES)", name)}
    environment |= {
        "HOME": str(home), "HF_HOME": str(home / ".cache/huggingface"), "XDG_CACHE_HOME": str(home / ".cache"), "ADALLAVA_HISTORY": "",
        "PATH": f"{folder / 'bin'}:{environment['PATH']}"}

    def run(*arguments):
        done = subprocess.run(["adallava", *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"check-docs: adallava {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr}")

    # As `make demo` draws them.
    run("data", "scenes", "--out", "build/demo/scenes", "--count", 4, "--seed", 1000007, "--split", "demo")
    run("data", "scenes", "--out", ".", "--count", 12, "--seed", 1000001, "--split", "val")
    for number, name in enumerate(["photo", "a", "b", "c"]):
        shutil.copy(folder / f"build/demo/scenes/images/demo-{number:06}.jpg", folder / f"{name}.jpg")
    # Two steps, so that the command ends.
    (folder / "recipe.yaml").write_text(
        f"model_name_or_path: {model}\ndata_path: val.json\nimage_folder: .\noutput_dir: runs/a\nscheduler_type: L\nnum_prefix_layers: 4\n"
        "per_device_train_batch_size: 2\nlearning_rate: 1e-5\nmax_steps: 2\n")
    # OpenAI's batch form.
    (folder / "requests.jsonl").write_text("".join(json.dumps({
        "custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode((folder / f"{name}.jpg").read_bytes()).decode()}},
            {"type": "text", "text": "What is in the picture?"}]}], "max_tokens": 16}}) + "\n" for number, name in enumerate(["a", "b", "a"])))
    if slow:
        fetched = subprocess.run([ROOT / "scripts/fetch-smollm2.sh"], capture_output=True, text=True, check=True).stdout.strip()
        for type in ["Q8_0", "F16"]:
            other = pathlib.Path(fetched.replace("Q4_1", type))
            if not other.exists():
                run("convert", fetched, other, "--to", type.lower())
    # A model to measure has the context that the command asks for.
    for type in ["Q8_0", "Q4_1"]:
        (folder / f"M-{type}.gguf").symlink_to(ROOT / f"build/models/SmolLM2-135M-Instruct.{type}.gguf")
    for name in named:
        if re.fullmatch(r"[\w.-]+\.gguf", name) and not (folder / name).is_symlink():
            run("convert", model, name, "--to", "q8_0")
    pope = home / "data/pope"
    shutil.copytree(ROOT / "Tests/Fixtures/benchmarks/pope", pope)
    return environment


def masked(text, figures_vary):
    """A line without what differs from run to run."""
    text = re.sub(r"\d+(?:\.\d+)?(?= (?:ms|s|tokens/s)\b)", "#", text.rstrip())
    if figures_vary:
        text = re.sub(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?", "#", text)
        # Columns are as wide as their numbers.
        text = re.sub(r"-{2,}", "--", re.sub(r"\s+", " ", text))
    return text


def agree(expected, found, figures_vary):
    """Whether an output is what a transcript shows."""
    def lines(texts):
        return [masked(text, figures_vary) for text in texts if not re.match(r"(machine|build) {2,}", text)]

    def match(pattern, output):
        if not pattern:
            return not output
        if pattern[0].strip() == "…":
            return any(match(pattern[1:], output[i:]) for i in range(len(output) + 1))
        if not output or not re.fullmatch(".*".join(map(re.escape, pattern[0].split("…"))), output[0]):
            return False
        return match(pattern[1:], output[1:])
    return match(lines(expected), lines(found))


def run(command, folder, environment, joins=False):
    """A command's exit code, its standard output, and standard error.

    joins: standard error goes where standard output goes, as on a terminal.
    """
    if re.match(r"make\s", command):
        command = re.sub(r"^make", f"make -n -C '{ROOT}'", command)
    try:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if joins else subprocess.PIPE, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return 124, "", f"it still ran after {LIMIT_SECONDS} s"
    return done.returncode, done.stdout.decode(errors="replace"), (done.stderr or b"").decode(errors="replace")


def start(block, folder, environment):
    """Starts a block's command, and waits until it has printed an address or has ended. Its process, and the problems."""
    commands = block.commands()
    if len(commands) != 1:
        return None, [f"{block.place}: expected one command to run in the background, found {len(commands)}"]
    command = commands[0][0]
    log = (folder / "background.log").open("wb")
    process = subprocess.Popen(
        ["bash", "-c", "exec " + command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    limit = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < limit:
        if "http://" in (folder / "background.log").read_text(errors="replace"):
            return process, []
        time.sleep(0.1)
    said = (folder / "background.log").read_text(errors="replace")
    return process, [f"{block.place}: `{command}`: expected an address within {READY_SECONDS} s, found exit code {process.poll()}\n{said}"]


def stop(process, place):
    """Ends a command that runs in the background as Ctrl-C does."""
    if process is None:
        return []
    early = process.poll()
    process.send_signal(signal.SIGINT)
    try:
        process.wait(READY_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return [f"{place}: the command in the background still ran {READY_SECONDS} s after an interrupt"]
    return [] if early is None else [f"{place}: the command in the background had ended by itself with {early}"]


def check(block, folder, environment, update):
    """What is wrong with a block; with `update` its transcripts are made right."""
    failures, differences, shown = [], [], []
    vary = "figures vary" in block.kinds
    commands = block.commands()
    for number, (command, expected) in enumerate(commands):
        start = time.monotonic()
        code, output, errors = run(command, folder, environment)
        wanted = block.status if number == len(commands) - 1 else 0
        if code != wanted:
            failures.append(f"{block.place}: `{command}`: expected exit code {wanted}, found {code}\n{errors or output}")
        elif expected is not None and not agree(expected, output.splitlines(), vary):
            if not agree(expected, run(command, folder, environment, joins=True)[1].splitlines(), vary):
                difference = difflib.unified_diff(
                    [masked(text, vary) for text in expected], [masked(text, vary) for text in output.splitlines()], "documented", "printed",
                    lineterm="", n=1)
                differences.append(f"{block.place}: `{command}`: another output\n" + "\n".join(difference))
        shown += ["$ " + command, *output.splitlines()]
        print(f"  {time.monotonic() - start:6.1f} s  {block.place}  {command[:110]}", flush=True)
    if update and differences and not failures:
        replace(block, shown)
    return failures + differences


def replace(block, shown):
    lines = block.file.read_text().split("\n")
    first = block.line - 1
    lines[first:first + len(block.lines)] = [(block.indent + text).rstrip() for text in shown]
    block.file.write_text("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    parser.add_argument("--slow", action="store_true", help="run slow blocks, and only those")
    parser.add_argument("--update", action="store_true", help="write what commands print into the transcripts that differ")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/adallava")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    files = [file.resolve() for file in arguments.files] or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "Models").rglob("*.md"))]
    try:
        found = [block for file in files for block in blocks(file)]
        for block in found:
            block.commands()
    except ValueError as error:
        sys.exit(f"check-docs: {error}")
    binary = arguments.binary.resolve()
    if not os.access(binary, os.X_OK):
        sys.exit(f"check-docs: {binary}: expected the built command; make build")
    problems, count = [], 0
    with tempfile.TemporaryDirectory(prefix="adallava-docs-") as name:
        folder = pathlib.Path(name).resolve()
        environment = prepare(folder, binary, [command for block in found for command, _ in block.commands()], arguments.slow)
        background, place = None, None
        # From a file's end, so that a longer transcript moves no other block.
        for block in sorted(found, key=lambda block: (str(block.file), -block.line if arguments.update else block.line)):
            if "not run" in block.kinds or ("slow" in block.kinds) != arguments.slow:
                continue
            count += 1
            if background is not None and ("background" in block.kinds or place.file != block.file):
                problems += stop(background, place.place)
                background = None
            if "background" in block.kinds:
                background, failures = start(block, folder, environment)
                problems, place = problems + failures, block
            else:
                problems += check(block, folder, environment, arguments.update)
        problems += stop(background, place and place.place)
    for problem in problems:
        print(problem, file=sys.stderr)
    skipped = sum("not run" in block.kinds for block in found)
    slow = sum("slow" in block.kinds for block in found)
    print(f"check-docs: {count} of {len(found)} command blocks run ({slow} slow, {skipped} not run), {len(problems)} problems")
    sys.exit(1 if problems or count == 0 else 0)


if __name__ == "__main__":
    main()
