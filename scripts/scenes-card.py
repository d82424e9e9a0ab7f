#!/usr/bin/env python3
"""Puts measured scores into a model card, between its lines `<!-- scores -->` and `<!-- end of scores -->`.

    scenes-card.py CARD.md --questions HELD-OUT.json --answers TRAIN-separate.json --blank DIR \
        --variant L SCORES-DIR STUDY.json --variant H SCORES-DIR STUDY.json

SCORES-DIR and --blank are output folders of `adallava eval`, STUDY.json is what `adallava explain --json` printed. The baseline of the most
frequent answer is counted here: for each question the answer that the training set gives most often to the same question, or, where it was
never asked there, to questions with the same first two words.
"""
import argparse, collections, json, os, re, sys

TASKS = ["exact_match", "vqa", "pope", "text", "choice", "caption"]


def pairs(path):
    with open(path) as file:
        for record in json.load(file):
            turns = record["conversations"]
            for question, answer in zip(turns[::2], turns[1::2]): yield record["task"], question["value"].replace("<image>\n", ""), answer["value"]


def most_frequent(questions, answers):
    """Exact match by task of answering without looking."""
    by_question, by_start = collections.defaultdict(collections.Counter), collections.defaultdict(collections.Counter)
    start = lambda question: " ".join(question.split()[:2])
    for _, question, answer in pairs(answers):
        by_question[question][answer] += 1
        by_start[start(question)][answer] += 1
    right = collections.defaultdict(list)
    for task, question, answer in pairs(questions):
        known = by_question.get(question) or by_start.get(start(question)) or collections.Counter([""])
        correct = max(known, key=known.get) == answer
        for name in ("exact_match", task): right[name].append(correct)
    return {name: sum(values) / len(values) for name, values in right.items()}


def row(cells): return "| " + " | ".join(cells) + " |"


def table(names, rows):
    return [row(names), row(["---"] + ["---:"] * (len(names) - 1))] + [row(cells) for cells in rows]


def results(folder):
    with open(os.path.join(folder, "result.json")) as file: return json.load(file)["results"]


def scores(name, values): return [name] + [f"{values[task]:.3f}" if task in values else "" for task in TASKS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card")
    parser.add_argument("--questions", required=True)
    parser.add_argument("--answers", required=True)
    parser.add_argument("--blank", required=True)
    parser.add_argument("--variant", nargs=3, action="append", required=True, metavar=("NAME", "SCORES", "STUDY"))
    options = parser.parse_args()

    lines, studies, studied = [], [], set()
    heads = ["", "all"] + TASKS[1:]
    rows = []
    for name, folder, study in options.variant:
        for result in results(folder): rows.append(scores(f"{name}, {result['budget']:g}", result["scores"]))
        with open(study) as file:
            for result in json.load(file)["budgets"]:
                if "accuracy" not in result: continue
                accuracy = result["accuracy"]
                studied.add(result["samples"])
                gain = result["gain_of_own"]["random"]
                studies.append([f"{name}, {result['budget']:g}", str(result["distinct_plans"])] +
                               [f"{100 * accuracy[plan]:.1f}" for plan in ("own", "swapped", "random", "fixed")] +
                               ["{:+.1f} to {:+.1f}".format(100 * gain["low"], 100 * gain["high"])])
    blank = results(options.blank)[0]
    rows.append(scores(f"grey pictures, {blank['budget']:g}", blank["scores"]))
    rows.append(scores("most frequent answer", most_frequent(options.questions, options.answers)))
    samples = sum(1 for _ in pairs(options.questions))
    lines += [f"Exact match of generated answers on {samples} held-out scenes, by variant and budget:", ""] + table(heads, rows)
    which = " and ".join(str(count) for count in sorted(studied))
    lines += ["", f"The same in percent on the first {which} of them under other plans of the same size (docs/explain.md says how they are made):", ""]
    lines += table(["", "different plans", "own", "another picture's", "random", "one for all", "own over random, 95 %"], studies)

    with open(options.card) as file: text = file.read()
    marked = re.compile(r"(<!-- scores -->\n).*?(<!-- end of scores -->)", re.S)
    if not marked.search(text): sys.exit(f"{options.card}: expected the lines <!-- scores --> and <!-- end of scores -->")
    with open(options.card, "w") as file: file.write(marked.sub(lambda m: m.group(1) + "\n".join(lines) + "\n" + m.group(2), text))


if __name__ == "__main__": main()
