"""Yardstick: one training step of a preset in plain PyTorch, as it is best written.

    pip install torch && python benchmarks/torch_step.py --preset cav_mae_base --batch 4
    python benchmarks/torch_step.py --preset mavil_base --batch 64 --device cuda \\
        --precision mixed_bfloat16 --compile

Our own writing of the papers. `--form modern` does the arithmetic of our preset in the
way that costs PyTorch least: `scaled_dot_product_attention`, fused Adam, masked patches
dropped before the first dense layer, tokens decoded in the order in which they were
drawn and heads on masked tokens alone. `--form authors` (CAV-MAE) is what the authors'
code does (YuanGongND/cav-mae): timm 0.4.5's attention as separate matmuls, gathers that
put tokens back in their place, heads on all of them, norms for streams that do not run.

The weights are random and the inputs are noise: spectrograms and normalised frames, so
that the log-mel layer, which ours computes in the step, is not in it.
"""

import argparse
import dataclasses
import itertools
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Tokens = dict[str, torch.Tensor]
MODALITIES = ("audio", "video")
STREAMS = ("joint", *MODALITIES)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes of a model; `tokens`, `kept` and `values` of audio and video."""

    width: int = 768
    heads: int = 12
    layers: int = 11
    fusion_layers: int = 1
    decoder: tuple[int, int, int] = (512, 16, 8)  # width, heads, layers
    joint_decoder: bool = True
    shared_decoder: bool = True
    streams: bool = False  # CAV-MAE: a modality runs through the joint layer alone, too
    normalize_before_fusion: bool = False
    modality_vectors: bool = False
    standardize: bool = False
    gelu: str = "none"
    class_token: bool = False
    has_teacher: bool = False
    weights: tuple[float, float] = (1.0, 1.0)  # of reconstruction
    contrast: tuple[float, float, bool] | None = None  # weight, temperature, both ways
    intra_contrast: tuple[float, float] | None = None  # weight, temperature
    tokens: tuple[int, int] = (512, 196)
    kept: tuple[int, int] = (128, 49)
    values: tuple[int, int] = (256, 768)
    tubelet: int = 1

    def of(self, name: str) -> dict[str, int]:
        """`tokens`, `kept`, `values` or `weights` by modality."""
        return dict(zip(MODALITIES, getattr(self, name), strict=True))


_AV_MAE = Preset(
    layers=10,
    fusion_layers=2,
    decoder=(384, 6, 4),
    joint_decoder=False,
    normalize_before_fusion=True,
    gelu="tanh",
    weights=(0.5, 0.5),
    tokens=(400, 1568),
    kept=(200, 157),
    values=(256, 1536),
    tubelet=2,
)
_MAVIL = Preset(
    layers=12,
    fusion_layers=2,
    joint_decoder=False,
    shared_decoder=False,
    class_token=True,
    contrast=(0.1, 0.1, True),
    intra_contrast=(0.01, 1.0),
    tokens=(512, 784),
    kept=(102, 156),
    values=(256, 1536),
    tubelet=2,
)
PRESETS = {
    "cav_mae_base": Preset(
        streams=True,
        modality_vectors=True,
        standardize=True,
        contrast=(0.01, 0.05, False),
    ),
    "av_mae_base": _AV_MAE,
    "av_mae_large": dataclasses.replace(
        _AV_MAE, width=1024, heads=16, layers=22, decoder=(512, 8, 4)
    ),
    "mavil_base": _MAVIL,
    "mavil_base_stage2": dataclasses.replace(_MAVIL, has_teacher=True),
}
_TINY: dict[str, Any] = {"width": 128, "heads": 4, "decoder": (96, 4, 2)}
for _name, _layers in (("cav_mae", 4), ("av_mae", 3), ("mavil", 5)):
    _base = PRESETS[f"{_name}_base"]
    PRESETS[f"{_name}_tiny"] = dataclasses.replace(_base, layers=_layers, **_TINY)
PRESETS["mavil_tiny_stage2"] = dataclasses.replace(
    PRESETS["mavil_tiny"], has_teacher=True
)


# --- The modern form ---


class Block(nn.Module):
    """Pre-norm transformer block, with a pair of layer norms for each stream."""

    def __init__(
        self,
        width: int,
        heads: int,
        streams: Sequence[str] = ("joint",),
        gelu: str = "none",
    ) -> None:
        super().__init__()
        self.heads, self.gelu = heads, gelu
        self.norm_1, self.norm_2 = (
            nn.ModuleDict({s: nn.LayerNorm(width) for s in streams}) for _ in range(2)
        )
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def heads_of(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Query, key and value, each `(batch, heads, tokens, width / heads)`."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind()

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        attended = functional.scaled_dot_product_attention(*self.heads_of(x))
        return self.projection(attended.transpose(1, 2).reshape(x.shape))

    def forward(self, x: torch.Tensor, stream: str = "joint") -> torch.Tensor:
        x = x + self.attend(self.norm_1[stream](x))
        hidden = self.expand(self.norm_2[stream](x))
        return x + self.contract(functional.gelu(hidden, approximate=self.gelu))


def vector(width: int) -> nn.Parameter:
    """A learned vector, as of a mask token."""
    return nn.Parameter(0.02 * torch.randn(width))


class Encoder(nn.Module):
    """Tokenizers, unimodal layers, fusion layers and the norms that end them."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        self.p, w = p, p.width
        block = {"width": w, "heads": p.heads, "gelu": p.gelu}
        per = MODALITIES
        self.patches = nn.ModuleDict({m: nn.Linear(p.of("values")[m], w) for m in per})
        self.layers = nn.ModuleDict(
            {m: nn.Sequential(*(Block(**block) for _ in range(p.layers))) for m in per}
        )
        streams = STREAMS if p.streams else STREAMS[:1]
        self.joint = nn.ModuleList(
            Block(**block, streams=streams) for _ in range(p.fusion_layers)
        )
        self.norms = nn.ModuleDict({s: nn.LayerNorm(w) for s in STREAMS})
        if p.modality_vectors:
            self.modality = nn.ParameterDict({m: vector(w) for m in per})
        if p.class_token:
            self.first = nn.ParameterDict({m: vector(w) for m in per})
        for m, n in p.of("tokens").items():
            self.register_buffer(f"{m}_places", torch.randn(n, w))

    def tokenize(
        self, m: str, patches: torch.Tensor, kept: torch.Tensor | None = None
    ) -> torch.Tensor:
        places = getattr(self, f"{m}_places")
        if kept is None:
            x = self.patches[m](patches) + places
        else:
            x = self.patches[m](take(patches, kept)) + places[kept]
        if self.p.modality_vectors:
            x = x + self.modality[m]
        if self.p.class_token:
            x = torch.cat([self.first[m].expand(len(x), 1, -1), x], dim=1)
        return x

    def forward(self, tokens: Tokens, views: int = 1) -> tuple[Tokens, Tokens]:
        """Fused tokens of the first view, and unimodal tokens of all views."""
        x = {m: self.layers[m](t) for m, t in tokens.items()}
        own = x
        if self.p.streams:
            for block in self.joint:
                own = {m: block(t, m) for m, t in own.items()}
        own = {m: self.norms[m](t) for m, t in own.items()}
        x = own if self.p.normalize_before_fusion else x
        x = {m: t[: len(t) // views] for m, t in x.items()}
        joint = torch.cat([*x.values()], dim=1)
        for block in self.joint:
            joint = block(joint)
        parts = self.norms["joint"](joint).split([t.shape[1] for t in x.values()], 1)
        fused = dict(zip(x, parts, strict=True))
        if self.p.class_token:
            fused, own = ({m: t[:, 1:] for m, t in y.items()} for y in (fused, own))
        return fused, own


class Decoder(nn.Module):
    """Mask tokens, layers and heads that run on masked tokens alone."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        self.p, (w, heads, layers) = p, p.decoder
        self.names = {m: "both" if p.shared_decoder else m for m in MODALITIES}
        stacks = sorted(set(self.names.values()))
        # CAV-MAE's joint decoder has one projection and one mask token; AV-MAE's shared
        # one has them for each modality.
        self.inputs = {m: "both" if p.joint_decoder else m for m in MODALITIES}
        sides = sorted(set(self.inputs.values()))
        self.project = nn.ModuleDict({m: nn.Linear(p.width, w) for m in sides})
        self.mask = nn.ParameterDict({m: vector(w) for m in sides})
        self.layers = nn.ModuleDict(
            {s: nn.Sequential(*(Block(w, heads, gelu=p.gelu) for _ in range(layers)))
             for s in stacks}
        )  # fmt: skip
        self.norms = nn.ModuleDict({s: nn.LayerNorm(w) for s in stacks})
        outputs = {
            m: p.width if p.has_teacher else n for m, n in p.of("values").items()
        }
        self.heads = nn.ModuleDict({m: nn.Linear(w, n) for m, n in outputs.items()})
        if p.modality_vectors:
            self.modality = nn.ParameterDict({m: vector(w) for m in MODALITIES})
        for m, n in p.of("tokens").items():
            self.register_buffer(f"{m}_places", torch.randn(n, w))

    def fill(self, m: str, x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        x, mask = self.project[self.inputs[m]](x), self.mask[self.inputs[m]]
        missing = order.shape[1] - x.shape[1]
        x = torch.cat([x, mask.to(x.dtype).expand(len(x), missing, -1)], dim=1)
        x = x + getattr(self, f"{m}_places")[order]
        return x + self.modality[m] if self.p.modality_vectors else x

    def run(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self.norms[name](self.layers[name](x))

    def forward(self, tokens: Tokens, orders: Tokens) -> Tokens:
        filled = {m: self.fill(m, x, orders[m]) for m, x in tokens.items()}
        if self.p.joint_decoder:
            lengths = [x.shape[1] for x in filled.values()]
            x = self.run("both", torch.cat([*filled.values()], dim=1))
            decoded = dict(zip(filled, x.split(lengths, dim=1), strict=True))
        else:
            decoded = {m: self.run(self.names[m], x) for m, x in filled.items()}
        kept = self.p.of("kept")
        return {m: self.heads[m](x[:, kept[m] :]) for m, x in decoded.items()}


class Modern(nn.Module):
    """A preset; `forward` gives the loss of a batch."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        self.p = p
        self.encoder, self.decoder = Encoder(p), Decoder(p)
        if p.has_teacher:
            self.teacher = Encoder(p).requires_grad_(False)

    def forward(self, inputs: Tokens) -> torch.Tensor:
        p, kept = self.p, self.p.of("kept")
        patches = {m: patchify(m, x, p.tubelet) for m, x in inputs.items()}
        views = 2 if p.intra_contrast else 1
        orders = [{m: draw(x) for m, x in patches.items()} for _ in range(views)]
        tokens = {
            m: torch.cat(
                [self.encoder.tokenize(m, x, o[m][:, : kept[m]]) for o in orders]
            )
            for m, x in patches.items()
        }
        fused, own = self.encoder(tokens, views)
        loss = self.contrasts({m: x.float().mean(dim=1) for m, x in own.items()})
        targets = self.targets(patches)
        for m, prediction in self.decoder(fused, orders[0]).items():
            target = take(targets[m], orders[0][m][:, kept[m] :])
            if p.standardize:
                target = standardized(target)
            errors = (prediction.float() - target.float()) ** 2
            loss = loss + p.of("weights")[m] * errors.mean()
        return loss

    def embed(self, inputs: Tokens) -> torch.Tensor:
        """Mean tokens of complete clips, `(2, batch, width)`: no mask, no decoder."""
        patches = {m: patchify(m, x, self.p.tubelet) for m, x in inputs.items()}
        tokens = {m: self.encoder.tokenize(m, x) for m, x in patches.items()}
        own = self.encoder(tokens)[1]
        return torch.stack([x.float().mean(dim=1) for x in own.values()])

    def targets(self, patches: Tokens) -> Tokens:
        if not self.p.has_teacher:
            return patches
        with torch.no_grad():
            x = {m: self.teacher.tokenize(m, y) for m, y in patches.items()}
            return self.teacher(x)[0]

    def contrasts(self, means: Tokens) -> torch.Tensor | float:
        p, loss = self.p, 0.0
        views = {m: x.chunk(2) if p.intra_contrast else (x,) for m, x in means.items()}
        if p.contrast:
            weight, temperature, both = p.contrast
            video, audio = views["video"][0], views["audio"][0]
            one = info_nce(video, audio, temperature)
            other = info_nce(audio, video, temperature) if both else one
            loss = loss + weight * (one + other) / 2
        if p.intra_contrast:
            weight, temperature = p.intra_contrast
            for first, second in views.values():
                loss = loss + weight / 2 * info_nce(first, second, temperature)
        return loss


def draw(x: torch.Tensor) -> torch.Tensor:
    """A random order of the tokens of each clip."""
    return torch.rand(x.shape[:2], device=x.device).argsort(dim=1)


def take(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Tokens of each clip: `(batch, n, dim)`."""
    return torch.gather(x, 1, index[:, :, None].expand(-1, -1, x.shape[2]))


def patchify(modality: str, x: torch.Tensor, tubelet: int) -> torch.Tensor:
    """`(batch, tokens, values)` of `(batch, time, mel)` or `(batch, time, h, w, 3)`."""
    batch = len(x)
    if modality == "audio":
        x = x.reshape(batch, x.shape[1] // 16, 16, x.shape[2] // 16, 16)
        return x.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
    frames, height, width = x.shape[1:4]
    x = x.reshape(batch, frames // tubelet, tubelet, height // 16, 16, width // 16, 48)
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)


def standardized(x: torch.Tensor) -> torch.Tensor:
    """Patches with mean 0 and variance 1."""
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()


def info_nce(
    query: torch.Tensor, key: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Cross-entropy of each query's own key among all keys of the batch."""
    query, key = (functional.normalize(x, dim=-1) for x in (query, key))
    # Outside of autocast: see `tfavmae.objectives.contrastive.info_nce`.
    with torch.autocast(query.device.type, enabled=False):
        scores = query @ key.T / temperature
    return functional.cross_entropy(
        scores, torch.arange(len(query), device=query.device)
    )


# --- The authors' form of CAV-MAE ---


class AuthorsBlock(Block):
    """Attention as timm 0.4.5 has it, which keeps its matrices."""

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.heads_of(x)
        scores = (query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5
        attended = (scores.softmax(dim=-1) @ value).transpose(1, 2)
        return self.projection(attended.reshape(x.shape))


class Authors(nn.Module):
    """CAV-MAE, base: every block has norms of all streams, heads read all tokens."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        self.p, w = p, p.width
        self.decoder_width, heads, layers = p.decoder

        def stack(width: int, heads: int, count: int) -> nn.Sequential:
            blocks = (AuthorsBlock(width, heads, STREAMS) for _ in range(count))
            return nn.Sequential(*blocks)

        self.patches = nn.ModuleDict(
            {"audio": nn.Conv2d(1, w, 16, 16), "video": nn.Conv2d(3, w, 16, 16)}
        )
        self.encoders = nn.ModuleDict(
            {m: stack(w, p.heads, p.layers) for m in MODALITIES}
        )
        self.joint = AuthorsBlock(w, p.heads, STREAMS)
        self.norms = nn.ModuleDict({s: nn.LayerNorm(w) for s in STREAMS})
        self.project = nn.Linear(w, self.decoder_width)
        self.decoder = stack(self.decoder_width, heads, layers)
        self.decoder_norm = nn.LayerNorm(self.decoder_width)
        self.heads = nn.ModuleDict(
            {m: nn.Linear(self.decoder_width, n) for m, n in p.of("values").items()}
        )
        self.mask = vector(self.decoder_width)
        for name, width in (("encoder", w), ("decoder", self.decoder_width)):
            for m, n in p.of("tokens").items():
                self.register_parameter(f"{name}_{m}", vector(width))
                self.register_buffer(f"{name}_{m}_places", torch.randn(n, width))

    def place(self, name: str, m: str, x: torch.Tensor) -> torch.Tensor:
        return x + getattr(self, f"{name}_{m}_places") + getattr(self, f"{name}_{m}")

    def fill(self, x: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        """All tokens in their order, with mask tokens in the gaps."""
        mask = self.mask.repeat(len(x), back.shape[1] - x.shape[1], 1).to(x.dtype)
        index = back[:, :, None].repeat(1, 1, x.shape[2])
        return torch.gather(torch.cat([x, mask], dim=1), 1, index)

    def forward(self, inputs: Tokens) -> torch.Tensor:
        kept, tokens, back, places = self.p.of("kept"), {}, {}, {}
        # The authors' layout: channels first, frequency in rows.
        images = {
            "audio": inputs["audio"].transpose(1, 2)[:, None],
            "video": inputs["video"][:, 0].permute(0, 3, 1, 2),
        }
        for m, image in images.items():
            x = self.patches[m](image).flatten(2).transpose(1, 2)
            order = draw(x)
            x = take(self.place("encoder", m, x), order[:, : kept[m]])
            tokens[m], back[m] = self.encoders[m](x), order.argsort(dim=1)
        x = self.norms["joint"](self.joint(torch.cat([*tokens.values()], dim=1)))
        own = {m: self.norms[m](self.joint(t, m)) for m, t in tokens.items()}
        weight, temperature, _ = self.p.contrast
        means = {m: t.mean(dim=1) for m, t in own.items()}
        loss = weight * info_nce(means["video"], means["audio"], temperature)
        parts = self.project(x).split(list(kept.values()), dim=1)
        for m, part in zip(MODALITIES, parts, strict=True):
            places[m] = self.place("decoder", m, self.fill(part, back[m]))
        x = self.decoder_norm(self.decoder(torch.cat([*places.values()], dim=1)))
        for m, part in zip(MODALITIES, x.split(self.p.tokens, dim=1), strict=True):
            channels = images[m].shape[1]
            target = functional.unfold(images[m], 16, stride=16).transpose(1, 2)
            target = standardized(target.unflatten(2, (channels, 256)).flatten(2))
            errors = ((self.heads[m](part) - target) ** 2).mean(dim=-1)
            masked = (back[m] >= kept[m]).float()
            loss = loss + (errors * masked).sum() / masked.sum()
        return loss


# --- Measuring ---


def build(args: argparse.Namespace) -> nn.Module:
    p = PRESETS[args.preset]
    if args.form == "authors" and not p.streams:
        raise SystemExit("error: --form authors is CAV-MAE's; use --form modern")
    if args.form == "authors" and args.embed:
        raise SystemExit("error: --embed has the modern form only")
    with torch.device("meta" if args.parameters else args.device):
        return (Authors if args.form == "authors" else Modern)(p)


def make_step(model: nn.Module, args: argparse.Namespace) -> Callable[..., Any]:
    half = args.precision == "mixed_bfloat16"
    if args.embed:
        embed = torch.compile(model.embed) if args.compile else model.embed

        @torch.inference_mode()
        def forward(inputs: Tokens) -> torch.Tensor:
            with torch.autocast(args.device, torch.bfloat16, enabled=half):
                return embed(inputs)[0, 0, 0]

        return forward
    trained = [w for w in model.parameters() if w.requires_grad]
    options = {"fused": True} if args.form == "modern" else {"weight_decay": 5e-7}
    adam = torch.optim.Adam(trained, 1e-4, betas=(0.95, 0.999), **options)
    # Of the whole loss, so that the compiler sees what the losses do not read.
    loss_of = torch.compile(model) if args.compile else model

    def step(inputs: Tokens) -> torch.Tensor:
        adam.zero_grad(set_to_none=True)
        with torch.autocast(args.device, torch.bfloat16, enabled=half):
            loss = loss_of(inputs)
        loss.backward()
        adam.step()
        return loss

    return step


def noise(preset: str, batch: int, device: str) -> Tokens:
    """A batch of spectrograms `(batch, time, 128)` and frames of 224 x 224 pixels."""
    p = PRESETS[preset]
    frames = p.tubelet * p.tokens[1] // 196
    return {
        "audio": torch.randn(batch, 2 * p.tokens[0], 128, device=device),
        "video": torch.randn(batch, frames, 224, 224, 3, device=device),
    }


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(work: Callable[[], Any], device: str, repeats: int) -> tuple[float, float]:
    """Wall seconds and processor seconds of one call of `repeats`, waited for once."""
    wait(device)
    start, start_busy = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work()
    wait(device)
    busy = time.process_time() - start_busy
    return (time.perf_counter() - start) / repeats, busy / repeats


def peak_memory(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def rows_of_batches(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each batch size; one that does not fit has `error` in it."""
    torch.set_float32_matmul_precision("high")  # as JAX does on a GPU
    model = build(args)
    trained = sum(w.numel() for w in model.parameters() if w.requires_grad)
    step = make_step(model, args)
    # A device's queue is kept full, as in training; on a CPU each step is seen.
    group = 5 if args.device == "cuda" else 1
    square = torch.ones(8192 if args.device == "cuda" else 2048, device=args.device)
    square = square.expand(len(square), -1).contiguous()
    if args.precision == "mixed_bfloat16":
        square = square.bfloat16()
    for batch in args.batch:
        row = {"preset": args.preset, "batch": batch, "form": args.form,
               "compiled": args.compile, "precision": args.precision,
               "embed": args.embed,
               "parameters": trained}  # fmt: skip
        try:
            if args.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            inputs = noise(args.preset, batch, args.device)
            row["first_step_s"], _ = measure(lambda x=inputs: step(x), args.device, 1)
            measure(lambda x=inputs: step(x), args.device, 1)
            row["peak_memory"] = peak_memory(args.device)
            found, rates = [], []
            for _ in range(args.steps):
                found.append(measure(lambda x=inputs: step(x), args.device, group))
                seconds, _ = measure(lambda: square @ square, args.device, group)
                rates.append(2 * len(square) ** 3 / seconds)
            row |= {
                "step_s": statistics.median(x for x, _ in found),
                "best_step_s": min(x for x, _ in found),
                "busy_s": statistics.median(x for _, x in found),
                "matmul_rates": [min(rates), statistics.median(rates), max(rates)],
            }
            row["clips_per_s"] = batch / row["step_s"]
            row["loss"] = float(step(inputs))
        except torch.OutOfMemoryError:
            row["error"] = "out of memory"
        yield row


def lines(row: dict[str, Any]) -> Iterator[str]:
    """A row as text."""
    compiled = "compiled" if row["compiled"] else "eager"
    form = "embed" if row["embed"] else row["form"]
    named = (form, compiled, f"batch {row['batch']}", row["precision"])
    yield f"{'preset':20}  {row['preset']}, {', '.join(named)}"
    yield f"{'parameters':20}  {row['parameters']:,} trained"
    if "error" in row:
        yield f"{'error':20}  {row['error']}"
        return
    yield f"{'first step':20}  {row['first_step_s']:.2f} s"
    best = f"({row['best_step_s']:.4f} at best)"
    yield f"{'median step':20}  {row['step_s']:.4f} s {best}"
    yield f"{'clips per second':20}  {row['clips_per_s']:,.2f}"
    yield f"{'processor time':20}  {row['busy_s']:.4f} s a step, over all cores"
    low, middle, high = (x / 1e9 for x in row["matmul_rates"])
    yield f"{'square matmul':20}  {middle:,.1f} GFLOP/s ({low:,.1f} to {high:,.1f})"
    yield f"{'peak memory':20}  {row['peak_memory'] / 2**30:.2f} GiB"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", choices=sorted(PRESETS), default="cav_mae_base")
    add("--form", choices=("modern", "authors"), default="modern")
    add("--compile", action="store_true", help="by torch.compile")
    add("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--batch", type=int, nargs="+", default=[4], metavar="N")
    add("--steps", type=int, default=10, metavar="N", help="timed rounds of steps")
    add("--embed", action="store_true", help="complete clips, forward; no training")
    add("--json", action="store_true", help="one line of JSON for each batch size")
    add("--parameters", action="store_true", help="only count them")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    if args.parameters:
        weights = build(args).parameters()
        print(sum(w.numel() for w in weights if w.requires_grad))
        return
    for row in rows_of_batches(args):
        text = [json.dumps(row)] if args.json else lines(row)
        print("\n".join(itertools.chain(text)), flush=True)


if __name__ == "__main__":
    main()
