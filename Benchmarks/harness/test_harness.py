"""python3 -m unittest discover -s Benchmarks/harness"""
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from measuring import Failed, Missing, Neighbours, interleave, resident, run, seconds_to_first_byte
from report import Row, at_least, at_most, table, versus, write


class ReportTests(unittest.TestCase):
    # A failure means that a missed requirement is printed as met.
    def test_verdicts(self):
        self.assertIs(versus("1", "x", 10, "peer", 5, 2.0).passed, True)
        self.assertIs(versus("1", "x", 9, "peer", 5, 2.0).passed, False)
        self.assertIs(at_most("3", "x", 0.031, "", 0.03).passed, False)
        self.assertIs(at_least("3", "x", 0.998, "", 0.998).passed, True)

    # A failure means that what was not measured counts as met or missed.
    def test_missing_numbers_have_no_verdict(self):
        for row in (versus("1", "x", None, "peer", 5, 2.0), versus("1", "x", 10, "peer", None, 2.0), at_most("6", "x", None, "s", 1), Row("1", "x", 1, "")):
            self.assertIsNone(row.passed)
            self.assertIn("x", table([row]))

    # A failure means that programs cannot read the results.
    def test_written_as_json(self):
        import json
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "new" / "results.json"
            write(path, [versus("1", "x", 10, "peer", 5, 2.0)], {}, {}, ["y"])
            found = json.loads(path.read_text())
            self.assertEqual(found["results"][0]["ratio"], 2)
            self.assertTrue(found["results"][0]["met"])
            self.assertEqual(list(Path(folder).rglob("*.partial")), [])


class MeasuringTests(unittest.TestCase):
    # A failure means that one peer that breaks ends the whole run, or that its rounds are counted.
    def test_interleaves_and_drops_what_fails(self):
        order = []

        def good(name):
            return lambda: order.append(name) or {"rate": float(len(order))}

        def bad():
            raise Failed("broken")

        found = interleave("test", 3, {"a": good("a"), "b": bad, "c": good("c")})
        self.assertEqual(order, ["a", "c", "c", "a", "c", "a"])
        self.assertEqual(len(found["a"]["rate"]), 3)
        self.assertEqual(found["b"], {})

    # A failure means that neighbours stay behind, or are thought to have taken nothing.
    def test_neighbours_end(self):
        import time
        with Neighbours(1) as neighbours:
            time.sleep(0.3)
            self.assertGreater(neighbours.share(), 0)
            processes = neighbours.processes
        self.assertTrue(all(process.poll() is not None for process in processes))

    # A failure means that a peer that is not installed looks like one that is broken.
    def test_missing_programs(self):
        for start in (lambda: run(["/nowhere/program"]), lambda: resident(["/nowhere/program"]).__enter__()):
            self.assertRaises(Missing, start)
        self.assertRaises(Failed, run, ["false"])

    # A failure means that resident programs are measured without having answered, or hang when they end.
    def test_resident(self):
        script = "import sys\nprint('{\"ready\": 1}', flush=True)\nfor _ in sys.stdin: print('noise'); print('{\"ms\": 2}', flush=True)"
        with resident([sys.executable, "-c", script]) as program:
            self.assertEqual(program.greeting, {"ready": 1})
            self.assertEqual(program.measure(), {"ms": 2})
        self.assertRaises(Failed, lambda: resident([sys.executable, "-c", "raise SystemExit(3)"]).__enter__())

    # A failure means that a program that fails counts as one that started fast.
    def test_first_byte(self):
        self.assertGreater(seconds_to_first_byte([sys.executable, "-c", "print(1)"]), 0)
        self.assertRaises(Failed, seconds_to_first_byte, [sys.executable, "-c", "raise SystemExit(3)"])


if __name__ == "__main__":
    unittest.main()
