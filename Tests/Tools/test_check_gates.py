#!/usr/bin/env python3
"""scripts/check-interface.py and check-instructions.py notice changes, without a build. Run by `make test`."""
import importlib.util
import pathlib
import sys
import unittest

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def symbol(kind, path, declaration):
    return {
        "kind": {"identifier": kind}, "identifier": {"precise": "s:" + path}, "names": {"title": path.split(".")[-1]},
        "pathComponents": path.split("."), "declarationFragments": [{"spelling": declaration}],
    }


class Interface(unittest.TestCase):
    budget = symbol("swift.enum", "Budget", "enum Budget")

    def lines(self, *symbols, protocols=()):
        relations = [{"kind": "conformsTo", "source": "s:Budget", "target": "s:" + name, "targetFallback": "Swift." + name} for name in protocols]
        return script("check-interface").lines([("AdaLLaVA", {"symbols": list(symbols), "relationships": relations})])

    def test_a_declaration_is_a_line_with_its_path(self):
        case = symbol("swift.enum.case", "Budget.fraction(_:)", "case fraction(Double)")
        self.assertEqual(self.lines(case, self.budget), ["AdaLLaVA.Budget  enum Budget", "AdaLLaVA.Budget.fraction(_:)  case fraction(Double)"])

    def test_conformances_are_part_of_a_type(self):
        self.assertEqual(self.lines(self.budget, protocols=["Sendable", "Hashable", "Copyable"]), ["AdaLLaVA.Budget  enum Budget: Hashable, Sendable"])

    def test_declarations_without_documentation_are_named(self):
        documented = dict(symbol("swift.enum.case", "Budget.full", "case full"), docComment={"lines": [{"text": "All."}]})
        witness = symbol("swift.property", "Budget.description", "var description: String { get }")
        graphs = [("AdaLLaVA", {"symbols": [self.budget, documented, witness], "relationships": []})]
        self.assertEqual(script("check-interface").undocumented(graphs), ["AdaLLaVA.Budget"])

    def test_a_changed_type_of_a_parameter_changes_the_line(self):
        one, other = (symbol("swift.enum.case", "Budget.fraction(_:)", f"case fraction({kind})") for kind in ("Double", "Float"))
        self.assertNotEqual(self.lines(one), self.lines(other))


class Instructions(unittest.TestCase):
    def differences(self, kept, found):
        return script("check-instructions").differences(kept, found)

    def test_three_percent_are_tolerated(self):
        self.assertEqual(self.differences({"decode": 1000, "plan": 1000}, {"decode": 1029, "plan": 971}), [])

    def test_more_is_named_with_both_counts(self):
        self.assertEqual(self.differences({"decode": 1000}, {"decode": 1031}), ["decode: 1,031 instructions, expected 1,000 (+3.1 %)"])

    def test_fewer_is_named_too(self):
        self.assertEqual(self.differences({"decode": 1000}, {"decode": 960}), ["decode: 960 instructions, expected 1,000 (-4.0 %)"])

    def test_missing_paths_are_named(self):
        self.assertEqual(self.differences({"decode": 1}, {"plan": 1}), ["decode: not measured", "plan: no kept value"])


if __name__ == "__main__":
    unittest.main()
