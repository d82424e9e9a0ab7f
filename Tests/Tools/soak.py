#!/usr/bin/env python3
"""Mixed load on one server for some minutes, with bad requests and clients that leave: memory stays flat, nothing is stuck, counters add up; then kill -9 and a
new server under load.

usage: soak.py [--binary FILE] [--minutes M] [--clients N] [--seed S]
"""
import argparse
import base64
import collections
import http.client
import json
import pathlib
import random
import signal
import socket
import sys
import threading
import time

from test_page import ROOT, Server

IMAGES = ROOT / "Models/scenes-ref/images"
QUESTIONS = ["Describe the image.", "What is the word?", "Is there a car?"]
BUDGETS = [1, 0.85, 0.6, 0.25]
PATIENCE_SECONDS = 120
KINDS = ["whole", "stream", "bad", "leave"]
SHARES = [0.5, 0.4, 0.05, 0.05]
BAD = [
    ("/v1/chat/completions", b"{"), ("/v1/chat/completions", b'{"messages": []}'), ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": -1}'),
    ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]}'),
    ("/v1/completions", b'{"prompt": [999999999]}'), ("/nothing", b"{}"), ("/tokenize", b"\xff\xfe"),
]


def body(question, image, budget, **more):
    url = "data:image/png;base64," + base64.b64encode((IMAGES / f"{image:02}.png").read_bytes()).decode()
    content = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
    return json.dumps({"model": "scenes/L", "messages": [{"role": "user", "content": content}], "budget": budget, **more}).encode()


def post(port, path, data):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("POST", path, data, {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


def answer_of(status, text, streams):
    """The answer's text; `None` for what is no whole answer."""
    if status != 200:
        return None
    if not streams:
        return json.loads(text)["choices"][0]["message"]["content"]
    lines = text.decode().splitlines()
    if "data: [DONE]" not in lines:
        return None
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", []))


def leave(port, data, draw):
    """Sends a request and goes away at once, or after the first bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        if draw.random() < 0.5:
            connection.recv(10)


def metrics(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = collections.Counter()
    for line in text.splitlines():
        if not line.startswith("#"):
            found[line.split("{")[0]] += float(line.split()[-1])
    return found


def resident(process):
    """Bytes of the process in memory."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0


class Load:
    """Clients that ask until they are stopped."""

    def __init__(self, server, expected, clients, seed):
        self.port, self.expected, self.lock = server.port, expected, threading.Lock()
        self.counts, self.wrong, self.failed, self.stopped = collections.Counter(), [], [], threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(random.Random(seed * 1000 + index),)) for index in range(clients)]
        for thread in self.threads:
            thread.start()

    def client(self, draw):
        while not self.stopped.is_set():
            kind = draw.choices(KINDS, SHARES)[0]
            case = draw.choice(list(self.expected))
            try:
                if kind == "bad":
                    path, data = draw.choice(BAD)
                    status, _ = post(self.port, path, data)
                    if status == 503:
                        # The server is not ready, or not any more.
                        self.failed.append((path, status))
                        continue
                    if not 400 <= status < 500:
                        self.wrong.append((path, data, status))
                elif kind == "leave":
                    leave(self.port, body(*case, stream=draw.random() < 0.5), draw)
                else:
                    streams = kind == "stream"
                    status, text = post(self.port, "/v1/chat/completions", body(*case, stream=streams))
                    answer = answer_of(status, text, streams)
                    if status == 429:
                        kind = "refused"
                    elif answer is None:
                        self.failed.append((status, text[-200:]))
                        continue
                    elif answer != self.expected[case]:
                        self.wrong.append((case, answer))
                with self.lock:
                    self.counts[kind] += 1
            except (OSError, http.client.HTTPException) as error:
                with self.lock:
                    self.failed.append(repr(error))
                if self.stopped.wait(0.05):
                    return

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS)
        assert not any(thread.is_alive() for thread in self.threads), "a request is stuck"


def known_answers(port):
    expected = {}
    for image in range(6):
        for index, question in enumerate(QUESTIONS):
            case = (question, image, BUDGETS[(image + index) % len(BUDGETS)])
            expected[case] = answer_of(*post(port, "/v1/chat/completions", body(*case)), False)
    assert all(answer is not None for answer in expected.values())
    return expected


def soak(binary, minutes, clients, seed):
    server = Server(binary, "--max-wait", "0")
    try:
        expected = known_answers(server.port)
        before = metrics(server.port)
        load, end, sizes = Load(server, expected, clients, seed), time.monotonic() + 60 * minutes, []
        while time.monotonic() < end:
            time.sleep(min(1, max(end - time.monotonic(), 0)))
            sizes.append(resident(server.process))
        load.stop()
        for _ in range(300):
            after = metrics(server.port)
            if after["vllm:num_requests_running"] + after["vllm:num_requests_waiting"] == 0:
                break
            time.sleep(0.1)
        after = metrics(server.port)
        counts = load.counts
        print(f"{sum(counts.values())} requests: {dict(counts)}; {sizes[-1] / 1e6:.0f} MB")
        assert not load.wrong, load.wrong[:3]
        assert not load.failed, load.failed[:3]
        assert after["vllm:num_requests_running"] == after["vllm:num_requests_waiting"] == 0, "requests are stuck"
        answered = after["vllm:request_success_total"] - before["vllm:request_success_total"]
        whole = counts["whole"] + counts["stream"]
        # Of clients that left some were answered before they did.
        assert whole <= answered <= whole + counts["leave"], (answered, counts)
        errors = after["adallava_errors_total"] - before["adallava_errors_total"]
        assert counts["bad"] + counts["refused"] <= errors <= counts["bad"] + counts["refused"] + counts["leave"], (errors, counts)
        # Caches fill in the first third.
        third = sizes[len(sizes) // 3:]
        first, last = third[:max(len(third) // 4, 1)], third[-max(len(third) // 4, 1):]
        growth = (sum(last) / len(last)) / (sum(first) / len(first)) - 1
        print(f"memory grew by {100 * growth:.1f} % after the first third")
        assert growth <= 0.05, f"memory grew by {100 * growth:.1f} %"
    finally:
        server.close()


def killed(binary, clients, seed):
    server = Server(binary, "--max-wait", "0")
    try:
        expected = known_answers(server.port)
        load = Load(server, expected, clients, seed)
        time.sleep(3)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        start = time.monotonic()
        server = Server(binary, "--max-wait", "0", "--port", str(server.port))
        seconds = time.monotonic() - start
        time.sleep(3)
        load.stop()
        print(f"killed under load: {len(load.failed)} errors, {sum(load.counts.values())} answers, serving again after {seconds:.2f} s")
        assert not load.wrong, load.wrong[:3]
        assert load.failed and load.counts["whole"] > 0
        if seconds > 2:
            print("        serving again took more than 2 s")
    finally:
        server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/adallava")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    failures = 0
    for name, test in [
            (f"{options.minutes:g} minutes of mixed load", lambda: soak(options.binary, options.minutes, options.clients, options.seed)),
            ("kill -9 under load: errors and no wrong answer, then answers again", lambda: killed(options.binary, options.clients, options.seed))]:
        try:
            test()
            print(f"ok      {name}")
        except Exception as error:
            failures += 1
            print(f"FAILED  {name}\n        {type(error).__name__}: {error}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
