"""A batch that several networks share, in a graph.

In PyTorch the batch is divided. A graph could do that with indices, but then tensors have sizes that only
the images tell, batches of none among them, which runtimes plan badly or refuse. Running both networks on
everything and choosing would always cost twice as much. So each network is the body of an ``If`` that asks
whether the batch has any image for it: the usual batch, all grey or all in colour, runs one network once. A
mixed batch runs both on all images, whose numbers do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medzsad.detectors.prediction import Prediction, SlicePrediction

Network = Callable[[Tensor], Prediction | SlicePrediction]


def by_conditions(inputs: Tensor, chosen: Tensor, networks: Sequence[Network]) -> Prediction:
    """Do in a graph what :func:`~medzsad.detectors.prediction.divided` does, with maps of half the size.

    Args:
        inputs: float32 (B, 3, S, S).
        chosen: int64 (B,), 1 for images of the second network.
        networks: the first and the second.
    """
    is_second = chosen.bool()
    second = torch.cond(is_second.any(), _body(networks[1]), _nothing, (inputs,))
    first = torch.cond((~is_second).any(), _body(networks[0]), _nothing, (inputs,))
    return Prediction(
        *(
            torch.where(is_second.view(-1, *[1] * (one.ndim - 1)), one, other)
            for one, other in zip(second, first, strict=True)
        )
    )


def _body(network: Network) -> Callable[[Tensor], tuple[Tensor, ...]]:
    def run(inputs: Tensor) -> tuple[Tensor, ...]:
        # Branches of torch.cond must neither share memory with their inputs nor differ in strides.
        return tuple(value.contiguous().clone() for value in network(inputs))

    return run


def _nothing(inputs: Tensor) -> tuple[Tensor, ...]:
    """Zeros of the shapes that :func:`_body` gives, for a network that no image is for."""
    none = inputs[:, 0, 0, 0] * 0
    return (inputs[:, 0, ::2, ::2] * 0).contiguous(), none, none.clone()
