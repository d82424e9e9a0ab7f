#!/usr/bin/env python3
"""Two servers behind Shepherd Model Gateway (PyPI `smg`) on loopback, with Deploy/smg.args: answers, budgets, affinity, workers that die, leave, are slow or
full; then answers behind vllm-router.

Skipped with a message where the packages are not installed; `make test-gateway` installs them in a folder of their own.

usage: test_gateway.py [--binary FILE] [--smg FILE] [--router FILE]
"""
import argparse
import base64
import concurrent.futures
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from test_page import ROOT, Server

IMAGES = ROOT / "Models/scenes-ref/images"
PATIENCE_SECONDS = 120


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def image(number):
    return (IMAGES / f"{number:02}.png").read_bytes()


def body(question, number=None, **more):
    content = [{"type": "text", "text": question}]
    if number is not None:
        content.append({"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(image(number)).decode()}})
    return {"model": "scenes/L", "messages": [{"role": "user", "content": content}], **more}


def ask(port, request, key=None):
    """The status and the answer; events are put together, with whether their end came."""
    headers = {"content-type": "application/json", **({"X-SMG-Routing-Key": key} if key else {})}
    call = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(request).encode(), headers)
    try:
        with urllib.request.urlopen(call, timeout=PATIENCE_SECONDS) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), False
    if not request.get("stream"):
        return status, json.loads(text), True
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    joined = "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", []))
    return status, {"text": joined, "events": events}, "data: [DONE]" in text


def text_of(answer):
    return answer["choices"][0]["message"]["content"]


class Router:
    """vllm-router: the second gateway, with the same tests of answers."""

    def __init__(self, program, workers, folder):
        self.port, self.log = free_port(), pathlib.Path(folder, "router.log")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [program, "--host", "127.0.0.1", "--port", str(self.port), "--prometheus-port", str(free_port()), "--policy", "round_robin",
                 "--worker-urls", *(f"http://127.0.0.1:{worker.port}" for worker in workers)], stdout=log, stderr=log, cwd=folder)
        wait("the router", lambda: ask(self.port, body("Hi", max_tokens=1))[0] == 200, self.log)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Gateway:
    def __init__(self, smg, workers, folder):
        self.port, self.log = free_port(), pathlib.Path(folder, "smg.log")
        arguments = [word for line in (ROOT / "Deploy/smg.args").read_text().splitlines() if not line.startswith("#") for word in line.split()]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [smg, "launch", *arguments, "--host", "127.0.0.1", "--port", str(self.port), "--prometheus-port", str(free_port()),
                 "--worker-urls", *(f"http://127.0.0.1:{worker.port}" for worker in workers)], stdout=log, stderr=log, cwd=folder)
        wait("the gateway", lambda: ask(self.port, body("Hi", max_tokens=1))[0] == 200, self.log)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def wait(what, condition, log=None):
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            if condition():
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.2)
    raise TimeoutError(f"waited in vain for {what}" + (f"; its log ends with {log.read_text()[-2000:]}" if log else ""))


def metric(port, name):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))


def test_answers(gateway, workers):
    """40 requests, streamed or not, equal a worker's own answers; budgets go in and what ran comes out"""
    cases = [(number % 15, [1, 0.85, 0.6, 0.25][number % 4], number % 2 == 0) for number in range(40)]
    expected = {case[:2]: text_of(ask(workers[0].port, body("Describe the image.", case[0], budget=case[1]))[1]) for case in cases}

    def check(case):
        status, answer, whole = ask(gateway.port, body("Describe the image.", case[0], budget=case[1], stream=case[2]))
        assert status == 200 and whole, (status, answer)
        assert (answer["text"] if case[2] else text_of(answer)) == expected[case[:2]]
        ran = next(event["adaptive"] for event in answer["events"] if "adaptive" in event) if case[2] else answer["adaptive"]
        assert sum(heads > 0 for heads in ran["plan"]["attention_heads_per_layer"]) == {1: 8, 0.85: 6, 0.6: 4, 0.25: 2}[case[1]], (case, ran)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(check, cases))


def test_affinity(gateway, workers):
    """the same image goes to the worker that has encoded it: nine of ten find its positions computed"""
    key = hashlib.sha256(image(15)).hexdigest()[:16]
    before = [metric(worker.port, "vllm:generation_tokens_total") for worker in workers]
    found = [ask(gateway.port, body(f"What is number {index}?", 15, max_tokens=2), key)[1]["usage"]["prompt_tokens_details"]["cached_tokens"] for index in range(10)]
    assert sum(cached >= 49 for cached in found) >= 9, found
    after = [metric(worker.port, "vllm:generation_tokens_total") for worker in workers]
    assert sum(a > b for a, b in zip(after, before)) == 1, (before, after)


def test_deadline(gateway, workers):
    """a deadline that has passed is refused and not computed; one that has not is kept or told"""
    before = sum(metric(worker.port, "vllm:generation_tokens_total") for worker in workers)
    status, text, _ = ask(gateway.port, body("Describe the image.", 3, deadline_unix_ms=1_700_000_000_000))
    assert status == 400 and "deadline" in text, (status, text)
    assert sum(metric(worker.port, "vllm:generation_tokens_total") for worker in workers) == before
    status, answer, _ = ask(gateway.port, body("Describe the image.", 3, deadline_unix_ms=int(time.time() * 1000) + 60_000))
    assert status == 200 and answer["adaptive"]["budget"].endswith("ms"), answer


def under_load(gateway, workers, strike):
    """Asks all the time while `strike` happens. Returns answers that were whole, and what failed."""
    questions = ["Describe the image.", "What is the word?"]
    expected = {(number, question): text_of(ask(workers[1].port, body(question, number))[1]) for number in range(6) for question in questions}
    end, wrong, whole, failed = time.monotonic() + 8, [], [], []

    def load(index):
        turn = index
        while time.monotonic() < end:
            case = (turn % 6, questions[turn % 2])
            turn += 1
            try:
                status, answer, is_whole = ask(gateway.port, body(case[1], case[0], stream=turn % 3 == 0))
            except (OSError, http.client.HTTPException) as error:
                failed.append(repr(error))
                continue
            if status != 200 or not is_whole:
                failed.append((status, str(answer)[:200]))
            elif (answer["text"] if turn % 3 == 0 else text_of(answer)) != expected[case]:
                wrong.append((case, answer))
            else:
                whole.append(case)

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(load, index) for index in range(4)]
        time.sleep(2)
        strike()
        for job in jobs:
            job.result()
    assert not wrong, wrong[:3]
    return len(whole), failed


def test_kill(gateway, workers):
    """kill -9 of a worker under load: nothing wrong or cut is told as complete, and the other one answers"""
    whole, failed = under_load(gateway, workers, lambda: workers[0].process.send_signal(signal.SIGKILL))
    workers[0].process.wait()
    print(f"        {whole} whole answers, {len(failed)} told as failed")
    for index in range(5):
        wait("the worker that is left", lambda: ask(gateway.port, body("Hi", index, max_tokens=1))[0] == 200)
    workers[0] = Server(workers[0].binary, "--port", str(workers[0].port))
    wait("the worker that came back", lambda: urllib.request.urlopen(f"http://127.0.0.1:{workers[0].port}/health").status == 200)
    time.sleep(5)


def test_leave(gateway, workers):
    """SIGTERM of a worker under load: no answer is cut"""
    whole, failed = under_load(gateway, workers, lambda: workers[0].process.send_signal(signal.SIGTERM))
    workers[0].process.wait(60)
    print(f"        {whole} whole answers, {len(failed)} told as failed: {failed[:2]}")
    assert whole > 0 and not failed, failed[:3]


def test_long_prefill(gateway, workers):
    """a request that takes longer than the gateway's own 3 s is not called wedged: it is answered, and so are others"""
    # Stopped now and then for most of a second, a worker takes seconds over an answer and still makes progress.
    stopped, done = [0.0], threading.Event()

    def slow_down():
        while not done.is_set():
            for worker in workers:
                worker.process.send_signal(signal.SIGSTOP)
            done.wait(0.9)
            for worker in workers:
                worker.process.send_signal(signal.SIGCONT)
            stopped[0] += 0.9
            done.wait(0.005)

    expected = text_of(ask(workers[0].port, body("Describe the image.", 7))[1])
    thread = threading.Thread(target=slow_down)
    thread.start()
    try:
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: ask(gateway.port, body("Describe the image.", 7)), range(4)))
        seconds = time.monotonic() - start
    finally:
        done.set()
        thread.join()
    print(f"        answers took {seconds:.1f} s, stopped for {stopped[0]:.1f} s")
    assert all(status == 200 and text_of(answer) == expected for status, answer, _ in answers), answers
    assert ask(gateway.port, body("Hi", 1, max_tokens=1))[0] == 200


def test_full(smg, folder, binary):
    """both workers full: 429 in under 50 ms"""
    workers = [Server(binary, "--max-concurrent", "1", "--max-waiting", "0") for _ in range(2)]
    gateway = None
    try:
        gateway = Gateway(smg, workers, folder)
        # Each worker's one place is taken by one long answer after another.
        free = threading.Event()

        def hold(worker):
            while not free.is_set():
                ask(worker.port, body("Say all that you know.", max_tokens=400, ignore_eos=True))

        times, refused = [], 0
        threads = [threading.Thread(target=hold, args=(worker,)) for worker in workers for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(200):
                start = time.monotonic()
                status, _, _ = ask(gateway.port, body("Hi", 1, max_tokens=1))
                if status == 429:
                    refused += 1
                    times.append(time.monotonic() - start)
                if refused >= 20:
                    break
        finally:
            free.set()
            for thread in threads:
                thread.join()
        print(f"        {refused} refused, median {1000 * sorted(times)[len(times) // 2] if times else 0:.1f} ms")
        assert refused >= 5, "nobody was refused"
        assert sorted(times)[len(times) // 2] < 0.05, times
    finally:
        if gateway:
            gateway.close()
        for worker in workers:
            worker.close()


TESTS = [test_answers, test_affinity, test_deadline, test_long_prefill, test_kill, test_leave]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/adallava")
    parser.add_argument("--smg", default=ROOT / "build/clients/bin/smg")
    parser.add_argument("--router", default=ROOT / "build/clients/bin/vllm-router")
    options = parser.parse_args()
    if not shutil.which(str(options.smg)):
        print(f"test_gateway: skipped, {options.smg} is not there", file=sys.stderr)
        return 0
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        workers = [Server(options.binary) for _ in range(2)]
        gateway = None
        try:
            def run(test, *arguments, name=""):
                nonlocal failures
                try:
                    test(*arguments)
                    print(f"ok      {name}{test.__doc__}")
                except Exception as error:
                    failures += 1
                    print(f"FAILED  {name}{test.__doc__}\n        {type(error).__name__}: {error}")

            gateway = Gateway(options.smg, workers, folder)
            for test in TESTS:
                run(test, gateway, workers)
            gateway.close()
            gateway = None
            if shutil.which(str(options.router)):
                # The last test let one leave.
                workers[0] = Server(options.binary)
                gateway = Router(options.router, workers, folder)
                for test in [test_answers, test_deadline]:
                    run(test, gateway, workers, name="vllm-router: ")
            else:
                print("skipped vllm-router: it is not installed")
            run(test_full, options.smg, folder, options.binary)
        finally:
            if gateway:
                gateway.close()
            for worker in workers:
                worker.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
