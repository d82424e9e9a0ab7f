#!/usr/bin/env python3
"""Shows on held-out pictures what budgets change: answers, what `auto` spends, times, and scores of 200 pictures. Run by `make demo`.

usage: demo-scenes.py ADALLAVA FOLDER
"""
import collections
import json
import os
import pathlib
import subprocess
import sys

PICTURES = 200
# Seeds from 1000000 on are for scoring: no model was trained on these pictures.
SEED = "1000007"


def run(program, *words, shown=True):
    """Runs a command and returns what it prints; `shown` writes the command as a person would type it."""
    if shown:
        print("\n$ adallava " + " ".join(f"'{word}'" if " " in word else word for word in words))
    return subprocess.run([program, *words], check=True, text=True, stdout=subprocess.PIPE, stderr=None if shown else subprocess.DEVNULL).stdout


def ask(program, row, budget):
    answer = run(program, "ask", row["image"], row["question"], "--budget", budget).strip()
    print(f"{answer}      (right: {row['references'][0]})")


def prefer(rows):
    """Rows about printed words and counts first: a person sees at once whether their answers are right."""
    return sorted(rows, key=lambda row: (row["task"] != "text", not row["question"].startswith("How many"), row["id"]))


def evaluate(program, folder):
    """Answers of all pictures by budget and picture."""
    scores = folder / "scores"
    run(program, "data", "scenes", "--out", str(folder / "scenes"), "--count", str(PICTURES), "--seed", SEED, "--split", "demo", shown=False)
    run(program, "eval", "--task", "scenes", "--data", str(folder / "scenes"), "--budgets", "1.0,0.6,0.25,auto", "--output", str(scores))
    answers = collections.defaultdict(dict)
    for line in (scores / "answers.jsonl").read_text().splitlines():
        row = json.loads(line)
        row["image"] = os.path.relpath(row["image"])
        answers[str(row["budget"])][row["id"]] = row
    return answers


def table(answers):
    print(f"\n{'budget':8} {'accuracy':>8} {'mean share run':>15} {'first token, ms':>16}")
    for budget, rows in answers.items():
        rows = rows.values()
        mean = lambda values: sum(values) / len(rows)
        times = sorted(row["measured"]["ttft_ms"] for row in rows)
        print(f"{budget:8} {mean([row['score'] for row in rows]):8.3f} {mean([row['plan']['executed_share'] for row in rows]):15.3f} {times[len(times) // 2]:16.1f}")


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    # Other programs write beside it.
    sys.stdout.reconfigure(line_buffering=True)
    print(f"== {PICTURES} pictures that no model has seen, at four budgets ==")
    answers = evaluate(program, folder)
    full, floor, auto = answers["1"], answers["0.25"], answers["auto"]
    table(answers)

    print("\n== Questions that need more than a quarter of the model ==")
    for row in prefer(row for name, row in full.items() if row["score"] == 1 and floor[name]["score"] == 0)[:2]:
        for budget in ("1.0", "0.25"):
            ask(program, row, budget)

    print("\n== auto: the model itself says how much a question needs ==")
    right = [row for row in auto.values() if row["score"] == 1]
    for row in (min(right, key=lambda row: row["plan"]["units"]), max(prefer(right), key=lambda row: row["plan"]["units"])):
        ask(program, row, "auto")
        print(f"{100 * row['plan']['executed_share']:.0f} % of the model")

    print("\n== The same picture at the least budget and at the full one: what ran, what was predicted, what it took ==")
    row = prefer(full.values())[0]
    for budget in ("0.25", "1.0"):
        print(run(program, "ask", row["image"], row["question"], "--budget", budget, "--explain").rstrip())

    print(f"\nThe pictures are in {folder / 'scenes' / 'images'}. The same in a browser, with charts: adallava serve, then http://127.0.0.1:8080/")


if __name__ == "__main__":
    main()
