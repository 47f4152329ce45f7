"""Times in PyTorch, on the CPU in float32, what the crate's own benches time.

Run by hand in an environment that has torch; never part of the test run:

    python benches/compare_torch.py [--rounds 30] [--threads 2] [--untied] [--json] [--only TEXT]

One round runs every entry once, so that a slow spell of the machine falls on all of them alike.
Compare the minima: a busy neighbour can only make a round slower.
"""

import argparse
import json
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

VOCABULARY, CONTEXT, BATCH, LAYERS, HEADS, WIDTH = 65, 128, 16, 4, 4, 128
SIDE, ELEMENTS, ADAMW_TENSORS = 1024, 1 << 20, 50


def fused_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def math_attention(q, k, v):
    # The fused kernel has no second derivative.
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(-1) @ v


class Block(nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.attend = attend
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.packed, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def attention(self, x):
        parts = self.packed(x).split(WIDTH, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        return self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))

    def forward(self, x):
        x = x + self.attention(self.norm_1(x))
        return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, tied, attend=fused_attention):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        self.blocks = nn.Sequential(*(Block(attend) for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, inputs, targets):
        x = self.blocks(self.tokens(inputs) + self.positions)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


def random_batch():
    return tuple(torch.randint(VOCABULARY, (BATCH, CONTEXT)) for _ in range(2))


def adamw(parameters, kind):
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1, **{kind: True})


def train_step(tied, kind):
    model, batch = Gpt(tied), random_batch()
    optimiser = adamw(model.parameters(), kind)

    def step():
        optimiser.zero_grad()
        model(*batch).backward()
        optimiser.step()

    return step


def forward_only(tied):
    model, batch = Gpt(tied), random_batch()

    def run():
        with torch.no_grad():
            model(*batch)

    return run


def forward_backward(tied):
    model, batch = Gpt(tied), random_batch()

    def run():
        model.zero_grad()
        model(*batch).backward()

    return run


def hvp_reverse(tied):
    """Loss, gradient and one Hessian-vector product by differentiating the gradient again."""
    model, batch = Gpt(tied, math_attention), random_batch()
    parameters = list(model.parameters())
    direction = [torch.randn_like(p) for p in parameters]

    def run():
        loss = model(*batch)
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        torch.autograd.grad(gradient, parameters, direction)

    return run


def hvp_forward(tied):
    """The same three results by forward mode over reverse mode."""
    model, batch = Gpt(tied, math_attention), random_batch()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    direction = {name: torch.randn_like(p) for name, p in parameters.items()}

    def loss(values):
        return torch.func.functional_call(model, values, batch)

    def run():
        torch.func.jvp(torch.func.grad_and_value(loss), (parameters,), (direction,))

    return run


def gpt_entries(tied):
    return {
        "gpt forward": forward_only(tied),
        "gpt forward+backward": forward_backward(tied),
        "gpt step, foreach AdamW": train_step(tied, "foreach"),
        "gpt step, fused AdamW": train_step(tied, "fused"),
        "gpt loss+grad+hvp, reverse": hvp_reverse(tied),
        "gpt loss+grad+hvp, forward": hvp_forward(tied),
    }


def op_forward(op, shape):
    x = torch.randn(shape)

    def run():
        with torch.no_grad():
            op(x)

    return run


def op_both(op, shape, parameters=()):
    x, upstream = torch.randn(shape, requires_grad=True), torch.randn(shape)

    def run():
        torch.autograd.grad(op(x), [x, *parameters], upstream)

    return run


def layer_norm():
    weight, bias = (make(SIDE, requires_grad=True) for make in (torch.ones, torch.zeros))
    return lambda x: F.layer_norm(x, (SIDE,), weight, bias), (weight, bias)


def op_entries():
    square, flat = (SIDE, SIDE), (ELEMENTS,)
    norm, norm_parameters = layer_norm()
    ops = {
        "softmax 1024x1024": (lambda x: x.softmax(-1), square, ()),
        "layer_norm 1024x1024": (norm, square, norm_parameters),
        "gelu tanh 1M": (lambda x: F.gelu(x, approximate="tanh"), flat, ()),
        "gelu exact 1M": (F.gelu, flat, ()),
    }
    entries = {}
    for name, (op, shape, parameters) in ops.items():
        entries[f"{name}, forward"] = op_forward(op, shape)
        entries[f"{name}, both"] = op_both(op, shape, parameters)
    return entries


def adamw_update(kind):
    parameters = [torch.randn(128, 128, requires_grad=True) for _ in range(ADAMW_TENSORS)]
    for p in parameters:
        p.grad = torch.randn_like(p)
    return adamw(parameters, kind).step


def adamw_entries():
    return {f"adamw 0.8M in 50, {kind}": adamw_update(kind) for kind in ("foreach", "fused")}


def working(entries):
    """Warms every entry up and drops, with a word, those this torch cannot run."""
    kept = {}
    for name, run in entries.items():
        try:
            for _ in range(3):
                run()
            kept[name] = run
        except (RuntimeError, NotImplementedError) as error:
            print(f"left out: {name}: {str(error).splitlines()[0]}", file=sys.stderr)
    return kept


def timed(run, calls):
    # One untimed call first: the entry before it has left the caches to itself.
    run()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls * 1e3


def measure(entries, rounds):
    samples = {name: [] for name in entries}
    for _ in range(rounds):
        for name, run in entries.items():
            samples[name].append(timed(run, 1 if name.startswith("gpt") else 5))
    return {
        name: {"min_ms": min(times), "median_ms": statistics.median(times)}
        for name, times in samples.items()
    }


def peak_mib():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def memory_of_training(tied, steps=20):
    # Before anything else is built: a peak never comes down again.
    before = peak_mib()
    step = train_step(tied, "fused")
    for _ in range(steps):
        step()
    return {"after_import_mib": before, "after_steps_mib": peak_mib()}


def fastest(times, prefix):
    names = [name for name in times if name.startswith(prefix)]
    return min(names, key=lambda name: times[name]["min_ms"])


def show(result):
    print(f"torch {result['torch']}, {result['threads']} threads, {result['rounds']} rounds")
    print(f"{'':34}{'min ms':>10}{'median ms':>11}")
    for name, t in result["times"].items():
        print(f"{name:34}{t['min_ms']:10.3f}{t['median_ms']:11.3f}")
    print("faster: " + "; ".join(result["faster"]))
    memory = result["memory"]
    print(f"peak RSS: {memory['after_import_mib']:.0f} MiB with torch imported, ", end="")
    print(f"{memory['after_steps_mib']:.0f} MiB after the step loop")


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--untied", action="store_true", help="give the head its own matrix")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--only", default="", metavar="TEXT", help="time only entries with TEXT in their names")
    return parser.parse_args()


def main():
    chosen = options()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    tied = not chosen.untied
    memory = memory_of_training(tied)
    entries = gpt_entries(tied) | op_entries() | adamw_entries()
    entries = working({name: run for name, run in entries.items() if chosen.only in name})
    times = measure(entries, chosen.rounds)
    groups = ("gpt step", "adamw", "gpt loss+grad+hvp")
    result = {
        "torch": torch.__version__,
        "threads": chosen.threads,
        "rounds": chosen.rounds,
        "tied": tied,
        "times": times,
        "faster": [fastest(times, g) for g in groups if any(n.startswith(g) for n in times)],
        "memory": memory,
    }
    print(json.dumps(result, indent=2)) if chosen.json else show(result)


if __name__ == "__main__":
    main()
