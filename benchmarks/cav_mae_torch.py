"""Baseline: one training step of the default CAV-MAE in plain PyTorch.

    pip install torch && python benchmarks/cav_mae_torch.py --batch 4

Our own writing of the paper and of what the authors' code does (YuanGongND/cav-mae),
with the operations that it uses: timm 0.4.5's attention as separate matmuls,
`LayerNorm`, exact GELU, gathers that drop tokens and put them back, Adam with L2. The
weights are random; arithmetic and memory are those of the authors' model. Prints rows
of `step_time.py`.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

# Sizes of the paper: ViT-Base, a decoder of width 512, 75 % of 512 audio and of 196
# video tokens masked, patches of 16 x 16 values and of 16 x 16 pixels in 3 channels.
WIDTH, DECODER_WIDTH, KEPT = 768, 512, {"audio": 128, "video": 49}
TOKENS, VALUES = {"audio": 512, "video": 196}, {"audio": 256, "video": 768}
CHANNELS = {"audio": 1, "video": 3}
STREAMS = ("joint", "audio", "video")


class Block(nn.Module):
    """Pre-norm transformer block with a pair of layer norms for each stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = (
            nn.ModuleDict({s: nn.LayerNorm(width) for s in STREAMS}) for _ in range(2)
        )
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        # Not `scaled_dot_product_attention`: timm 0.4.5 is older and keeps matrices,
        # and the baseline is what the authors' code costs, not what it could.
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = (query @ key.transpose(-2, -1)) * (width // self.heads) ** -0.5
        x = (scores.softmax(dim=-1) @ value).transpose(1, 2)
        return self.projection(x.reshape(batch, tokens, width))

    def forward(self, x: torch.Tensor, stream: str = "joint") -> torch.Tensor:
        x = x + self.attend(self.norm_1[stream](x))
        hidden = functional.gelu(self.expand(self.norm_2[stream](x)))
        return x + self.contract(hidden)


class CAVMAE(nn.Module):
    """The paper's default: 11 + 1 layers, a joint decoder of 8, 191 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.ModuleDict(
            {m: nn.Conv2d(c, WIDTH, 16, 16) for m, c in CHANNELS.items()}
        )
        self.encoders = nn.ModuleDict(
            {m: nn.Sequential(*(Block(WIDTH, 12) for _ in range(11))) for m in TOKENS}
        )
        self.joint = Block(WIDTH, 12)
        self.norms = nn.ModuleDict({s: nn.LayerNorm(WIDTH) for s in STREAMS})
        self.project = nn.Linear(WIDTH, DECODER_WIDTH)
        self.decoder = nn.Sequential(*(Block(DECODER_WIDTH, 16) for _ in range(8)))
        self.decoder_norm = nn.LayerNorm(DECODER_WIDTH)
        self.heads = nn.ModuleDict(
            {m: nn.Linear(DECODER_WIDTH, n) for m, n in VALUES.items()}
        )
        self.mask = nn.Parameter(0.02 * torch.randn(1, 1, DECODER_WIDTH))
        for name, width in (("encoder", WIDTH), ("decoder", DECODER_WIDTH)):
            for m, n in TOKENS.items():
                modality = nn.Parameter(0.02 * torch.randn(1, 1, width))
                self.register_parameter(f"{name}_{m}", modality)
                self.register_buffer(f"{name}_{m}_place", torch.randn(1, n, width))

    def place(self, name: str, modality: str, x: torch.Tensor) -> torch.Tensor:
        """Adds the positions and the modality embedding of encoder or decoder."""
        place = getattr(self, f"{name}_{modality}_place")
        return x + place + getattr(self, f"{name}_{modality}")

    def keep(self, modality: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The visible tokens, and the rank of every token in the order of its noise."""
        order = torch.rand(x.shape[:2]).argsort(dim=1)
        kept = order[:, : KEPT[modality], None].repeat(1, 1, x.shape[2])
        return torch.gather(x, 1, kept), order.argsort(dim=1)

    def fill(self, x: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        """All tokens in their order, with mask tokens in the gaps."""
        mask = self.mask.repeat(len(x), back.shape[1] - x.shape[1], 1)
        index = back[:, :, None].repeat(1, 1, x.shape[2])
        return torch.gather(torch.cat([x, mask], dim=1), 1, index)

    def encode(
        self, inputs: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[torch.Tensor]]:
        """Joint tokens, ranks and the mean token of each modality."""
        tokens, back = {}, {}
        for m, x in inputs.items():
            x = self.patches[m](x).flatten(2).transpose(1, 2)
            x, back[m] = self.keep(m, self.place("encoder", m, x))
            tokens[m] = self.encoders[m](x)
        joint = self.joint(torch.cat([tokens["audio"], tokens["video"]], dim=1))
        means = [self.norms[m](self.joint(x, m)).mean(dim=1) for m, x in tokens.items()]
        return self.norms["joint"](joint), back, means

    def decode(
        self, x: torch.Tensor, back: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Predictions `(batch, tokens, values)` of each modality."""
        parts = self.project(x).split(list(KEPT.values()), dim=1)
        parts = [
            self.place("decoder", m, self.fill(part, back[m]))
            for m, part in zip(TOKENS, parts, strict=True)
        ]
        x = self.decoder_norm(self.decoder(torch.cat(parts, dim=1)))
        parts = zip(TOKENS, x.split(list(TOKENS.values()), dim=1), strict=True)
        return {m: self.heads[m](part) for m, part in parts}

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        x, back, means = self.encode(inputs)
        loss = 0.01 * contrast(*means)
        for m, prediction in self.decode(x, back).items():
            masked = (back[m] >= KEPT[m]).float()
            errors = ((prediction - targets(inputs[m])) ** 2).mean(dim=-1)
            loss = loss + (errors * masked).sum() / masked.sum()
        return loss


def targets(x: torch.Tensor) -> torch.Tensor:
    """Standardised patches `(batch, tokens, values)`."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // 16, 16, width // 16, 16)
    x = torch.einsum("nchpwq->nhwpqc", x).reshape(batch, -1, 256 * channels)
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()


def contrast(audio: torch.Tensor, video: torch.Tensor) -> torch.Tensor:
    """Equation (7): each video against the audio of the batch, temperature 0.05."""
    audio, video = (functional.normalize(x, dim=-1) for x in (audio, video))
    return -functional.log_softmax(audio @ video.T / 0.05, dim=0).diag().mean()


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall time and median processor time, in seconds, after a warm-up call."""
    seconds, busy = [], []
    for _ in range(repeats + 1):
        start, start_busy = time.perf_counter(), time.process_time()
        work()
        busy.append(time.process_time() - start_busy)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), statistics.median(busy[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, metavar="N")
    parser.add_argument("--steps", type=int, default=10, metavar="N")
    args = parser.parse_args()
    # Just before the steps, to know how fast the machine is at the time.
    square = torch.ones(2048, 2048)
    matmul, matmul_busy = measure(lambda: square @ square, 5)
    model = CAVMAE()
    weights = list(model.parameters())
    adam = torch.optim.Adam(weights, 1e-4, betas=(0.95, 0.999), weight_decay=5e-7)
    inputs = {"audio": torch.randn(args.batch, 1, 128, 1024)}
    inputs["video"] = torch.randn(args.batch, 3, 224, 224)

    def step() -> None:
        loss = model(inputs)
        adam.zero_grad()
        loss.backward()
        adam.step()

    seconds, busy = measure(step, args.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"parameters            {sum(w.numel() for w in weights):,} trained")
    print(f"median step           {seconds:.4f} s of {args.steps}")
    print(f"processor time        {busy:.4f} s a step, over all cores")
    print(f"matmul rate           {2 * 2048**3 / matmul / 1e9:,.1f} GFLOP/s, or")
    print(
        f"                      {2 * 2048**3 / matmul_busy / 1e9:,.1f} in its own time"
    )
    print(f"peak memory           {peak:.2f} GiB")


if __name__ == "__main__":
    main()
