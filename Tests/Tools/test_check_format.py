#!/usr/bin/env python3
"""scripts/check-format.py accepts layout that it leaves to people, and notices broken rules. Run by `make test`."""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Check(unittest.TestCase):
    def check(self, *lines):
        """The findings in a file with these lines, without its path."""
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            shutil.copy(ROOT / ".swift-format", folder)
            (folder / "Sources").mkdir()
            (folder / "Sources/A.swift").write_text("\n".join(lines) + "\n")
            run = subprocess.run([sys.executable, ROOT / "scripts/check-format.py", folder], capture_output=True, text=True)
            self.assertEqual(run.returncode, 1 if run.stdout else 0, run.stderr)
            return run.stdout.replace("Sources/A.swift:", "")

    def test_ranges_comments_and_long_strings_are_free(self):
        self.assertEqual(self.check("let a = 0..<3   // three", "let b = 0 ..< 3", 'let c = "' + "c" * 300 + '"', 'let d = #"' + '"' * 300 + '"#'), "")

    def test_broken_lines_are_free(self):
        self.assertEqual(self.check("let a = [1, 2].map {", "        $0 + 1 }", "let b = [", "    1,", "    2", "]"), "")

    def test_a_missing_space_is_found(self):
        self.assertIn("1:10: [Spacing]", self.check("let a = 1+2"))

    def test_a_long_line_of_code_is_found(self):
        self.assertIn("[LineLength]", self.check("let a = " + " + ".join(["name"] * 40)))

    def test_a_rule_is_found(self):
        self.assertIn("2:1: [OrderedImports]", self.check("import B", "import A"))
        self.assertIn("[ReplaceForEachWithForLoop]", self.check("func f(_ all: [Int]) {", "    all.forEach { print($0) }", "}"))

    def test_code_that_does_not_parse_is_found(self):
        self.assertNotEqual(self.check("let = = 3"), "")


if __name__ == "__main__":
    unittest.main()
