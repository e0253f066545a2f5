#!/usr/bin/env python3
"""AdaLIN, ILN and instance norm in PyTorch on the sizes of `ugatit bench adalin`, in the same JSON schema.

    python benches/torch_adalin.py --json torch.json            # a GPU and PyTorch 2 or later
    ugatit bench adalin --json ugatit.json
    ugatit bench adalin --show ugatit.json torch.json           # one table

Three forms: `eager`, the chain of operations as one writes it down; `composed`, F.instance_norm and F.layer_norm, then
blend, scale and shift; `compiled`, torch.compile of the eager chain. Times are by events: `stream` eagerly launched,
`graph` captured; `warm` on the same tensors each time, `rotated` on more than 256 MiB in turn. Tensors are
channels_last, as the kernels of this project have them. Each form is compared with float64 before it is timed.
"""
import argparse
import datetime
import json
import statistics
import subprocess

import torch
import torch.nn.functional as F

EPS = 1e-5
SAMPLES = 21
BEYOND_L2 = 256 << 20
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def standardise(x, dims, unbiased):
    m = x.mean(dim=dims, keepdim=True)
    v = x.var(dim=dims, keepdim=True, unbiased=unbiased)
    return (x - m) / torch.sqrt(v + EPS)


def eager(x, rho, gamma, beta):
    if rho is None:
        return standardise(x, (2, 3), False)
    a_i, a_l = standardise(x, (2, 3), True), standardise(x, (1, 2, 3), True)
    return (rho * a_i + (1 - rho) * a_l) * gamma + beta


def composed(x, rho, gamma, beta):
    # The library's layers divide by n; the factor to n - 1 is below 2e-4 at these sizes.
    a_i = F.instance_norm(x, eps=EPS)
    if rho is None:
        return a_i
    a_l = F.layer_norm(x, x.shape[1:], eps=EPS)
    return torch.addcmul(beta, torch.lerp(a_l, a_i, rho), gamma)


def inputs(kind, shape, dtype, device):
    n, h, w, c = shape
    rows = 1 if kind == "iln" else n

    def tensor(*size):
        t = torch.randn(size, device=device, dtype=torch.float32).to(dtype)
        return t.to(memory_format=torch.channels_last)

    x, dy = tensor(n, c, h, w), tensor(n, c, h, w)
    if kind == "in":
        return [x.requires_grad_(), None, None, None], dy
    rho = torch.rand(1, c, 1, 1, device=device).to(dtype)
    gamma, beta = (torch.randn(rows, c, 1, 1, device=device).to(dtype) for _ in range(2))
    return [t.requires_grad_() for t in (x, rho, gamma, beta)], dy


def check(fn, kind, dtype, device, images):
    """Refuses a form whose output or input gradient differs from float64; F.instance_norm has been seen to return
    wrong gradients for channels_last tensors of one image."""
    args, dy = inputs(kind, (images, 32, 32, 64), dtype, device)
    wide = [None if a is None else a.detach().double().requires_grad_() for a in args]
    results = []
    for f, a, g in ((fn, args, dy), (eager, wide, dy.double())):
        y = f(*a)
        results.append((y, torch.autograd.grad(y, a[0], g)[0]))
    tol = {torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    for name, got, want in zip(("output", "input gradient"), *results):
        err = ((got.double() - want).norm() / want.norm()).item()
        if not err <= tol:
            raise RuntimeError(f"{name} is off by {err:.1e}, allowed {tol:.0e}")


def events(call, repeats):
    samples = []
    for sample in range(SAMPLES + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        if sample >= 3:
            samples.append(start.elapsed_time(end) * 1e3 / repeats)
    return statistics.median(samples)


def capture(call):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def copy_ceiling(device):
    a = torch.empty(128 << 20, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / events(lambda: [b.copy_(a) for _ in range(8)], 8) / 1e3


def measure(fn, kind, shape, dtype, device):
    """Yields pass, regime, mode and microseconds."""
    n, h, w, c = shape
    size = n * h * w * c * dtype.itemsize
    for regime in ("warm", "rotated"):
        sets = 1 if regime == "warm" else min(64, BEYOND_L2 // (3 * size) + 2)
        data = [inputs(kind, shape, dtype, device) for _ in range(sets)]
        repeats = max(4, min(64, (1 << 30) // (2 * size)))
        repeats = -(-repeats // sets) * sets

        def forward():
            with torch.no_grad():
                for i in range(repeats):
                    fn(*data[i % sets][0])

        # The graph of each set is kept, so that what is timed is the backward pass alone.
        outs = [fn(*args) for args, _ in data]
        wanted = [[a for a in args if a is not None] for args, _ in data]

        def backward():
            for i in range(repeats):
                k = i % sets
                torch.autograd.grad(outs[k], wanted[k], data[k][1], retain_graph=True)

        for name, call in (("forward", forward), ("backward", backward)):
            for mode in ("stream", "graph"):
                try:
                    yield name, regime, mode, events(call if mode == "stream" else capture(call), repeats)
                except Exception as error:  # a form that cannot be captured has no such row
                    print(f"  {name} {regime} {mode}: {str(error).splitlines()[0]}")
                    torch.cuda.synchronize()
        del outs, wanted, data
        torch.cuda.empty_cache()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--shape", action="append", help="N,H,W,C; may be given several times")
    ap.add_argument("--dtype", default="f32,bf16")
    ap.add_argument("--kind", default="adalin")
    ap.add_argument("--form", default="eager,composed,compiled")
    ap.add_argument("--json", required=True)
    args = ap.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("error: this measures a GPU, and PyTorch sees none")
    device = torch.device("cuda")
    shapes = [tuple(map(int, s.split(","))) for s in args.shape or []]
    if not shapes:
        shapes = [(n, s, s, c) for n in (1, 4, 16, 64) for s, c in ((64, 256), (128, 128), (256, 64))]
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    name = f"{torch.cuda.get_device_name(0)} (torch {torch.__version__})"
    common = dict(source="torch", device=name, date=str(datetime.date.today()), commit=git.stdout.strip() or "unknown")
    copy = copy_ceiling(device)
    print(f"{name}; copy ceiling {copy:.0f} GB/s")
    records = []
    for kind in args.kind.split(","):
        for shape in shapes:
            for dtype in args.dtype.split(","):
                for form in args.form.split(","):
                    fn = {"eager": eager, "composed": composed}.get(form) or torch.compile(eager, dynamic=False)
                    label = f"{kind} {shape} {dtype} {form}"
                    try:
                        check(fn, kind, DTYPES[dtype], device, min(shape[0], 4))
                        for what, regime, mode, us in measure(fn, kind, shape, DTYPES[dtype], device):
                            n, h, w, c = shape
                            least = (2 if what == "forward" else 3) * n * h * w * c * DTYPES[dtype].itemsize
                            time = dict(regime=regime, mode=mode, microseconds=us, gb_per_s=least / us / 1e3,
                                        copy_gb_per_s=copy)
                            records.append(dict(common, kind=kind, variant=form, dtype=dtype, shape=list(shape),
                                                work="norm", least_bytes=least, time=time, **{"pass": what}))
                            print(f"{label} {what} {regime} {mode}: {us:.2f} us", flush=True)
                    except Exception as error:
                        print(f"{label}: {str(error).splitlines()[0]}", flush=True)
                        torch.cuda.empty_cache()
                    torch._dynamo.reset()
    with open(args.json, "w") as file:
        json.dump(records, file, indent=1)


if __name__ == "__main__":
    main()
