"""Ranks under a budget for a small encoder that is trained here: pretraining on hidden tokens, then two tasks of classification.

    cargo build --release && python3 benches/encoder_ranks.py WIKITEXT VOCABULARY GLUE FOLDER [--table]

WIKITEXT is train.txt of WikiText-2, VOCABULARY the tokenizer folder of bert-base-uncased, GLUE a folder with SST-2 and QNLI, each
with its published tsv files. Of each task 8,000 rows are learnt, drawn by a seed, and its dev.tsv is held back. Every run leaves
a report in FOLDER and is not made again. Learning rates are chosen by the loss of seed 1. `--table` prints what there is.
"""

import random
import subprocess
import sys
from pathlib import Path

from runs import EXECUTABLE, Ranks, Runs, mean_and_spread

PRETRAINING = (
    "--arch bert --layers 4 --heads 4 --width 128 --context 64 --batch 16 --steps 16000 --mlm-probability 0.4 "
    "--optimizer adamw --lr 15e-4 --eval-every 4000"
)
ROWS = 8000
TASKS = {"SST-2": "sentence,label", "QNLI": "question,sentence,label"}
RATES = ["2e-4", "5e-4"]
SEEDS = [1, 2, 3]
# That of a uniform rank 2 on four blocks.
BUDGET = 18432
SETTINGS = {
    "task": "classify",
    "steps": 2000,
    "batch": 16,
    "context": 64,
    "warmup": 200,
    "lr_floor": 0.05,
    "weight_decay": 0.0,
    "adapter": "lora",
    "rank": 2,
    "alpha": 8 * 2**0.5,
    "rank_stabilised": True,
    "report_every": 50,
    "eval_every": 2000,
    "save_every": 2000,
}
RULES = {
    "uniform": (BUDGET, ["--rule", "uniform"]),
    "uniform, twice the budget": (2 * BUDGET, ["--rule", "uniform"]),
    "as published": (BUDGET, ["--rule", "published", "--sensitivity", "hessian"]),
    "closed form (power)": (BUDGET, ["--rule", "closed-form:power", "--min", "0"]),
    "greedy, gradient": (BUDGET, ["--min", "0"]),
    # No ranks: how far all parameters come.
    "full fine-tuning": (None, None),
}


def pretrained(wikitext, vocabulary, folder):
    out = folder / "encoder"
    if not (out / "model").exists() and "--table" not in sys.argv:
        subprocess.run(["rm", "-rf", out], check=True)
        command = [EXECUTABLE, "train", *PRETRAINING.split(), "--tokenizer", vocabulary, "--data", wikitext, "--out", out]
        subprocess.run([*command, "--device", "cpu", "--json"], check=True)
    return out / "model"


def task(source, folder, name):
    """A folder with rows to learn from, and dev.tsv."""
    out = folder / name
    out.mkdir(parents=True, exist_ok=True)
    train = next(iter(sorted((source / name).glob("train*.tsv"))))
    header, *rows = train.read_text().splitlines()
    (out / "train.tsv").write_text("\n".join([header, *random.Random(1).sample(rows, ROWS)]) + "\n")
    (out / "dev.tsv").write_text((source / name / "dev.tsv").read_text())
    return out


def row(runs, ranks, settings, name, budget, flags):
    def report(rate, seed):
        if flags is None:
            made = runs.report(name, {"adapter": "none", "optimizer": "adamw"}, rate, seed)
            return made and (made, made["trainable_parameters"])
        found = ranks.of(name, settings, flags, budget, seed)
        if not found:
            return None
        made = runs.report(name, {"rank_pattern": found["ranks"]}, rate, seed)
        return made and (made, found["spent"])

    made = {rate: report(rate, SEEDS[0]) for rate in RATES}
    if not all(made.values()):
        return f"| {name} | | | | |"
    rate = min(RATES, key=lambda rate: made[rate][0]["val_loss"])
    found = list(filter(None, (report(rate, seed) for seed in SEEDS)))
    spent = sum(spent for _, spent in found) / len(found)
    accuracy = mean_and_spread([100 * made["val_accuracy"] for made, _ in found])
    return f"| {name} | {spent:,.0f} | {rate} | {mean_and_spread([made['val_loss'] for made, _ in found])} | {accuracy} |"


def main():
    wikitext, vocabulary, glue, folder = (Path(argument).resolve() for argument in sys.argv[1:5])
    folder.mkdir(parents=True, exist_ok=True)
    model = pretrained(wikitext, vocabulary, folder)
    for name, columns in TASKS.items():
        data = task(glue, folder / "data", name)
        settings = SETTINGS | {"model": str(model), "data": str(data), "columns": columns.split(",")}
        runs, ranks = Runs(folder / f"of {name}", "finetune", settings, RATES, None), Ranks(folder / f"of {name}")
        print(f"**{name}**\n\n| way | parameters | lr | validation loss | accuracy, % |\n|---|---|---|---|---|")
        for rule, (budget, flags) in RULES.items():
            print(row(runs, ranks, settings, rule, budget, flags), flush=True)
        print()


main()
