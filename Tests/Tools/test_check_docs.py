#!/usr/bin/env python3
"""What scripts/check-docs.py takes for a command block, and which outputs it takes for another one. Run by `make test`."""
import importlib.util
import pathlib
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts/check-docs.py"
specification = importlib.util.spec_from_file_location("check_docs", SCRIPT)
check_docs = importlib.util.module_from_spec(specification)
specification.loader.exec_module(check_docs)


def blocks(text):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "a.md"
        file.write_text(text)
        return list(check_docs.blocks(file))


class Blocks(unittest.TestCase):
    def test_commands_are_found(self):
        self.assertEqual(len(blocks("t\n\n    adallava ask\n\nq\n\n    adallava/   a folder\n")), 1)
        self.assertEqual(len(blocks("```sh\n$ adallava ask\nout\n```\n")), 1)
        self.assertEqual([command for command, _ in blocks("    adallava ask \\\n      --x\n    ADALLAVA_KERNELS=portable adallava b\n")[0].commands()],
                         ["adallava ask --x", "ADALLAVA_KERNELS=portable adallava b"])
        self.assertEqual(blocks("    $ adallava a\n    one\n\n    two\n    $ adallava b\n")[0].commands(), [["adallava a", ["one", "", "two"]], ["adallava b", []]])

    def test_marks_belong_to_the_next_block(self):
        mark = "<!-- commands: slow: it takes hours -->\n\n"
        self.assertEqual(blocks(mark + "    adallava b\n")[0].kinds, {"slow": "it takes hours"})
        self.assertEqual(blocks(mark + "text\n\n    adallava b\n")[0].kinds, {})
        self.assertEqual(blocks("<!-- commands: ends with 66: no such file -->\n\n    adallava b\n")[0].status, 66)

    def test_what_is_no_command_and_no_reason_is_refused(self):
        for text in ["<!-- commands: slow -->\n\n    adallava b\n", "<!-- commands: sometimes: x -->\n", "    adallava b\n    its output\n"]:
            with self.assertRaises(ValueError, msg=text):
                for block in blocks(text):
                    block.commands()


class Outputs(unittest.TestCase):
    def expect(self, agrees, documented, printed, figures_vary=False):
        self.assertEqual(check_docs.agree(documented, printed, figures_vary), agrees, (documented, printed))

    def test_times_and_machines_differ(self):
        self.expect(True, ["x 5 ms, 70 tokens/s", "y"], ["x 77.1 ms, 9 tokens/s", "y"])
        self.expect(True, ["machine  X, 2 cores", "t"], ["machine  Y", "t"])

    def test_everything_else_must_be_equal(self):
        self.expect(False, ["x 5 ms", "y"], ["x 5 ms", "z"])
        self.expect(False, ["x 5"], ["x 6"])
        self.expect(False, [], ["more"])
        self.expect(False, ["gone"], [])

    def test_figures_vary_only_where_that_is_marked(self):
        self.expect(True, ["a  5 ± 1.5   b"], ["a 66 ± 0.25 b"], figures_vary=True)
        self.expect(False, ["5 a"], ["6 b"], figures_vary=True)

    def test_ellipses_stand_for_anything(self):
        self.expect(True, ["a … c"], ["a b c"])
        self.expect(False, ["a … d"], ["a b c"])
        self.expect(True, ["a", "…", "z"], ["a", "b", "c", "z"])
        self.expect(False, ["a", "…", "z"], ["a", "b", "c"])


if __name__ == "__main__":
    unittest.main()
