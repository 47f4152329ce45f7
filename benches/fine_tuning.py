"""Compares ways to fine-tune a trained model at matched steps: validation loss, steps to LoRA's, bytes.

    cargo build --release && python3 benches/fine_tuning.py MODEL TEXT FOLDER [--table] [--only NAME]

MODEL is stories260K (karpathy/tinyllamas) in Hugging Face's layout, TEXT tinyshakespeare's input.txt (karpathy/char-rnn).
Every run leaves a report in FOLDER and is not made again, so that the script can be stopped and started; about an hour on
two cores. Learning rates are chosen by the validation loss of seed 1; the other seeds follow at the best. `--table` prints
what there is.
"""

import sys
from pathlib import Path

from runs import FINE_TUNING, Runs, lessons, mean_and_spread, wanted

RATES = ["1e-4", "3e-4", "1e-3", "3e-3"]
HIGHER = "1e-2"
SEEDS = [1, 2, 3, 4, 5]
RANK = 8
# Adapters on every linear layer, their factor 8 unless said otherwise.
SETTINGS = FINE_TUNING | {"rank": RANK, "alpha": 8 * RANK**0.5, "rank_stabilised": True, "eval_every": 20}
LORA = "LoRA"
METHODS = {
    LORA: {"adapter": "lora"},
    "LoRA+ ratio 1": {"adapter": "lora+", "lora_plus_ratio": 1.0},
    "LoRA+ ratio 4": {"adapter": "lora+", "lora_plus_ratio": 4.0},
    "LoRA+ ratio 16": {"adapter": "lora+", "lora_plus_ratio": 16.0},
    "LoRA, factor 1": {"adapter": "lora", "alpha": RANK**0.5},
    "LoRA+ ratio 4, factor 1": {"adapter": "lora+", "lora_plus_ratio": 4.0, "alpha": RANK**0.5},
    "LoRA+ ratio 16, factor 1": {"adapter": "lora+", "lora_plus_ratio": 16.0, "alpha": RANK**0.5},
    "DoRA": {"adapter": "dora"},
    "full, AdamW": {"adapter": "none", "optimizer": "adamw"},
    "full, Flora": {"adapter": "none", "optimizer": "flora", "momentum": 0.9, "resample": 25},
}


def steps_to(report, loss):
    """The first validation that is no worse; None if there is none."""
    reached = [int(step) for step, found in report["validations"].items() if found <= loss]
    return min(reached) if reached else None


def row(runs, name, settings):
    rate = runs.best_rate(name, settings, RATES, SEEDS[0])
    reports = [runs.report(name, settings, rate, seed) for seed in SEEDS] if rate else []
    plain = runs.best_rate(LORA, METHODS[LORA], RATES, SEEDS[0])
    rivals = [runs.report(LORA, METHODS[LORA], plain, seed) for seed in SEEDS] if plain else []
    pairs = [(report, rival) for report, rival in zip(reports, rivals) if report and rival]
    if not pairs:
        return f"| {name} | | | | | | |"
    losses = mean_and_spread([report["val_loss"] for report, _ in pairs])
    reached = [steps_to(report, rival["val_loss"]) for report, rival in pairs]
    steps = ", ".join("never" if step is None else str(step) for step in reached)
    first = pairs[0][0]
    peak = first["peak_bytes"]
    return (
        f"| {name} | {first['trainable_parameters']:,} | {rate} | {losses} | {steps} | {peak['optimizer']:,} "
        f"| {peak['total']:,} |"
    )


def main():
    model, text, folder = (Path(argument) for argument in sys.argv[1:4])
    paths = {"model": str(model.resolve()), "data": str(lessons(text.read_text(), folder).resolve())}
    runs = Runs(folder, "finetune", SETTINGS | paths, RATES, HIGHER)
    lines = ["| method | trainable | lr | validation loss | steps to LoRA's last | optimizer bytes | peak bytes |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, settings in METHODS.items():
        if wanted(name):
            lines.append(row(runs, name, settings))
            print(lines[-1], file=sys.stderr)
    print("\n".join(lines))


main()
