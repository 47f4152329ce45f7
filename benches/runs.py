"""Runs of the `eckart` command that leave a report each and are not made again, and what learning rate is best for a method."""

import json
import subprocess
import sys
import time
from pathlib import Path

EXECUTABLE = Path(__file__).resolve().parent.parent / "target/release/eckart"

# Fine-tuning of stories260K on windows of `<s>` and 128 tokens; nothing decays.
FINE_TUNING = {
    "steps": 300,
    "batch": 8,
    "context": 129,
    "warmup": 30,
    "lr_floor": 0.05,
    "weight_decay": 0.0,
    "beta2": 0.999,
    "report_every": 10,
    "save_every": 300,
}


class Runs:
    """Runs of one command in one folder; `settings` hold for all of them. With `--table` none is made."""

    def __init__(self, folder, command, settings, rates, higher):
        self.folder, self.command, self.settings = Path(folder), command, settings
        # `higher` is tried where the highest of `rates` is the best.
        self.rates, self.higher = rates, higher
        (self.folder / "runs").mkdir(parents=True, exist_ok=True)

    def report(self, name, settings, rate, seed, flags=()):
        """The run's report, its lines and the seconds of the whole command, made if they are not there yet; None if they
        cannot be made."""
        slug = "".join(c if c.isalnum() else "-" for c in name.lower())
        path = self.folder / f"{slug}-{rate}-{seed}.json"
        if not path.exists():
            if "--table" in sys.argv or not self.make(name, path, settings, rate, seed, flags):
                return None
        return json.loads(path.read_text())

    def make(self, name, path, settings, rate, seed, flags):
        config = path.with_suffix(".yaml")
        everything = self.settings | settings | {"lr": float(rate), "seed": seed}
        write_yaml(config, everything)
        run = self.folder / "runs" / path.stem
        subprocess.run(["rm", "-rf", run], check=True)
        command = [EXECUTABLE, self.command, "--device", "cpu", "--config", config, "--out", run, "--json", *flags]
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"{name} at {rate}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return False
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        validations = {line["step"]: line["val_loss"] for line in lines if "val_loss" in line}
        more = {"validations": validations, "seconds": time.monotonic() - start}
        path.write_text(json.dumps(json.loads(done.stdout) | more, indent=1) + "\n")
        subprocess.run(["rm", "-rf", run], check=True)
        return True

    def best_rate(self, name, settings, rates, seed):
        """The learning rate with the lowest validation loss of one seed; None if no run could be made."""

        def loss(rate):
            found = self.report(name, settings, rate, seed)
            return found and found["val_loss"] or float("inf")

        losses = {rate: loss(rate) for rate in rates}
        if rates == self.rates and min(losses, key=losses.get) == rates[-1]:
            losses[self.higher] = loss(self.higher)
        best = min(losses, key=losses.get)
        return best if losses[best] < float("inf") else None


class Ranks:
    """Ranks by `eckart allocate`, one file for each way, budget and seed."""

    def __init__(self, folder):
        self.folder = Path(folder) / "ranks"
        self.folder.mkdir(parents=True, exist_ok=True)

    def of(self, name, settings, flags, budget, seed):
        """What the command says, and the seconds that it took; None if it says nothing."""
        slug = "".join(c if c.isalnum() else "-" for c in name.lower())
        path = self.folder / f"{slug}-{budget}-{seed}.json"
        if not path.exists():
            if "--table" in sys.argv:
                return None
            config = path.with_suffix(".yaml")
            write_yaml(config, settings | {"seed": seed})
            command = [EXECUTABLE, "allocate", "--device", "cpu", "--config", config, "--budget", str(budget), *flags]
            start = time.monotonic()
            done = subprocess.run([*command, "--json"], capture_output=True, text=True)
            if done.returncode != 0:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                return None
            found = json.loads(done.stdout) | {"seconds": time.monotonic() - start}
            path.write_text(json.dumps(found, indent=1) + "\n")
        return json.loads(path.read_text())


def write_yaml(path, settings):
    path.write_text("\n".join(f"{key}: {json.dumps(value)}" for key, value in settings.items()) + "\n")


def lessons(text, folder):
    """The first nine tenths to learn from, and about 60 windows of what follows."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    cut = len(text) * 9 // 10
    (data / "train.txt").write_text(text[:cut])
    (data / "valid.txt").write_text(text[cut : cut + 12_000])
    return data


def wanted(name):
    """Whether `--only NAME` leaves it."""
    return "--only" not in sys.argv or sys.argv[sys.argv.index("--only") + 1] in name


def mean_and_spread(values):
    """As in tables: the mean, and of several the lowest and the highest."""
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.3f}{spread}"
