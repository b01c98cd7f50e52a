"""Our own transformer encoder: a vector for each token."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Contract
from .settings import ModelSettings

GROUP_SIZE = 16  # texts of similar length that are computed together


class Attention(nn.Module):
    """Multi-head self-attention. Vaswani et al., https://arxiv.org/abs/1706.03762"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_in, self.project_out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attend over `x` (text, token, width); `mask` (text, 1, 1, token) is true at tokens."""
        count, length, width = x.shape
        split = self.project_in(x).view(count, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.project_out(mixed.transpose(1, 2).reshape(count, length, width))


class Block(nn.Module):
    """A pre-norm transformer block: attention and feed-forward, each with a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm_attention(x), mask))
        return x + self.drop(self.feed(self.norm_feed(x)))


class Encoder(nn.Module):
    """`tokens` (text, token) → a vector for each (text, token, width)."""

    def __init__(self, contract: Contract, settings: ModelSettings) -> None:
        super().__init__()
        self.pad, self.width = contract.pad, settings.width
        self.word = nn.Embedding(contract.vocabulary, settings.width)
        self.place = nn.Embedding(contract.max_tokens, settings.width)
        # Small embeddings, because pre-training predicts words with the same weights: larger ones
        # would start with confident mistakes. The blocks add numbers of the usual size, beside
        # which small embeddings would be lost; hence the scale.
        self.scale = math.sqrt(settings.width)
        for embedding in (self.word, self.place):
            nn.init.normal_(embedding.weight, std=0.04)
        self.drop = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            Block(settings.width, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.width)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.scale * (self.word(tokens) + self.place(places)))
        mask = (tokens != self.pad)[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


def group_by_length(tokens: Tensor, pad: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (rows, their tokens) of texts of similar length, without columns of `pad` only.

    Half of a shuffled batch is padding; computed in such groups it costs half as much.
    """
    lengths = (tokens != pad).sum(dim=1)
    for rows in lengths.argsort(stable=True).split(GROUP_SIZE):
        yield rows, tokens[rows, : int(lengths[rows[-1]])]
