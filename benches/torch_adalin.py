#!/usr/bin/env python3
"""AdaLIN, ILN and instance norm in PyTorch on the sizes of `ugatit bench adalin`, in the same JSON schema.

    python benches/torch_adalin.py --json torch.json            # a GPU and PyTorch 2 or later
    ugatit bench adalin --json ugatit.json
    ugatit bench adalin --show ugatit.json torch.json           # one table

Forms:

    eager         the chain of operations as one writes it down
    composed      F.instance_norm and F.layer_norm, then blend, scale and shift
    group-norm    F.group_norm with as many groups as channels, and with one, then the same
    compiled      torch.compile of the eager chain; compiled-max with max-autotune
    liger         as group-norm, by Liger-Kernel's Triton kernels, which take NCHW: it gets that
    quack         the layer norm by QuACK, over one row an image; forward only
    apex          apex's NHWC group norm with 32 groups: another norm of the same traffic, since its kernels take 16 or 32
                  groups and leave others to PyTorch; its records say so under `work`

A form whose package is not installed is named as skipped. Times are by events: `stream` eagerly launched, `graph` captured;
`warm` on the same tensors each time, `rotated` on more than 256 MiB in turn. Tensors are channels_last, as the kernels of
this project have them. Each form is compared with float64 before it is timed; `--check` does that on the CPU.
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


def blended(instance, layer):
    """A form out of two norms, each of which divides by n."""

    def form(x, rho, gamma, beta):
        a_i = instance(x)
        return a_i if rho is None else torch.addcmul(beta, torch.lerp(layer(x), a_i, rho), gamma)

    return form


def group_norm():
    return blended(lambda x: F.group_norm(x, x.shape[1], eps=EPS), lambda x: F.group_norm(x, 1, eps=EPS))


def liger():
    from liger_kernel.ops.group_norm import LigerGroupNormFunction

    def norm(x, groups):
        c = x.shape[1]
        one, zero = torch.ones(c, device=x.device, dtype=x.dtype), torch.zeros(c, device=x.device, dtype=x.dtype)
        return LigerGroupNormFunction.apply(x.flatten(2), one, zero, c, groups, EPS).view_as(x)

    return blended(lambda x: norm(x, x.shape[1]), lambda x: norm(x, 1))


def quack():
    import quack.layernorm as package

    norm = getattr(package, "layernorm_fwd", None) or package._layernorm_fwd
    weights = {}

    def layer(x):
        rows = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)
        n = rows.shape[1]
        if n not in weights:
            weights[n] = torch.ones(n, device=x.device)
        y = norm(rows, weights[n], eps=EPS)
        n, c, h, w = x.shape
        return y.view(n, h, w, c).permute(0, 3, 1, 2)

    form = blended(lambda x: F.group_norm(x, x.shape[1], eps=EPS), layer)

    def with_layer(x, rho, gamma, beta):
        if rho is None:
            raise RuntimeError("QuACK has no instance norm")
        return form(x, rho, gamma, beta)

    return with_layer


GROUPS = 32


def apex():
    from apex.contrib.group_norm import GroupNorm

    layers = {}

    def form(x, rho, gamma, beta):
        c = x.shape[1]
        if c not in GroupNorm.SUPPORTED_CHANNELS or not x.is_cuda:
            raise RuntimeError(f"apex leaves {c} channels to PyTorch")
        if (c, x.dtype) not in layers:
            layers[c, x.dtype] = GroupNorm(GROUPS, c, eps=EPS, device=x.device, dtype=torch.float32)
        return layers[c, x.dtype](x)

    return form


def compiled(**options):
    return lambda: torch.compile(eager, dynamic=False, **options)


class Form:
    """How a form is made, and what is particular about it."""

    def __init__(self, make, backward=True, layout=torch.channels_last, work="norm", want=eager):
        self.make, self.backward, self.layout, self.work, self.want = make, backward, layout, work, want


FORMS = {
    "eager": Form(lambda: eager),
    "composed": Form(lambda: composed),
    "group-norm": Form(group_norm),
    "compiled": Form(compiled()),
    "compiled-max": Form(compiled(mode="max-autotune-no-cudagraphs")),
    "liger": Form(liger, layout=torch.contiguous_format),
    "quack": Form(quack, backward=False),
    "apex": Form(apex, work=f"group norm, {GROUPS} groups",
                 want=lambda x, rho, gamma, beta: F.group_norm(x, GROUPS, eps=EPS)),
}


def inputs(kind, shape, dtype, device, layout=torch.channels_last):
    n, h, w, c = shape
    rows = 1 if kind == "iln" else n

    def tensor(*size):
        t = torch.randn(size, device=device, dtype=torch.float32).to(dtype)
        return t.to(memory_format=layout)

    x, dy = tensor(n, c, h, w), tensor(n, c, h, w)
    if kind == "in":
        return [x.requires_grad_(), None, None, None], dy
    rho = torch.rand(1, c, 1, 1, device=device).to(dtype)
    gamma, beta = (torch.randn(rows, c, 1, 1, device=device).to(dtype) for _ in range(2))
    return [t.requires_grad_() for t in (x, rho, gamma, beta)], dy


def check(form, fn, kind, dtype, device, images):
    """Refuses a form whose output or input gradient differs from float64; F.instance_norm has been seen to return
    wrong gradients for channels_last tensors of one image. Returns the deviations."""
    args, dy = inputs(kind, (images, 32, 32, 128), dtype, device, form.layout)
    wide = [None if a is None else a.detach().double().requires_grad_() for a in args]
    results = []
    for f, a, g in ((fn, args, dy), (form.want, wide, dy.double())):
        if form.backward:
            y = f(*a)
            results.append((y, torch.autograd.grad(y, a[0], g)[0]))
        else:
            with torch.no_grad():
                results.append((f(*a),))
    tol = {torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    found = []
    for name, got, want in zip(("output", "input gradient"), *results):
        err = ((got.double() - want).norm() / want.norm()).item()
        if not err <= tol:
            raise RuntimeError(f"{name} is off by {err:.1e}, allowed {tol:.0e}")
        found.append(f"{name} {err:.1e}")
    return ", ".join(found)


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


def measure(form, fn, kind, shape, dtype, device):
    """Yields pass, regime, mode and microseconds."""
    n, h, w, c = shape
    size = n * h * w * c * dtype.itemsize
    for regime in ("warm", "rotated"):
        sets = 1 if regime == "warm" else min(64, BEYOND_L2 // (3 * size) + 2)
        data = [inputs(kind, shape, dtype, device, form.layout) for _ in range(sets)]
        repeats = max(4, min(64, (1 << 30) // (2 * size)))
        repeats = -(-repeats // sets) * sets

        def forward():
            with torch.no_grad():
                for i in range(repeats):
                    fn(*data[i % sets][0])

        # The graph of each set is kept, so that what is timed is the backward pass alone.
        outs = [fn(*args) for args, _ in data] if form.backward else []
        # A form of another norm has no parameters.
        wanted = [[a for a in args if a is not None][: 1 if form.work != "norm" else None] for args, _ in data]

        def backward():
            for i in range(repeats):
                k = i % sets
                torch.autograd.grad(outs[k], wanted[k], data[k][1], retain_graph=True)

        for name, call in (("forward", forward), ("backward", backward))[: 1 + form.backward]:
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
    ap.add_argument("--form", default=",".join(FORMS))
    ap.add_argument("--json", help="write the records to this file")
    ap.add_argument("--check", action="store_true", help="compare the forms with float64 on the CPU and measure nothing")
    args = ap.parse_args()
    forms = {}
    for name in args.form.split(","):
        if name not in FORMS:
            raise SystemExit(f"error: unknown form '{name}'; forms are {', '.join(FORMS)}")
        try:
            forms[name] = FORMS[name].make()
        except ImportError as error:
            print(f"{name}: skipped: {error}", flush=True)
    if args.check:
        for kind in args.kind.split(","):
            for dtype in args.dtype.split(","):
                for name, fn in forms.items():
                    try:
                        off = check(FORMS[name], fn, kind, DTYPES[dtype], torch.device("cpu"), 2)
                        print(f"{kind} {dtype} {name}: {off} off float64", flush=True)
                    except RuntimeError as error:
                        print(f"{kind} {dtype} {name}: {str(error).splitlines()[0]}", flush=True)
        return
    if not args.json:
        raise SystemExit("error: --json is missing: the file for the records")
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
                for name_of_form, fn in forms.items():
                    form = FORMS[name_of_form]
                    label = f"{kind} {shape} {dtype} {name_of_form}"
                    try:
                        check(form, fn, kind, DTYPES[dtype], device, min(shape[0], 4))
                        for what, regime, mode, us in measure(form, fn, kind, shape, DTYPES[dtype], device):
                            n, h, w, c = shape
                            least = (2 if what == "forward" else 3) * n * h * w * c * DTYPES[dtype].itemsize
                            time = dict(regime=regime, mode=mode, microseconds=us, gb_per_s=least / us / 1e3,
                                        copy_gb_per_s=copy)
                            records.append(dict(common, kind=kind, variant=name_of_form, dtype=dtype, shape=list(shape),
                                                work=form.work, least_bytes=least, time=time, **{"pass": what}))
                            print(f"{label} {what} {regime} {mode}: {us:.2f} us", flush=True)
                    except Exception as error:
                        print(f"{label}: {str(error).splitlines()[0]}", flush=True)
                        torch.cuda.empty_cache()
                    torch._dynamo.reset()
    with open(args.json, "w") as file:
        json.dump(records, file, indent=1)


if __name__ == "__main__":
    main()
