"""The rows of benches/gpu.rs and benches/gpu_step.rs in PyTorch eager, float32 without TF32, on the same card.

    python benches/gpu_torch.py        # nothing to compare with where torch has no device

Medians of seven, with the least and the most, in milliseconds.
"""

import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("PyTorch is not installed here: nothing to compare with")

if not torch.cuda.is_available():
    sys.exit("PyTorch sees no card here: nothing to compare with")

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
DEVICE, ROUNDS = "cuda", 7
WIDTH, HEADS, KV_HEADS, HIDDEN, LAYERS, VOCABULARY = 576, 9, 3, 1536, 30, 49_152


def measure(f, count=10):
    def row():
        start = time.perf_counter()
        for _ in range(count):
            f()
        torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start) / count

    row()
    times = sorted(row() for _ in range(ROUNDS))
    return statistics.median(times), times[0], times[-1]


def line(name, times, rate=""):
    print(f"{name:44} {times[0]:9.3f} {times[1]:9.3f} {times[2]:9.3f} {rate}")


def products():
    n, rank = 4096, 8
    for m, k, columns, left, right in [
        (512, 512, 512, False, False),
        (n, n, n, False, False),
        (n, n, n, False, True),
        (n, n, n, True, False),
        (n, n, rank, False, False),
        (n, rank, n, False, False),
        (rank, n, n, True, False),
        (n, n, rank, True, False),
        (n, n, 1, False, False),
        (1, n, n, False, False),
    ]:
        a = torch.rand((k, m) if left else (m, k), device=DEVICE)
        b = torch.rand((columns, k) if right else (k, columns), device=DEVICE)
        a, b = a.T if left else a, b.T if right else b
        times = measure(lambda: a @ b)
        marks = ["ᵀ" if mark else "" for mark in (left, right)]
        name = f"{m}×{k}{marks[0]} · {k}×{columns}{marks[1]}"
        line(name, times, f"{2e-9 * m * k * columns / times[0] * 1e3:10.1f} GFLOP/s")


def bandwidth(count=1 << 26):
    x = torch.full((count // 1024, 1024), 0.5, device=DEVICE)
    weight = torch.ones(1024, device=DEVICE)
    cases = [
        ("copy", 2, lambda: x.clone()),
        ("add", 3, lambda: x + x),
        ("gelu", 2, lambda: F.gelu(x, approximate="tanh")),
        ("softmax, rows of 1024", 2, lambda: x.softmax(-1)),
        ("layer norm, rows of 1024", 2, lambda: F.layer_norm(x, (1024,), weight, weight)),
        ("rms norm, rows of 1024", 2, lambda: F.rms_norm(x, (1024,), weight)),
        ("sum of all", 1, lambda: x.sum()),
    ]
    for name, passes, f in cases:
        times = measure(f)
        line(name, times, f"{4e-6 * count * passes / times[0]:10.1f} GB/s")


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda a, b: torch.nn.Linear(a, b, bias=False)
        self.dim = WIDTH // HEADS
        self.q, self.k, self.v = linear(WIDTH, WIDTH), *(linear(WIDTH, KV_HEADS * self.dim) for _ in range(2))
        self.o, self.gate, self.up = linear(WIDTH, WIDTH), linear(WIDTH, HIDDEN), linear(WIDTH, HIDDEN)
        self.down = linear(HIDDEN, WIDTH)
        self.norm_1, self.norm_2 = (torch.nn.Parameter(torch.ones(WIDTH)) for _ in range(2))

    def forward(self, x, cos, sin):
        y = F.rms_norm(x, (WIDTH,), self.norm_1)
        q, k, v = (f(y).unflatten(-1, (-1, self.dim)).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = F.rms_norm(x, (WIDTH,), self.norm_2)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = torch.nn.Parameter(torch.ones(WIDTH))

    def forward(self, ids):
        dim = WIDTH // HEADS
        rates = 10_000.0 ** (-torch.arange(0, dim, 2, device=ids.device) / dim)
        angles = torch.arange(ids.shape[1], device=ids.device)[:, None] * rates
        x, cos, sin = self.embedding(ids), angles.cos(), angles.sin()
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.linear(F.rms_norm(x, (WIDTH,), self.norm), self.embedding.weight)


def steps():
    model = Llama().to(DEVICE)
    for batch, context in [(1, 128), (8, 128), (1, 1024), (8, 1024)]:
        ids = torch.randint(VOCABULARY, (batch, context), device=DEVICE)

        def step():
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()

        line(f"{LAYERS} layers of 135M, batch {batch} × {context}", measure(step, 1))


print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
print(f"{'':44} {'median ms':>9} {'least':>9} {'most':>9}")
products()
bandwidth()
steps()
