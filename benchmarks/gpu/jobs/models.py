"""The models that the experiments train; each a function to a module, and a function to (inputs -> loss)."""

import itertools

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.one, self.two = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, w = x.shape
        q, k, v = self.qkv(self.one(x)).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, w)
        )
        return x + self.down(F.gelu(self.up(self.two(x))))


class Gpt(nn.Module):
    def __init__(self, layers, width, heads, vocabulary=8192, length=512):
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.last, self.vocabulary, self.length = nn.LayerNorm(width), vocabulary, length

    def forward(self, tokens):
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        return F.linear(self.last(self.blocks(x)), self.token.weight)


def build(name):
    """A module on the device and the shape of its batch."""
    with torch.device("cuda"):
        if name == "mlp":
            return nn.Sequential(*[m for _ in range(8) for m in (nn.Linear(4096, 4096), nn.GELU())]), (
                512,
                4096,
            )
        if name == "small":
            return nn.Sequential(*[m for _ in range(24) for m in (nn.Linear(128, 128), nn.GELU())]), (32, 128)
        if name == "cnn":
            widths = [3, 64, 128, 256, 512, 512]
            layers = [
                m
                for a, b in itertools.pairwise(widths)
                for m in (
                    nn.Conv2d(a, b, 3, stride=2 if b > 64 else 1, padding=1),
                    nn.BatchNorm2d(b),
                    nn.ReLU(),
                )
            ]
            return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)), (
                256,
                3,
                96,
                96,
            )
        layers, width, heads, batch = {"gpt": (12, 768, 12, 8), "gpt-large": (24, 1024, 16, 16)}[name]
        return Gpt(layers, width, heads), (batch, 512)


def batch(name, shape, generator):
    if name.startswith("gpt"):
        return torch.randint(0, 8192, (shape[0], shape[1] + 1), device="cuda", generator=generator)
    return torch.randn(shape, device="cuda", generator=generator)


def loss(name, net, x):
    if name.startswith("gpt"):
        with torch.autocast("cuda", torch.bfloat16):
            logits = net(x[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), x[:, 1:].flatten())
    if name == "cnn":
        with torch.autocast("cuda", torch.bfloat16):
            y = net(x)
        return F.cross_entropy(y.float(), torch.arange(x.shape[0], device="cuda") % 1000)
    return (net(x) - x).pow(2).mean()


def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = True
