"""Compares ways to share a budget of adapter ranks out among layers: validation loss at equal parameters, and the time to decide.

    cargo build --release && python3 benches/ranks.py MODEL TEXT FOLDER [--table] [--only NAME]

MODEL is stories260K (karpathy/tinyllamas) in Hugging Face's layout, TEXT tinyshakespeare's input.txt (karpathy/char-rnn). Budgets
are those of a uniform rank 1 and 4. Every run leaves a report in FOLDER and is not made again, so that the script can be stopped
and started; about an hour and a half on two quiet cores. Learning rates are chosen by the mean validation loss of the first two
seeds, the other seeds follow at the best; ranks are chosen anew for every seed. The last column compares each seed with uniform
ranks of the same seed. `--table` prints what there is.
"""

import subprocess
import sys
from pathlib import Path

from runs import EXECUTABLE, FINE_TUNING, Ranks, Runs, lessons, mean_and_spread, wanted, write_yaml

SEEDS = [1, 2, 3, 4, 5]
# Seeds by which the rate is chosen.
TUNED = SEEDS[:2]
SETTINGS = FINE_TUNING | {"adapter": "lora", "rank_stabilised": True, "eval_every": 100}
# Parameters of a uniform rank 1 and 4, and rates: of 3e-3, 1e-2 and 3e-2 uniform ranks had their best between these.
BUDGETS = {1: 5780, 4: 23120}
RATES = {5780: ["1e-2", "3e-2"], 23120: ["3e-3", "1e-2"]}
GREEDY = ["gradient", "hessian", "gauss-newton", "data", "kronecker"]
ALLOCATED = (
    {"uniform": ["--rule", "uniform"], "as published": ["--rule", "published", "--sensitivity", "hessian"]}
    | {f"closed form ({tail})": ["--rule", f"closed-form:{tail}"] for tail in ["slow", "power", "exponential"]}
    | {f"greedy, {kind}": ["--sensitivity", kind] for kind in GREEDY}
)
ORACLE = "greedy, full fine-tuning's update"
TRIALS = 12
SEARCH = f"search, {TRIALS} trials"
# Those ranks without the luck of the run that they were chosen by: each seed's in a run of the next.
AGAIN = "the search's ranks, another seed"
# What the search leans to, by hand: uniform ranks times these in the five blocks, which costs the same.
LATE = "late blocks, by hand"
LEANING = [0, 0, 1, 2, 2]
# The same ranks with another scale across them, or another start, whose directions are those that gave the ranks.
OTHERS = {
    f"{way}, {other}": (way, other) for way in ["greedy, gradient", ORACLE] for other in ["scale α/r", "constant scale"]
} | {f"{way}, LoRA-GA": (way, "LoRA-GA") for way in ["uniform", "greedy, gradient"]}


def scale(budget):
    """The factor on A B is α/√r: 8 at the uniform rank of the budget."""
    rank = next(rank for rank, parameters in BUDGETS.items() if parameters == budget)
    return {"rank": rank, "alpha": 8 * rank**0.5}


def other(name, budget, ranks):
    """What is not as in the other runs."""
    if name == "LoRA-GA":
        return {"start": "lora-ga"}
    rank = scale(budget)["rank"]
    alphas = {"alpha": 8 * rank} if name == "scale α/r" else {"alpha_pattern": {path: 8 * r for path, r in ranks.items() if r}}
    return {"rank_stabilised": False} | alphas


def full(folder, paths, seed):
    """A full fine-tuning's model, for the update that it made."""
    out = folder / "full" / str(seed)
    if not (out / "model").exists() and "--table" not in sys.argv:
        config = folder / f"full-{seed}.yaml"
        settings = SETTINGS | paths | {"seed": seed, "adapter": "none", "optimizer": "adamw", "lr": 3e-3}
        write_yaml(config, settings)
        subprocess.run(["rm", "-rf", out], check=True)
        command = [EXECUTABLE, "finetune", "--device", "cpu", "--config", config, "--out", out, "--json"]
        subprocess.run(command, check=True, capture_output=True)
    return out / "model"


def settings_of(folder, paths, ranks, name, budget, seed, searched):
    """Settings, beyond the scale, and flags of a run of this way, and the seconds that it took to decide where that is known;
    None if it cannot be had."""
    if name in OTHERS:
        way, difference = OTHERS[name]
        same = settings_of(folder, paths, ranks, way, budget, seed, searched)
        return same and (same[0] | other(difference, budget, same[0]["rank_pattern"]), *same[1:])
    if name == "online":
        return {"growth": {"budget": budget}}, (), 0.0
    if name == LATE:
        settings, *rest = settings_of(folder, paths, ranks, "uniform", budget, seed, searched)
        leaning = {path: rank * LEANING[int(path.split(".")[2])] for path, rank in settings["rank_pattern"].items()}
        return {"rank_pattern": leaning}, *rest
    if name == AGAIN:
        return searched and ({"rank_pattern": searched[seed % len(SEEDS) + 1]}, (), 0.0)
    if name == SEARCH:
        return {}, ("--budget", str(budget), "--min", "0", "--search", str(TRIALS)), None
    flags = ["--sensitivity", f"delta:{full(folder, paths, seed)}"] if name == ORACLE else ALLOCATED[name]
    # Of so few parameters, layers may go without.
    least = [] if name in ["uniform", "as published"] else ["--min", "0"]
    found = ranks.of(name, SETTINGS | paths | scale(budget), [*flags, *least], budget, seed)
    return found and ({"rank_pattern": found["ranks"]}, (), found["seconds"])


class Row:
    """A way at its best rate: reports of all seeds, and the seconds that each took to decide."""

    def __init__(self, runs, folder, paths, ranks, name, budget, searched):
        self.name, self.found = name, {}

        def report(rate, seed):
            chosen = settings_of(folder, paths, ranks, name, budget, seed, searched)
            if not chosen:
                return None
            settings, flags, seconds = chosen
            made = runs.report(f"{name} {budget}", scale(budget) | settings, rate, seed, flags)
            return made and (made, made["seconds"] - made["wall_seconds"] if seconds is None else seconds)

        def loss(rate):
            found = [report(rate, seed) for seed in TUNED]
            return sum(made["val_loss"] for made, _ in found) / len(found) if all(found) else float("inf")

        losses = {rate: loss(rate) for rate in RATES[budget]}
        self.rate = min(losses, key=losses.get)
        if losses[self.rate] < float("inf"):
            found = {seed: report(self.rate, seed) for seed in SEEDS}
            self.found = {seed: made for seed, made in found.items() if made}

    def patterns(self):
        """Ranks of each seed; nothing unless all are there."""
        patterns = {seed: made["config"]["rank_pattern"] for seed, (made, _) in self.found.items()}
        return patterns if len(patterns) == len(SEEDS) else {}

    def losses(self):
        return {seed: made["val_loss"] for seed, (made, _) in self.found.items()}

    def text(self, uniform):
        """`uniform` is the row to compare with, seed by seed."""
        losses, others = self.losses(), uniform.losses()
        if not losses:
            return f"| {self.name} | | | | | |"
        mean = lambda values: sum(values) / len(values)
        parameters = mean([made["trainable_parameters"] for made, _ in self.found.values()])
        seconds = mean([seconds for _, seconds in self.found.values()])
        apart = mean_and_spread([losses[seed] - others[seed] for seed in losses if seed in others])
        return f"| {self.name} | {parameters:,.0f} | {self.rate} | {mean_and_spread(list(losses.values()))} | {apart} | {seconds:.1f} |"


def main():
    model, text, folder = (Path(argument) for argument in sys.argv[1:4])
    paths = {"model": str(model.resolve()), "data": str(lessons(text.read_text(), folder).resolve())}
    runs, ranks = Runs(folder, "finetune", SETTINGS | paths, None, None), Ranks(folder)
    for uniform, budget in BUDGETS.items():
        print(f"**{budget:,} parameters, as uniform rank {uniform}**\n")
        print("| way | parameters | lr | validation loss | less uniform's | seconds to decide |\n|---|---|---|---|---|---|")
        same, searched = Row(runs, folder, paths, ranks, "uniform", budget, {}), {}
        for name in [*ALLOCATED, "online", SEARCH, AGAIN, LATE, ORACLE, *OTHERS]:
            if wanted(name):
                row = Row(runs, folder, paths, ranks, name, budget, searched)
                searched = row.patterns() if name == SEARCH else searched
                print(row.text(same), flush=True)
        print()


main()
