"""Logistic regression on TF-IDF of n-grams of tokens, a part of the network.

N-grams are hashed into a fixed number of buckets: Weinberger et al.,
https://arxiv.org/abs/0902.2206. So the model reads the same tokens as the encoder, and needs
neither a vocabulary nor an input of its own.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Contract

BUCKETS = 2**15  # half or twice as many were not better on validation
INVERSE_PENALTY = 30.0  # `C` of the logistic regression; 10 was worse on validation, 100 level
MULTIPLIER, PRIME = 1_000_003, 2**31 - 1  # of the hash; their product fits into 64 bits


class NgramClassifier(nn.Module):
    """`tokens` (text, token) → logits (text, class), all equal before `fit`."""

    idf: Tensor
    coefficients: Tensor
    intercept: Tensor

    def __init__(self, contract: Contract, longest: int) -> None:
        super().__init__()
        self.pad, self.longest = contract.pad, longest
        self.register_buffer("idf", torch.zeros(BUCKETS))
        self.register_buffer("coefficients", torch.zeros(BUCKETS, len(contract.labels)))
        self.register_buffer("intercept", torch.zeros(len(contract.labels)))

    def fit(self, tokens: np.ndarray, labels: np.ndarray) -> None:
        """Fit to texts, `tokens` (text, token), and their classes (text,), none without a text."""
        from scipy.sparse import csr_matrix
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.linear_model import LogisticRegression

        buckets = self.buckets(torch.from_numpy(np.asarray(tokens))).numpy()
        rows, places = np.nonzero(buckets)
        ones = np.ones(len(rows))
        counts = csr_matrix((ones, (rows, buckets[rows, places])), shape=(len(tokens), BUCKETS))
        weighting = TfidfTransformer(sublinear_tf=True)
        inputs = weighting.fit_transform(counts)
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=500).fit(inputs, labels)
        # For two classes scikit-learn has one row: the log odds of the second.
        slopes, intercept = model.coef_, model.intercept_
        if len(slopes) == 1:
            slopes, intercept = np.r_[-slopes, slopes] / 2, np.r_[-intercept, intercept] / 2
        self.idf.copy_(torch.from_numpy(weighting.idf_))
        self.coefficients.copy_(torch.from_numpy(slopes.T))
        self.intercept.copy_(torch.from_numpy(intercept))

    def forward(self, tokens: Tensor) -> Tensor:
        buckets = self.buckets(tokens)
        # Each occurrence of an n-gram has its part of 1 + log(number of its occurrences).
        seen = torch.zeros(tokens.shape[0], BUCKETS, device=tokens.device)
        ones = torch.ones_like(buckets, dtype=seen.dtype)
        count = seen.scatter_add(1, buckets, ones).gather(1, buckets)
        weight = (buckets > 0) * self.idf[buckets] * (1 + count.log())
        norm = (weight.square() / count).sum(dim=1, keepdim=True).clamp(min=1e-9).sqrt()
        share = weight / count / norm
        return (share[:, :, None] * self.coefficients[buckets]).sum(dim=1) + self.intercept

    def buckets(self, tokens: Tensor) -> Tensor:
        """Return the bucket (text, n-gram) of each n-gram, from 1; 0 where the text has ended."""
        length, parts = tokens.shape[1], []
        padded = functional.pad(tokens, (0, self.longest - 1), value=self.pad)
        value = torch.zeros_like(tokens)
        for offset in range(self.longest):
            last = padded[:, offset : offset + length]
            value = (value * MULTIPLIER + last + 1) % PRIME
            parts.append(torch.where(last == self.pad, 0, 1 + value % (BUCKETS - 1)))
        return torch.cat(parts, dim=1)
