"""The network of LLM-TOPLA: from the members' concatenated probabilities to the answer.

Reference: arXiv 2410.03953, section 3.2: two hidden layers of 100 units, cross-entropy, Adam with a rate of 1e-3,
batches of 64, 300 epochs, the epoch with the best validation kept. Three things differ from its published code: no
sigmoid or softmax stands before the cross-entropy, which has one already; the rows to validate on are not trained on;
a question whose right answer no member gave is trained on, where it is an option, and counts as wrong where it is not.
"""

from typing import cast

import numpy as np

from fusion.schema import BoolArray, FloatArray, IntArray

HIDDEN = 100
MOST_OPTIONS = 30
"""Answers to an open question beyond so many, by mass, are not read."""

_EPOCHS, _BATCH, _RATE = 300, 64, 1e-3
_VALIDATE_EVERY = 10
"""One question in so many is validated on, not trained on."""


def shapes(num_inputs: int, num_options: int) -> list[tuple[int, int]]:
    """Return the shapes of the three layers, a row for the bias included."""
    return [(num_inputs + 1, HIDDEN), (HIDDEN + 1, HIDDEN), (HIDDEN + 1, num_options)]


def scores(inputs_NI: FloatArray, parameters: FloatArray, num_options: int) -> FloatArray:
    """Return the score of every option, float32 [N, K].

    Args:
        inputs_NI: What the members say.
        parameters: float32, of all layers one after another.
        num_options: K.
    """
    hidden = np.asarray(inputs_NI, dtype=np.float32)
    start = 0
    sizes = shapes(inputs_NI.shape[1], num_options)
    for layer, (rows, columns) in enumerate(sizes):
        weights = parameters[start : start + rows * columns].reshape(rows, columns)
        hidden = hidden @ weights[:-1] + weights[-1]
        hidden = np.maximum(hidden, 0) if layer < len(sizes) - 1 else hidden
        start += rows * columns
    return hidden


def train(inputs_NI: FloatArray, labels_N: IntArray, valid_NK: BoolArray, *, seed: int) -> FloatArray:
    """Return the parameters of the epoch that is best on one row in ten; see `scores`.

    Args:
        inputs_NI: What the members say.
        labels_N: The right options.
        valid_NK: Which options each question has.
        seed: Of the first weights and of the order of the rows.
    """
    import torch

    threads = torch.get_num_threads()
    # On matrices as small as these, threads only wait for each other.
    torch.set_num_threads(1)
    try:
        return _train(inputs_NI, labels_N, valid_NK, seed)
    finally:
        torch.set_num_threads(threads)


def _train(inputs_NI: FloatArray, labels_N: IntArray, valid_NK: BoolArray, seed: int) -> FloatArray:
    import torch

    generator = torch.Generator().manual_seed(seed)
    sizes = shapes(inputs_NI.shape[1], valid_NK.shape[1])
    layers = []
    for rows, columns in sizes:
        bound = (rows - 1) ** -0.5
        layers.append(((torch.rand(rows, columns, generator=generator) * 2 - 1) * bound).requires_grad_())
    inputs = torch.tensor(inputs_NI, dtype=torch.float32)
    labels = torch.tensor(labels_N)
    closed = torch.tensor(~valid_NK)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        hidden = inputs[rows]
        for layer in layers[:-1]:
            hidden = torch.relu(hidden @ layer[:-1] + layer[-1])
        logits = (hidden @ layers[-1][:-1] + layers[-1][-1]).masked_fill(closed[rows], -1e9)
        return torch.nn.functional.cross_entropy(logits, labels[rows])

    every = torch.arange(len(labels))
    validated = every % _VALIDATE_EVERY == _VALIDATE_EVERY - 1 if len(labels) >= _VALIDATE_EVERY else every < 0
    trained, checked = every[~validated], every[validated]
    optimizer = torch.optim.Adam(layers, lr=_RATE, fused=True)
    best, kept = np.inf, [layer.detach().clone() for layer in layers]
    for _ in range(_EPOCHS if len(trained) else 0):
        for batch in torch.split(trained[torch.randperm(len(trained), generator=generator)], _BATCH):
            optimizer.zero_grad()
            torch.autograd.backward(loss_of(batch))
            optimizer.step()
        with torch.no_grad():
            loss = float(loss_of(checked if len(checked) else trained))
        if loss < best:
            best, kept = loss, [layer.detach().clone() for layer in layers]
    return cast("FloatArray", torch.cat([layer.reshape(-1) for layer in kept]).numpy())
