#!/usr/bin/env python3
"""scripts/kernel-table.py --check accepts the repository, and notices every kind of change. Run by `make test`."""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ["scripts/kernel-table.py", "docs/kernels.md", "Sources/AdaLLaVA/Compute/KernelSet.swift"]


class Check(unittest.TestCase):
    def check(self, file=None, old=None, new=None):
        """The message of --check after a change of one file; empty if it is content."""
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            for path in FILES:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, folder / path)
            shutil.copytree(ROOT / "Sources/AdaKernels", folder / "Sources/AdaKernels")
            if file:
                text = (folder / file).read_text()
                self.assertIn(old, text)
                (folder / file).write_text(text.replace(old, new, 1))
            run = subprocess.run([sys.executable, folder / FILES[0], "--check"], capture_output=True, text=True)
            self.assertEqual(run.returncode != 0, bool(run.stderr), run.stderr)
            return run.stderr

    def test_the_document_is_up_to_date(self):
        self.assertEqual(self.check(), "")

    def test_a_changed_table_makes_the_document_stale(self):
        self.assertIn("not up to date", self.check("Sources/AdaKernels/elementwise_neon.c", ".store_kv = ak_portable_store_kv", ".store_kv = ak_neon_store_kv"))
        self.assertIn("not up to date", self.check("Sources/AdaKernels/matmul_avx2.c", "AK_TILES_6X1(AK_AVX2, f16)", "AK_TILES_4(AK_AVX2, f16)"))
        self.assertIn("not up to date", self.check("Sources/AdaKernels/include/AdaKernels.h", "#define AK_WIDE_TOKENS 24", "#define AK_WIDE_TOKENS 32"))

    def test_a_changed_rule_names_its_file(self):
        message = self.check("Sources/AdaKernels/matmul.c", "case AK_F16: return act == AK_F32", "case AK_F16: return act == AK_I16")
        self.assertIn("Sources/AdaKernels/matmul.c: tile_set has changed", message)
        self.assertIn("KernelSet.swift", self.check("Sources/AdaLLaVA/Compute/KernelSet.swift", "case AK_I8: return AK_I8", "case AK_I8: return AK_F32"))

    def test_comments_and_spaces_are_no_change(self):
        self.assertEqual(self.check("Sources/AdaKernels/matmul.c", "// Converted weights are read from the cache, so only tiles in place prefetch.", "// Only tiles in place prefetch."), "")


if __name__ == "__main__":
    unittest.main()
