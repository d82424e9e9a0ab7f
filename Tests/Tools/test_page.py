#!/usr/bin/env python3
"""Uses the page of `adallava serve` in headless Chromium as people do: real clicks, keys and drops, through the DevTools protocol on a pipe.

Skipped with a message where Chromium is not installed.

usage: test_page.py [--binary FILE] [--screenshots DIR]
"""
import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
IMAGE = ROOT / "Models/scenes-ref/images/14.png"
# A machine that is busy with other tests must not fail these.
PATIENCE_SECONDS = 120


class Browser:
    """One page in headless Chromium."""

    def __init__(self, program, profile):
        (from_us, to_browser), (from_browser, to_us) = os.pipe(), os.pipe()
        # The browser reads commands from 3 and writes answers to 4; both are moved out of the way first.
        reading, writing = os.dup2(from_us, 203, inheritable=True), os.dup2(to_us, 204, inheritable=True)
        self.process = subprocess.Popen(
            ["bash", "-c", 'exec "$@" 3<&203 4>&204 203<&- 204>&-', "bash", program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-extensions", "--force-device-scale-factor=1", f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            pass_fds=(reading, writing), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for descriptor in (from_us, to_us, reading, writing):
            os.close(descriptor)
        self.commands, self.answers = os.fdopen(to_browser, "wb", buffering=0), os.fdopen(from_browser, "rb", buffering=0)
        self.number, self.problems, self.results, self.arrived = 0, [], {}, threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.call(domain + ".enable")

    def listen(self):
        pending = b""
        while chunk := self.answers.read(65536):
            *messages, pending = (pending + chunk).split(b"\0")
            for message in map(json.loads, messages):
                with self.arrived:
                    if "id" in message:
                        self.results[message["id"]] = message
                        self.arrived.notify_all()
                    elif message["method"] == "Runtime.exceptionThrown":
                        self.problems.append(message["params"]["exceptionDetails"]["exception"].get("description"))
                    elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                        self.problems.append(message["params"]["entry"]["text"])

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        with self.arrived:
            if not self.arrived.wait_for(lambda: self.number in self.results, PATIENCE_SECONDS):
                raise TimeoutError(method)
            answer = self.results.pop(self.number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, what, expression):
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            if value := self.value(expression):
                return value
            time.sleep(0.05)
        raise TimeoutError(f"waited in vain for {what}: {expression}; the page says: {self.value('document.body.innerText')}")

    def place(self, selector):
        """The middle of an element, which is brought into view and has to be what lies there."""
        found = self.value(f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{ block: "center", behavior: "instant" }});
            const box = element.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
            const top = document.elementFromPoint(x, y);
            return {{ x, y, width: box.width, height: box.height, isFree: element === top || element.contains(top) }};
        }})()""")
        assert found["isFree"], f"{selector} is covered"
        return found

    def click(self, selector, at=None):
        """A click in the middle, or at a share of the width. What moves under the pointer on a busy machine is clicked again, as people do."""
        self.value(f"window.clicked = 0; document.querySelector({json.dumps(selector)}).addEventListener('click', () => window.clicked++, {{ once: true }})")
        for _ in range(5):
            place = self.place(selector)
            x = place["x"] + ((at - 0.5) * place["width"] if at is not None else 0)
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=place["y"], button="left", clickCount=1)
            if self.value("window.clicked"):
                return
        raise TimeoutError(f"five clicks have missed {selector}")

    def key(self, key, code=None, text=None, modifiers=0):
        number = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}.get(key, 0)
        parameters = {"key": key, "code": code or key, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        text = text or {"Enter": "\r", " ": " "}.get(key)
        self.call("Input.dispatchKeyEvent", type="keyDown", **parameters, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **parameters)

    def screenshot(self, file):
        if file:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip={**size, "x": 0, "y": 0, "scale": 1})["data"]
            file.write_bytes(base64.b64decode(data))

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
        except Exception:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Server:
    """`adallava serve` on a free port."""

    def __init__(self, binary, *arguments):
        self.binary = binary
        self.process = subprocess.Popen(
            [binary, "serve", "-m", "scenes/L", "--port", "0", *arguments], stderr=subprocess.PIPE, text=True, cwd=ROOT)
        self.port = None
        for line in self.process.stderr:
            if match := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
            if line.startswith("ready"):
                break
        assert self.port, "the server did not start"
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def close(self):
        self.process.terminate()
        self.process.wait(60)


def asked(binary, *arguments):
    return subprocess.run([binary, "ask", *arguments], capture_output=True, text=True, check=True, cwd=ROOT).stdout.rstrip("\n")


ANSWERED = "document.querySelector('{0}').getAttribute('aria-busy') === 'false' && !document.querySelector('{0} .details').hidden"

# The image moves what is below it, so clicks wait until it has its place.
SHOWN = "!document.querySelector('#preview').hidden && document.querySelector('#preview').complete && document.querySelector('#preview').naturalWidth > 0"


def drop(browser, file):
    place = browser.place("#drop")
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.call("Input.dispatchDragEvent", type=kind, x=place["x"], y=place["y"], data=data)


def test_asks(browser, binary, shot):
    """An image is dropped, a question asked at two budgets: the answers are those of the command line, beside what ran."""
    drop(browser, IMAGE)
    browser.wait("the image", SHOWN)
    browser.click("#compare")
    browser.click("#budget-b input[type=range]", at=0.25)
    part = browser.value("budgetOf(document.querySelector('#budget-b')).value")
    assert 0.2 < part < 0.32, part
    browser.click("#ask")
    for section, budget in (("#result-a", "1"), ("#result-b", str(part))):
        browser.wait("an answer", ANSWERED.format(section))
        answer = browser.value(f"document.querySelector('{section} .answer').textContent")
        assert answer == asked(binary, str(IMAGE), "Describe the image.", "--budget", budget), answer
    assert browser.value("document.querySelectorAll('#result-a .plan i.on').length") == 8 * 12
    assert browser.value("document.querySelectorAll('#result-b .plan i.on').length") == 2 * 12
    assert browser.value("document.querySelectorAll('#result-b .plan .prefix').length") == 2
    assert "2 of 8 layers" in browser.value("document.querySelector('#result-b .share').textContent")
    measured = browser.value("[...document.querySelectorAll('#result-a tbody tr')].map((row) => Number(row.cells[2].textContent))")
    assert len(measured) == 5 and measured[4] > 0, measured
    for section in ("#result-a", "#result-b"):
        browser.wait("where the latency token looked", f"!document.querySelector('{section} .looked').hidden")
        looked = browser.value(f"document.querySelector('{section} canvas').getAttribute('aria-label')")
        assert re.fullmatch(r"Where the latency token looked: \d+ % at the image, \d+ % at itself, the rest at the text", looked), looked
        # Patches of the model's 7 x 7 grid, of different light.
        lights = browser.value(f"""(() => {{
            const canvas = document.querySelector('{section} canvas'), context = canvas.getContext('2d');
            return [...Array(49).keys()].map((cell) => {{
                const data = context.getImageData(cell % 7 * 32, Math.floor(cell / 7) * 32, 32, 32).data;
                return data.reduce((sum, value, index) => index % 4 < 3 ? sum + value : sum, 0);
            }});
        }})()""")
        assert max(lights) > 1.5 * min(lights) > 0, lights
    browser.wait("the strip chart", "document.querySelectorAll('#strip rect').length > 2 && document.querySelector('#now').textContent.includes('mean budget')")
    shot("two-budgets")


def test_file_and_time(browser, binary, shot):
    """An image is chosen as a file, the budget given in milliseconds."""
    browser.click("#clear")
    assert browser.value("document.querySelector('#preview').hidden")
    focus = browser.value("document.activeElement.id")
    assert focus == "file", focus
    node = browser.call("DOM.querySelector", nodeId=browser.call("DOM.getDocument")["root"]["nodeId"], selector="#file")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(IMAGE)])
    browser.wait("the image", SHOWN)
    browser.click("#compare")
    assert browser.value("document.querySelector('#result-b').hidden")
    browser.click("#budget-a input[value=time]")
    browser.click("#budget-a input[type=range]", at=0.98)
    assert browser.value("document.querySelector('#budget-a output').textContent").endswith(" ms")
    browser.click("#ask")
    browser.wait("an answer", ANSWERED.format("#result-a"))
    predicted = browser.value("[...document.querySelectorAll('#result-a tbody tr')].map((row) => Number(row.cells[1].textContent))")
    assert predicted[4] > 0, predicted
    shot("milliseconds")


def test_keyboard(browser, binary, shot):
    """Everything is reached and worked by keys alone."""
    for _ in range(20):
        browser.key("Tab", modifiers=8)
        if browser.value("document.activeElement.id") == "file":
            break
    browser.key("Tab", modifiers=8)
    reached = []
    for _ in range(12):
        browser.key("Tab")
        reached.append(browser.value("document.activeElement.id || document.activeElement.value || document.activeElement.name || document.activeElement.type"))
        if reached[-1] == "ask":
            break
    assert reached[-1] == "ask" and {"file", "question", "compare"} <= set(reached), reached
    browser.value("document.querySelector('#question').focus(); document.querySelector('#question').select()")
    for letter in "What is the word?":
        browser.key(letter, text=letter)
    browser.value("document.querySelector('#budget-a input[value=fraction]').focus()")
    browser.key(" ", code="Space")
    browser.value("document.querySelector('#budget-a input[type=range]').focus()")
    browser.key("Home")
    for _ in range(59):
        browser.key("ArrowRight")
    assert browser.value("document.querySelector('#budget-a output').textContent") == "60 %"
    browser.key("Enter", modifiers=2)
    browser.wait("an answer", ANSWERED.format("#result-a") + " && document.querySelector('#result-a h2').textContent === 'Budget 60 %'")
    answer = browser.value("document.querySelector('#result-a .answer').textContent")
    assert answer == asked(binary, str(IMAGE), "What is the word?", "--budget", "0.6"), answer


def test_phone_and_dark(browser, binary, shot):
    """Nothing is wider than a phone; the dark colours are dark, and both have contrast."""
    contrast = """(() => {
        const parse = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const light = (text) => parse(text).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
        const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const panel = light(getComputedStyle(document.querySelector("form")).backgroundColor);
        const texts = [".answer", ".usage", "figcaption", "#health", "th", "#drop"].map((name) => light(getComputedStyle(document.querySelector(name)).color));
        const button = getComputedStyle(document.querySelector("#ask"));
        return { panel, least: Math.min(...texts.map((text) => ratio(text, panel)), ratio(light(button.color), light(button.backgroundColor))) };
    })()"""
    found = {}
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        found[scheme] = browser.value(contrast)
        assert found[scheme]["least"] >= 4.5, found
        shot(scheme)
    assert found["light"]["panel"] > 0.8 and found["dark"]["panel"] < 0.1, found
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    assert browser.value("document.documentElement.scrollWidth") <= 360
    small = browser.value("[...document.querySelectorAll('button:not([hidden])')].filter((b) => b.offsetHeight && b.offsetHeight < 40).length")
    assert small == 0
    shot("phone")
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_stop_and_errors(browser, binary, shot):
    """An answer under way is stopped; an error is told and does not stay."""
    # What the page shows of a stream that does not end, without depending on how fast the model is.
    browser.value("""(() => {
        const encode = (object) => new TextEncoder().encode(`data: ${JSON.stringify(object)}\\n\\n`);
        window.realFetch = window.fetch;
        window.fetch = (url, options) => url !== "v1/chat/completions" ? realFetch(url, options) : Promise.resolve(new Response(new ReadableStream({
            start(controller) {
                controller.enqueue(encode({ choices: [{ delta: { content: "The image" } }] }));
                options.signal.addEventListener("abort", () => controller.error(new DOMException("stopped", "AbortError")));
            } })));
    })()""")
    browser.click("#ask")
    browser.wait("the first words", "document.querySelector('#result-a .answer').textContent === 'The image'")
    browser.key("Escape")
    browser.wait("the end", "document.querySelector('#result-a .answer').textContent === 'The image (stopped)' && document.querySelector('#stop').disabled")
    browser.value("window.fetch = window.realFetch")
    browser.value("state.image = 'data:image/png;base64,AAAA'")
    browser.click("#ask")
    browser.wait("the error", "!document.querySelector('#result-a .problem').hidden && document.querySelector('#result-a .problem').textContent.includes('expected a JPEG')")
    browser.value("state.image = null")
    browser.click("#ask")
    browser.wait("an answer", ANSWERED.format("#result-a") + " && document.querySelector('#result-a .problem').hidden")


TESTS = [test_asks, test_file_and_time, test_keyboard, test_phone_and_dark, test_stop_and_errors]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/adallava")
    parser.add_argument("--screenshots", type=pathlib.Path)
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        print("test_page: skipped, Chromium is not installed", file=sys.stderr)
        return 0
    if options.screenshots:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    failures = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        server, browser = Server(options.binary), None
        try:
            browser = Browser(program, profile)
            browser.call("Emulation.setDeviceMetricsOverride", width=1100, height=900, deviceScaleFactor=1, mobile=False)
            browser.call("Page.navigate", url=f"http://127.0.0.1:{server.port}/")
            browser.wait("the page", "document.querySelector('#health')?.className === 'ok'")
            for test in TESTS:
                try:
                    test(browser, options.binary, lambda name: browser.screenshot(options.screenshots and options.screenshots / (name + ".png")))
                    print(f"ok      {test.__name__}: {test.__doc__}")
                except Exception as error:
                    failures += 1
                    failed = traceback.extract_tb(error.__traceback__)[1]
                    print(f"FAILED  {test.__name__}: {test.__doc__}\n        {type(error).__name__}: {error} (line {failed.lineno}: {failed.line})")
            # The one refused image is an answer with 400, which the browser notes.
            unexpected = [problem for problem in browser.problems if "400 (Bad Request)" not in (problem or "")]
            if unexpected:
                failures += 1
                print(f"FAILED  errors of the page: {unexpected}")
        finally:
            if browser:
                browser.close()
            server.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
