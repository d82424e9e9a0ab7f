#!/usr/bin/env python3
"""Measures `adallava serve` beside llama-server with a bounded client on loopback: the same weights, prompts and answers, in turns.

usage: serve.py [--seconds S] [--rounds N] [--clients 1,2,4,8] [--gguf FILE] [--vision MODEL] [--llama FILE] [--threads N] [--output DIR]

Prints one table and writes serve.json: tokens a second at each number of clients, the 50th and 99th percentile of the time to the first token and of the gaps
between pieces of text, gaps while a prompt of 600 tokens is read and while an image is encoded, and the second question about an image. Without llama-server
its columns stay empty.

A client sends its next request when it has its answer, so a server is never asked for more than it can do; requests are read one event at a time, and what
counts as a token is what the server says in `usage`.
"""
import argparse
import http.client
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 120
ANSWER_TOKENS = 64
WORDS = """time year people way day man thing woman life child world school state family student group country problem hand part place case week company
system program question work government number night point home water room mother area money story fact month lot right study book eye job word business""".split()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    """A server as a child process, which ends with this program."""

    def __init__(self, name, command, log, environment=None):
        self.name, self.port = name, int(command[command.index("--port") + 1])
        self.log = log
        self.process = subprocess.Popen(command, stdout=open(log, "w"), stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}, cwd=ROOT)
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                sys.exit(f"{name} ended with {self.process.returncode}; {log} says why")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit(f"{name} is not ready after {PATIENCE_SECONDS} s; {log} says why")

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()


def ask(port, path, body, on_piece=lambda: None):
    """Streams one answer. Returns times of its pieces in seconds since the call, and its last event with usage."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    start = time.monotonic()
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {response.read()[:300]}")
    times, last, ended = [], {}, False
    for line in response:
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            ended = True
            break
        event = json.loads(line[6:])
        if event.get("error"):
            raise RuntimeError(f"the stream ended with {event['error']}")
        choice = (event.get("choices") or [{}])[0]
        if choice.get("text") or (choice.get("delta") or {}).get("content"):
            times.append(time.monotonic() - start)
            on_piece()
        if event.get("usage"):
            last = event
    connection.close()
    if not ended:
        raise RuntimeError("the stream ended without its mark")
    return times, last


def prompt(words, seed):
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def completion(seed, words=40, tokens=ANSWER_TOKENS):
    """A prompt that no other request has, so that no server finds it in its cache. Greedy, and of the same text for both servers."""
    return {"prompt": prompt(words, seed), "max_tokens": tokens, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}


def percentile(values, share):
    if not values:
        return None
    values = sorted(values)
    return values[min(int(share * len(values)), len(values) - 1)]


def gaps(times):
    return [b - a for a, b in zip(times, times[1:])]


def load(server, clients, seconds, seed):
    """What `clients` that ask one request after another get in some seconds."""
    results, errors, lock, start = [], [], threading.Lock(), time.monotonic()

    def client(number):
        turn = 0
        while time.monotonic() - start < seconds:
            try:
                times, last = ask(server.port, "/v1/completions", completion(seed * 1_000_003 + number * 1009 + turn))
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                with lock:
                    errors.append(repr(error))
                return
            turn += 1
            with lock:
                results.append((times, last.get("usage", {}).get("completion_tokens", len(times))))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - start
    if errors:
        raise RuntimeError(f"{server.name}: {errors[0]}")
    return {
        "tokens_per_second": sum(tokens for _, tokens in results) / elapsed, "answers": len(results),
        "first": [times[0] for times, _ in results if times], "gaps": [gap for times, _ in results for gap in gaps(times)],
    }


def summary(runs):
    first, between = [value for run in runs for value in run["first"]], [value for run in runs for value in run["gaps"]]
    milliseconds = lambda value: None if value is None else 1000 * value
    return {
        "tokens_per_second": statistics.median(run["tokens_per_second"] for run in runs), "answers": sum(run["answers"] for run in runs),
        **{f"{name}_{label}_ms": milliseconds(percentile(values, share)) for name, values in (("first_token", first), ("gap", between)) for label, share in (("p50", 0.5), ("p99", 0.99))},
    }


def beside(server, path, streamed, disturbing, repeats):
    """Gaps of one stream before another request and while it is read: the median gap, and the longest while the other's first token is awaited."""
    alone, longest = [], []
    for turn in range(repeats):
        started, done = threading.Event(), threading.Event()
        times, marks = [], {}

        def stream():
            begin = time.monotonic()
            count = 0

            def piece():
                nonlocal count
                count += 1
                times.append(time.monotonic())
                if count == 12:
                    started.set()
            try:
                ask(server.port, path, streamed(turn), piece)
            finally:
                started.set()
                done.set()

        thread = threading.Thread(target=stream)
        thread.start()
        started.wait(PATIENCE_SECONDS)
        marks["from"] = time.monotonic()
        first, _ = ask(server.port, path, disturbing(turn))
        marks["to"] = marks["from"] + first[0]
        thread.join()
        before = [b - a for a, b in zip(times, times[1:]) if b <= marks["from"]]
        during = [b - a for a, b in zip(times, times[1:]) if b > marks["from"] and a < marks["to"]]
        if before and during:
            alone.append(statistics.median(before))
            longest.append(max(during))
    if not alone:
        return None
    return {
        "median_gap_ms": 1000 * statistics.median(alone), "longest_gap_ms": 1000 * statistics.median(longest), "worst_gap_ms": 1000 * max(longest),
        "ratio": statistics.median(b / a for a, b in zip(alone, longest)), "repeats": len(alone),
    }


def metric(port, name):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))


def image_url(folder, number):
    import base64
    return "data:image/png;base64," + base64.b64encode((folder / f"{number:02}.png").read_bytes()).decode()


def chat(url, question, **more):
    content = [{"type": "text", "text": question}] + ([{"type": "image_url", "image_url": {"url": url}}] if url else [])
    return {"messages": [{"role": "user", "content": content}], "stream": True, "stream_options": {"include_usage": True}, **more}


def second_question(server, folder, rounds):
    """The prefill of a second question about an image, at another budget, over that of the first; and what of it was found computed."""
    ratios, cached = [], []
    for turn in range(rounds):
        url = image_url(folder, turn % 15)
        _, first = ask(server.port, "/v1/chat/completions", chat(url, "Describe the image.", max_tokens=8, budget=1))
        _, second = ask(server.port, "/v1/chat/completions", chat(url, "Describe the image.", max_tokens=8, budget=0.6))
        times = [event["adaptive"]["measured_ms"] for event in (first, second)]
        ratios.append((times[1]["encode"] + times[1]["prefill"]) / max(times[0]["encode"] + times[0]["prefill"], 1e-6))
        cached.append((second["usage"]["prompt_tokens_details"]["cached_tokens"], second["usage"]["prompt_tokens"], times[1]["encode"]))
    return {"prefill_ratio": statistics.median(ratios), "cached_tokens": cached[0][0], "prompt_tokens": cached[0][1], "second_encode_ms": statistics.median(item[2] for item in cached)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/adallava")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,2,3,4,5,6,7,8")
    parser.add_argument("--gguf", type=pathlib.Path, help="SmolLM2-135M as Q8_0; without it only the embedded model is measured")
    parser.add_argument("--llama", type=pathlib.Path, help="llama-server; its libraries are looked for beside it")
    parser.add_argument("--vision", default="scenes/L")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "build/bench")
    options = parser.parse_args()
    counts = [int(part) for part in options.clients.split(",")]
    options.output.mkdir(parents=True, exist_ok=True)
    report, servers = {"seconds": options.seconds, "rounds": options.rounds, "threads": options.threads}, []
    with tempfile.TemporaryDirectory() as logs:
        def ours(model, name):
            return Server(name, [str(options.binary), "serve", "-m", str(model), "--threads", str(options.threads), "--port", str(free_port())], pathlib.Path(logs, name + ".log"))

        try:
            if options.gguf:
                servers = [ours(options.gguf, "adallava")]
                if options.llama and options.llama.exists():
                    command = [str(options.llama), "-m", str(options.gguf), "--host", "127.0.0.1", "--port", str(free_port()), "-t", str(options.threads), "-tb", str(options.threads),
                               "-np", str(max(counts)), "-c", str(2048 * max(counts)), "-cb", "--no-webui"]
                    servers.append(Server("llama-server", command, pathlib.Path(logs, "llama.log"), {"LD_LIBRARY_PATH": str(options.llama.resolve().parent)}))
                runs = {(server.name, count): [] for server in servers for count in counts}
                for server in servers:
                    load(server, max(counts), min(options.seconds, 2), seed=999)
                for turn in range(options.rounds):
                    for count in counts:
                        # In turns, and in the other order every second time, so that a drift of the machine meets both.
                        for server in servers if turn % 2 == 0 else servers[::-1]:
                            runs[server.name, count].append(load(server, count, options.seconds, seed=turn * 100 + count))
                            print(f"{server.name}, {count} clients: {runs[server.name, count][-1]['tokens_per_second']:.0f} tokens/s", file=sys.stderr)
                report["load"] = [{"server": name, "clients": count, **summary(all_runs)} for (name, count), all_runs in runs.items()]
                repeats = max(3, int(options.seconds / 2))
                report["long_prompt"] = [
                    {"server": server.name, **(beside(server, "/v1/completions", lambda turn: completion(turn, tokens=400), lambda turn: completion(10_000 + turn, words=500, tokens=2), repeats) or {})}
                    for server in servers]
                for server in servers:
                    server.close()
                servers = []
            folder = ROOT / "Models/scenes-ref/images"
            servers = [ours(options.vision, "vision")]
            ask(servers[0].port, "/v1/chat/completions", chat(image_url(folder, 15), "Describe the image.", max_tokens=8))
            report["second_question"] = second_question(servers[0], folder, 15)
            # New images only: what has been encoded is not encoded again. Each picture with another pixel is one.
            report["image"] = beside(
                servers[0], "/v1/chat/completions", lambda turn: chat(None, "Say something long. " + prompt(5, turn), max_tokens=400, ignore_eos=True),
                lambda turn: chat(fresh_image(turn), "What is the word?", max_tokens=2), max(3, int(options.seconds / 2)))
        finally:
            for server in servers:
                server.close()
    (options.output / "serve.json").write_text(json.dumps(report, indent=1) + "\n")
    print_report(report)
    return 0


def fresh_image(number):
    """A bitmap that no other number gives."""
    import base64
    side, draw = 64, random.Random(number)
    pixels = bytes(draw.randrange(256) for _ in range(side * side * 3))
    header = b"BM" + (54 + len(pixels)).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    header += (40).to_bytes(4, "little") + side.to_bytes(4, "little") + side.to_bytes(4, "little") + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)
    return "data:image/bmp;base64," + base64.b64encode(header + pixels).decode()


def print_report(report):
    number = lambda value, digits=1: "-" if value is None else f"{value:.{digits}f}"
    if "load" in report:
        print("clients  server         tokens/s   first token p50, p99 (ms)   gap p50, p99 (ms)")
        for row in sorted(report["load"], key=lambda row: (row["clients"], row["server"])):
            print(f"{row['clients']:7}  {row['server']:12} {row['tokens_per_second']:10.0f}   {number(row['first_token_p50_ms']):>11}, {number(row['first_token_p99_ms']):<10}   {number(row['gap_p50_ms'], 2):>8}, {number(row['gap_p99_ms'], 2)}")
        for row in report["long_prompt"]:
            if "ratio" in row:
                print(f"{row['server']}: while a long prompt is read the longest gap is {row['ratio']:.2f} x the median of {row['median_gap_ms']:.2f} ms (of {row['repeats']} repeats)")
    second = report["second_question"]
    print(f"second question about an image: encode and prefill {second['prefill_ratio']:.2f} of the first's; {second['cached_tokens']} of {second['prompt_tokens']} positions found, {second['second_encode_ms']:.2f} ms of encoding")
    if report.get("image"):
        row = report["image"]
        print(f"while an image is encoded the longest gap is {row['ratio']:.2f} x the median of {row['median_gap_ms']:.2f} ms (of {row['repeats']} repeats)")


if __name__ == "__main__":
    sys.exit(main())
