#!/usr/bin/env python3
"""A U-GAT-IT training step and a generator's pass in PyTorch, as `ugatit bench step` and `bench infer` measure them, in the
same JSON schema.

    python benches/torch_step.py --json torch.json              # a GPU and PyTorch 2 or later
    ugatit bench step --light --json ugatit.json
    ugatit bench step --show ugatit.json torch.json             # one table
    python benches/torch_step.py --check                        # on the CPU: the forms compute the same, no time

Forms of the step:

    official   the official schedule, eager, NCHW: the fakes are made for the discriminators' step, with gradients that nobody
               uses, and again for the generators'; plain Adam; convolutions in TF32, which is PyTorch's default
    amp        the same with autocast, channels_last, cudnn.benchmark, detached fakes and fused Adam
    best       the lean schedule, which computes the same: fakes shared by both steps, translation and identity as one batch,
               real and fake images as one batch through a discriminator (its spectral norms as a factor for each image), no
               gradients of discriminators' weights in the generators' step; torch.compile, fused Adam, and the whole iteration
               as one CUDA graph

and of the pass: `eager` and `best`. Before a form is timed, its losses and its gradients of one step of a small network are
compared with those of the official schedule in float64. F.instance_norm has been seen to return wrong gradients for
channels_last tensors; a form that is off with it is tried with a mean and variance of its own.
"""
import argparse
import contextlib
import datetime
import gc
import json
import math
import statistics
import struct
import subprocess
import time

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-5
LEAK = 0.2
ROLES = ("genA2B", "genB2A", "disGA", "disGB", "disLA", "disLB")
# What a form multiplies: largest deviation of the losses and of both networks' gradients from float64, relative. Losses and
# ReLUs have points where the gradient jumps, which 16 bits reach on other sides.
TOLERANCE = {"f32": (1e-4, 2e-2), "tf32": (5e-3, 0.15), "bf16": (5e-2, 0.6)}


# ---------------------------------------------------------------- networks, under the official names
class Sizes:
    def __init__(self, size=256, ch=64, n_res=4, n_dis=6, light=True, batch=1):
        self.size, self.ch, self.n_res, self.n_dis, self.light, self.batch = size, ch, n_res, n_dis, light, batch


def conv(ci, co, k, stride=1, bias=False):
    return nn.Conv2d(ci, co, k, stride=stride, bias=bias)


def padded(x, n):
    return F.pad(x, (n,) * 4, mode="reflect")


class Norms:
    """Instance norm, by the library or by its formula."""

    library = True

    @classmethod
    def instance(cls, x):
        if cls.library:
            return F.instance_norm(x, eps=EPS)
        var, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
        return (x - mean) * torch.rsqrt(var + EPS)


def mixed(x, rho):
    """Instance and layer norm, with sample variances, blended by rho."""

    def standardised(dims):
        var, mean = torch.var_mean(x, dim=dims, keepdim=True, correction=1)
        return (x - mean) / torch.sqrt(var + EPS)

    return rho * standardised((2, 3)) + (1 - rho) * standardised((1, 2, 3))


class AdaLIN(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, c, 1, 1), 0.9))

    def forward(self, x, gamma, beta):
        return mixed(x, self.rho) * gamma[..., None, None] + beta[..., None, None]


class ILN(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.rho = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.ones(1, c, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x):
        return mixed(x, self.rho) * self.gamma + self.beta


def attended(x, logits, rows, squeeze):
    """The features weighted by both classifiers' rows and squeezed together, and the classifiers' logits."""
    pooled = [pool(x, 1).flatten(1) for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)]
    weighted = torch.cat([x * row[..., None, None] for row in rows], dim=1)
    return squeeze(weighted), torch.cat([logit(p) for logit, p in zip(logits, pooled)], dim=1)


class Residual(nn.Module):
    """Of the encoder."""

    def __init__(self, c):
        super().__init__()
        self.conv_block = nn.ModuleDict({"1": conv(c, c, 3), "5": conv(c, c, 3)})

    def forward(self, x):
        y = F.relu(Norms.instance(self.conv_block["1"](padded(x, 1))))
        return x + Norms.instance(self.conv_block["5"](padded(y, 1)))


class Styled(nn.Module):
    """Of the decoder."""

    def __init__(self, c):
        super().__init__()
        self.conv1, self.norm1 = conv(c, c, 3), AdaLIN(c)
        self.conv2, self.norm2 = conv(c, c, 3), AdaLIN(c)

    def forward(self, x, gamma, beta):
        y = F.relu(self.norm1(self.conv1(padded(x, 1)), gamma, beta))
        return x + self.norm2(self.conv2(padded(y, 1)), gamma, beta)


class Generator(nn.Module):
    def __init__(self, s):
        super().__init__()
        ch, c = s.ch, 4 * s.ch
        self.light, self.n_res = s.light, s.n_res
        self.DownBlock = nn.ModuleDict(
            {"1": conv(3, ch, 7), "5": conv(ch, 2 * ch, 3, 2), "9": conv(2 * ch, c, 3, 2)}
            | {str(12 + i): Residual(c) for i in range(s.n_res)}
        )
        self.gap_fc, self.gmp_fc = (nn.Linear(c, 1, bias=False) for _ in range(2))
        self.conv1x1 = conv(2 * c, c, 1, bias=True)
        seen = c if s.light else c * (s.size // 4) ** 2
        self.FC = nn.ModuleDict({"0": nn.Linear(seen, c, bias=False), "2": nn.Linear(c, c, bias=False)})
        self.gamma, self.beta = (nn.Linear(c, c, bias=False) for _ in range(2))
        for i in range(s.n_res):
            setattr(self, f"UpBlock1_{i + 1}", Styled(c))
        self.UpBlock2 = nn.ModuleDict(
            {"2": conv(c, 2 * ch, 3), "3": ILN(2 * ch), "7": conv(2 * ch, ch, 3), "8": ILN(ch), "11": conv(ch, 3, 7)}
        )

    def forward(self, x):
        for key, pad in (("1", 3), ("5", 1), ("9", 1)):
            x = F.relu(Norms.instance(self.DownBlock[key](padded(x, pad))))
        for i in range(self.n_res):
            x = self.DownBlock[str(12 + i)](x)
        classifiers = (self.gap_fc, self.gmp_fc)
        x, logits = attended(x, classifiers, [c.weight for c in classifiers], self.conv1x1)
        x = F.relu(x)
        style = F.adaptive_avg_pool2d(x, 1).flatten(1) if self.light else x.flatten(1)
        for key in ("0", "2"):
            style = F.relu(self.FC[key](style))
        gamma, beta = self.gamma(style), self.beta(style)
        for i in range(self.n_res):
            x = getattr(self, f"UpBlock1_{i + 1}")(x, gamma, beta)
        for key, norm in (("2", "3"), ("7", "8")):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.relu(self.UpBlock2[norm](self.UpBlock2[key](padded(x, 1))))
        return torch.tanh(self.UpBlock2["11"](padded(x, 3))), logits


class Spectral(nn.Module):
    """A layer whose weight is divided by its largest singular value, of which the caller brings the reciprocal: one number,
    or one an image."""

    def __init__(self, layer):
        super().__init__()
        w = layer.weight.detach()
        self.weight_orig = nn.Parameter(w)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach())
        self.stride = getattr(layer, "stride", None)
        for name, n in (("weight_u", w.shape[0]), ("weight_v", w[0].numel())):
            self.register_buffer(name, F.normalize(torch.randn(n), dim=0))

    def apply_weight(self, x, w, bias):
        return F.linear(x, w, bias) if w.dim() == 2 else F.conv2d(x, w, bias, stride=self.stride)

    def forward(self, x, scale):
        if scale.dim() == 0:
            return self.apply_weight(x, self.weight_orig * scale, self.bias)
        y = self.apply_weight(x, self.weight_orig, None)
        y = y * scale.view(-1, *[1] * (y.dim() - 1)).to(y.dtype)
        return y if self.bias is None else y + self.bias.view(-1, *[1] * (y.dim() - 2)).to(y.dtype)


class Discriminator(nn.Module):
    def __init__(self, s, layers):
        super().__init__()
        widths = [3] + [s.ch << i for i in range(layers - 1)]
        strides = [2] * (layers - 2) + [1]
        self.model = nn.ModuleDict(
            {str(1 + 3 * i): Spectral(conv(widths[i], widths[i + 1], 4, strides[i], bias=True)) for i in range(layers - 1)}
        )
        c = widths[-1]
        self.gap_fc, self.gmp_fc = (Spectral(nn.Linear(c, 1, bias=False)) for _ in range(2))
        self.conv1x1 = conv(2 * c, c, 1, bias=True)
        self.conv = Spectral(conv(c, 1, 4))

    def spectral(self):
        return [*self.model.values(), self.gap_fc, self.gmp_fc, self.conv]

    def power(self, times):
        """The vectors u and v of the next `times` power iterations, for each layer; changes nothing."""
        found = []
        with torch.no_grad(), torch.autocast(self.conv1x1.weight.device.type, enabled=False):
            for layer in self.spectral():
                w, u = layer.weight_orig.flatten(1), layer.weight_u
                pairs = []
                for _ in range(times):
                    v = F.normalize(w.t() @ u, dim=0, eps=1e-12)
                    u = F.normalize(w @ v, dim=0, eps=1e-12)
                    pairs.append((u, v))
                found.append(pairs)
        return found

    def forward(self, x, pairs):
        """`pairs`: those of `power`; with two of them, the first half of the batch has the first."""
        scales = []
        # Sigma stays in float32, as in the kernels of this project.
        with torch.autocast(x.device.type, enabled=False):
            for layer, of_layer in zip(self.spectral(), pairs):
                w = layer.weight_orig.flatten(1)
                each = [1 / torch.dot(u, w @ v) for u, v in of_layer]
                n = x.shape[0] // len(each)
                scales.append(each[0] if len(each) == 1 else torch.cat([s.expand(n) for s in each]))
        *body, gap, gmp, last = scales
        for layer, scale in zip(self.model.values(), body):
            x = F.leaky_relu(layer(padded(x, 1), scale), LEAK)
        classifiers = [lambda p: self.gap_fc(p, gap), lambda p: self.gmp_fc(p, gmp)]
        rows = [self.gap_fc.weight_orig, self.gmp_fc.weight_orig]
        x, logits = attended(x, classifiers, rows, self.conv1x1)
        return self.conv(padded(F.leaky_relu(x, LEAK), 1), last), logits


# ---------------------------------------------------------------- the step
def wide(x):
    """Losses are taken in float32 at least."""
    return x.float() if x.dtype == torch.bfloat16 else x


def to(x, target):
    return F.mse_loss(wide(x), torch.full_like(wide(x), target))


def classified(x, target):
    return F.binary_cross_entropy_with_logits(wide(x), torch.full_like(wide(x), target))


class Step:
    """Networks, optimisers and one iteration in one of the forms."""

    def __init__(self, form, precision, sizes, device, dtype=torch.float32, compiled=True, hold=False):
        self.form, self.precision, self.device = form, precision, device
        self.lean, self.hold = form == "best", hold
        cuda = device.type == "cuda"
        torch.backends.cudnn.allow_tf32 = precision != "f32"
        # PyTorch's default multiplies matrices in full precision even where convolutions are in TF32.
        torch.backends.cuda.matmul.allow_tf32 = precision != "f32" and form != "official"
        torch.backends.cudnn.benchmark = form != "official"
        torch.manual_seed(1)
        self.nets = nn.ModuleDict()
        for role in ROLES:
            layers = sizes.n_dis + (1 if role[3] == "G" else -1)
            self.nets[role] = Generator(sizes) if role.startswith("gen") else Discriminator(sizes, layers)
        low = torch.rand(2, sizes.batch, 3, 4, 4)
        fine = torch.rand(2, sizes.batch, 3, sizes.size, sizes.size)
        smooth = torch.stack([F.interpolate(x, size=sizes.size, mode="bilinear") for x in low])
        images = (1.6 * smooth + 0.4 * fine - 1).to(device=device, dtype=dtype)
        self.nets.to(device=device, dtype=dtype)
        if form != "official":
            self.nets.to(memory_format=torch.channels_last)
            images = torch.stack([x.to(memory_format=torch.channels_last) for x in images])
        self.images = list(images)
        parameters = lambda kind: [p for role in ROLES if role.startswith(kind) for p in self.nets[role].parameters()]
        self.of_g, self.of_d = parameters("gen"), parameters("dis")
        fused = dict(fused=True, capturable=True) if cuda and form != "official" else {}
        adam = lambda ps: torch.optim.Adam(ps, lr=1e-4, betas=(0.5, 0.999), weight_decay=1e-4, **fused)
        self.opt_g, self.opt_d = adam(self.of_g), adam(self.of_d)
        self.rhos = [p for role in ROLES[:2] for name, p in self.nets[role].named_parameters() if name.endswith(".rho")]
        make = (lambda f: torch.compile(f, dynamic=False)) if self.lean and compiled else (lambda f: f)
        self.call = {role: make(net.__call__) for role, net in self.nets.items()}
        self.power = {role: make(self.nets[role].power) for role in ROLES[2:]}

    def autocast(self):
        half = self.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if half else contextlib.nullcontext()

    def judge(self, role, x, times=1):
        pairs = self.power[role](times)
        with torch.no_grad():
            for layer, of_layer in zip(self.nets[role].spectral(), pairs):
                layer.weight_u.copy_(of_layer[-1][0])
                layer.weight_v.copy_(of_layer[-1][1])
        return self.call[role](x, pairs)

    def first_passes(self, a, b):
        """Translation and identity of both generators, each as one batch: image and logits by role and by what goes in."""
        both, n = torch.cat([a, b]), a.shape[0]
        found = {}
        for role in ROLES[:2]:
            made = self.call[role](both)
            found[role, "a"], found[role, "b"] = ([t[:n] for t in made], [t[n:] for t in made])
        return found

    def discriminators(self, a, b, fake_a, fake_b):
        total = 0
        for role in ROLES[2:]:
            real, fake = (a, fake_a) if role[4] == "A" else (b, fake_b)
            if self.lean:
                n = real.shape[0]
                outs = self.judge(role, torch.cat([real, fake]), 2)
                outs = [[t[:n] for t in outs], [t[n:] for t in outs]]
            else:
                outs = [self.judge(role, x) for x in (real, fake)]
            total = total + sum(to(t, 1.0) for t in outs[0]) + sum(to(t, 0.0) for t in outs[1])
        return total

    def generators(self, a, b, ready):
        total = 0
        if ready is None:
            ready = {(role, x): self.call[role](images) for role in ROLES[:2] for x, images in (("a", a), ("b", b))}
        for role in ROLES[2:]:
            fake = ready["genB2A", "b"] if role[4] == "A" else ready["genA2B", "a"]
            total = total + sum(to(t, 1.0) for t in self.judge(role, fake[0]))
        for real, x, there, back in ((a, "a", "genA2B", "genB2A"), (b, "b", "genB2A", "genA2B")):
            cycle, same = self.call[back](ready[there, x][0])[0], ready[back, x]
            total = total + 10 * F.l1_loss(cycle, real) + 10 * F.l1_loss(same[0], real)
            total = total + 1000 * (classified(ready[there, x][1], 1.0) + classified(same[1], 0.0))
        return total

    def run(self):
        """One iteration; returns both losses, and where they are held, both networks' gradients."""
        a, b = self.images
        held = []
        self.opt_d.zero_grad()
        with self.autocast():
            ready = self.first_passes(a, b) if self.lean else None
            if self.lean:
                fakes = [ready[k][0].detach() for k in (("genB2A", "b"), ("genA2B", "a"))]
            else:
                with torch.set_grad_enabled(self.form == "official"):
                    fakes = [self.call["genB2A"](b)[0], self.call["genA2B"](a)[0]]
            d_loss = self.discriminators(a, b, *fakes)
        d_loss.backward()
        if self.hold:
            held.append(torch.cat([p.grad.detach().double().flatten() for p in self.of_d]))
        self.opt_d.step()
        self.opt_g.zero_grad()
        for p in self.of_d:
            p.requires_grad_(not self.lean)
        with self.autocast():
            g_loss = self.generators(a, b, ready)
        g_loss.backward()
        for p in self.of_d:
            p.requires_grad_(True)
        if self.hold:
            held.append(torch.cat([p.grad.detach().double().flatten() for p in self.of_g]))
        self.opt_g.step()
        with torch.no_grad():
            torch._foreach_clamp_min_(self.rhos, 0.0)
            torch._foreach_clamp_max_(self.rhos, 1.0)
        return d_loss.detach(), g_loss.detach(), held


# ---------------------------------------------------------------- checks
def check(form, precision, device, compiled=True):
    """Compares losses and gradients of one step of a small network with float64. Returns the deviations."""
    small = Sizes(size=32, ch=8, n_res=1, n_dis=4, batch=1)
    library = Norms.library
    Norms.library = True
    want = Step("official", "f32", small, torch.device("cpu"), torch.float64, hold=True).run()
    Norms.library = library
    got = Step(form, precision, small, device, compiled=compiled, hold=True).run()
    loss = max(abs(g.item() - w.item()) / abs(w.item()) for g, w in zip(got[:2], want[:2]))
    grads = [((g.cpu() - w).norm() / w.norm()).item() for g, w in zip(got[2], want[2])]
    allowed = TOLERANCE[precision]
    if not (loss <= allowed[0] and max(grads) <= allowed[1]):
        raise RuntimeError(f"losses are off by {loss:.1e} and gradients of D and G by {grads[0]:.1e} and {grads[1]:.1e}, "
                           f"allowed are {allowed[0]:.0e} and {allowed[1]:.0e}")
    return loss, grads


def checked(form, precision, device, compiled=True):
    """With the library's instance norm if that is right, else with the formula."""
    try:
        Norms.library = form != "best"
        return check(form, precision, device, compiled)
    except RuntimeError as error:
        if not Norms.library:
            raise
        print(f"{form} {precision}: with F.instance_norm {error}; by its formula instead", flush=True)
        Norms.library = False
        return check(form, precision, device, compiled)


def check_schedules():
    """In float64 on the CPU: the lean schedule computes what the official one does, over several steps."""
    small = Sizes(size=32, ch=4, n_res=1, n_dis=4, batch=2)
    Norms.library = False
    steps = [Step(form, "f32", small, torch.device("cpu"), torch.float64, compiled=False) for form in ("official", "best")]
    for _ in range(3):
        official, lean = (step.run() for step in steps)
    worst = max(abs(a.item() - b.item()) / abs(a.item()) for a, b in zip(official[:2], lean[:2]))
    if not worst <= 1e-9:
        raise SystemExit(f"error: after 3 steps the losses of the schedules differ by {worst:.1e}")
    print(f"float64, 3 steps: official and lean schedule differ by {worst:.1e}")


def check_golden(path):
    """In float64 on the CPU: both schedules have the losses of a recorded run of a light network, as tests/golden has them."""
    with open(path, "rb") as file:
        head = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    about = {key: json.loads(head["__metadata__"][key]) for key in ("config", "batch", "steps", "losses")}

    def tensor(name):
        entry = head[name]
        first, last = entry["data_offsets"]
        values = torch.frombuffer(bytearray(data[first:last]), dtype=torch.float32)
        return values.view(entry["shape"]).double()

    c = about["config"]
    sizes = Sizes(c["img_size"], c["ch"], c["n_res"], c["n_dis"], c["light"], about["batch"])
    Norms.library = False
    for form in ("official", "best"):
        step = Step(form, "f32", sizes, torch.device("cpu"), torch.float64, compiled=False)
        step.nets.load_state_dict({key[5:].replace("/", "."): tensor(key) for key in head if key.startswith("init/")})
        worst = 0
        for i in range(about["steps"]):
            step.images = [tensor(f"image/{x}/{i + 1}") for x in "AB"]
            for got, name in zip(step.run(), ("Discriminator_loss", "Generator_loss")):
                want = about["losses"][name][i]
                worst = max(worst, abs(got.item() - want) / abs(want))
        if not worst <= 1e-9:
            raise SystemExit(f"error: {form}: losses are off those of {path} by {worst:.1e}")
        print(f"float64: the losses of {about['steps']} recorded steps and of the {form} form differ by {worst:.1e}")


# ---------------------------------------------------------------- times
def timed(run, samples):
    """Median milliseconds by events, and the mean of one run after the other by the host's clock."""
    for _ in range(samples):
        run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(samples):
        run()
    torch.cuda.synchronize()
    wall = (time.perf_counter() - start) * 1e3 / samples
    times = []
    for _ in range(samples):
        a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        a.record()
        run()
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    return statistics.median(times), wall


def captured(run):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4):
            run()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    return graph.replay, out


def ceilings():
    a = torch.randn(128 << 20, device="cuda")
    b = torch.empty_like(a)
    copy = 2 * a.nbytes / timed(lambda: b.copy_(a), 20)[0] / 1e6
    del a, b
    n = 8192
    x, y = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    matrix = 2 * n**3 / timed(lambda: x @ y, 20)[0] / 1e9
    return dict(copy_gb_per_s=copy, matrix_tflop_per_s=matrix, matrix="bf16 matmul 8192")


def free_bytes():
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def measure(work, form, precision, sizes, samples):
    """Milliseconds by events and by the host, and the bytes taken of the GPU."""
    device = torch.device("cuda")
    before = free_bytes()
    step = Step("official" if form == "eager" else form, precision, sizes, device)
    if work == "step":
        run = step.run
    else:
        def run():
            with torch.no_grad(), step.autocast():
                return step.call["genA2B"](step.images[0])
    if form == "best":
        replay, out = captured(run)
        replay()
    else:
        replay, out = run, run()
    losses = [t for t in out[:2] if isinstance(t, torch.Tensor)]
    ms, wall = timed(replay, samples)
    if not all(math.isfinite(t.float().abs().max().item()) for t in losses):
        raise RuntimeError("what was run gave no sensible result, so its time is none")
    return ms, wall, before - torch.cuda.mem_get_info()[0]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--check", action="store_true", help="compare the forms on the CPU and measure nothing")
    ap.add_argument("--golden", help="with --check: compare with this recorded run, such as tests/golden/train_light_s32_c4_r2_b1.safetensors")
    ap.add_argument("--work", default="step", help="step, infer, or both with a comma")
    ap.add_argument("--form", default="official:tf32,amp:bf16,best:tf32,best:bf16", help="forms with what they multiply")
    ap.add_argument("--size", type=int, default=256)
    ap.add_argument("--ch", type=int, default=64)
    ap.add_argument("--n-res", type=int, default=4)
    ap.add_argument("--n-dis", type=int, default=6)
    ap.add_argument("--light", action="store_true")
    ap.add_argument("--batch-size", default="1", help="several with commas")
    ap.add_argument("--runs", type=int, default=20, help="runs that are timed, after as many that are not")
    ap.add_argument("--no-compile", action="store_true", help="with --check: without torch.compile, which needs a compiler")
    ap.add_argument("--json", help="write the records to this file")
    args = ap.parse_args()
    forms = [tuple(form.split(":")) for form in args.form.split(",")]
    if args.check:
        check_schedules()
        if args.golden:
            check_golden(args.golden)
        for form, precision in forms:
            # The CPU has no TF32.
            loss, grads = checked(form, precision.replace("tf32", "f32"), torch.device("cpu"), not args.no_compile)
            print(f"{form} {precision}: losses {loss:.1e}, gradients of D {grads[0]:.1e}, of G {grads[1]:.1e} off float64")
        return
    if not torch.cuda.is_available():
        raise SystemExit("error: this measures a GPU, and PyTorch sees none; --check needs none")
    device = torch.device("cuda")
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    name = f"{torch.cuda.get_device_name(0)} (torch {torch.__version__})"
    common = dict(source="torch", device=name, date=str(datetime.date.today()), commit=git.stdout.strip() or "unknown")
    best = ceilings()
    print(f"{name}; copy {best['copy_gb_per_s']:.0f} GB/s, {best['matrix']} {best['matrix_tflop_per_s']:.0f} TFLOP/s")
    records = []
    for work in args.work.split(","):
        for form, precision in forms:
            if work == "infer" and form == "official":
                form = "eager"
            for batch in map(int, args.batch_size.split(",")):
                label = f"{work} {form} {precision} batch {batch}"
                sizes = Sizes(args.size, args.ch, args.n_res, args.n_dis, args.light, batch)
                try:
                    checked("official" if form == "eager" else form, precision, device)
                    ms, wall, taken = measure(work, form, precision, sizes, args.runs)
                    measured = dict(milliseconds=ms, wall_milliseconds=wall, samples=args.runs, peak_bytes=taken,
                                    ceilings=best)
                    records.append(dict(common, work=work, variant=form, precision=precision, light=args.light, size=args.size,
                                        ch=args.ch, n_res=args.n_res, n_dis=args.n_dis, batch=batch, measured=measured))
                    print(f"{label}: {ms:.2f} ms", flush=True)
                except Exception as error:  # another form may still run
                    print(f"{label}: {(str(error).splitlines() or ['failed'])[0]}", flush=True)
                torch._dynamo.reset()
                free_bytes()
                if args.json:
                    with open(args.json, "w") as file:
                        json.dump(records, file, indent=1)


if __name__ == "__main__":
    main()
