"""BatchNorm's running statistics as one process would have them, however many processes share a step.

One process updates them after each micro-batch, in order. Of several, each sees some of the micro-batches only, and its
running statistics would be its own. So each notes what its micro-batches had, and all fold all notes in one order.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Note = Callable[[], None]


@contextmanager
def shared_statistics(model: nn.Module, accelerator: Accelerator) -> Iterator[Note]:
    """Around the micro-batches of one step; call what it yields after each of this process's forward passes.

    Micro-batch j of the step is number j // W of process j mod W. Afterwards every process has the same statistics.
    Layers in evaluation mode are left alone. With one process nothing is done: the layers do it themselves.
    """
    layers: list[Any] = [
        layer
        for layer in model.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.training
    ]
    if accelerator.num_processes == 1 or not layers:
        yield lambda: None
        return
    running, momenta, noted = _flat(layers), [layer.momentum for layer in layers], list[Tensor]()
    counts = torch.stack([layer.num_batches_tracked for layer in layers]).tolist()
    for layer in layers:
        layer.momentum = 1.0  # a forward pass then leaves the batch's own mean and variance in the buffers
    try:
        yield lambda: noted.append(_flat(layers))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

    gathered = accelerator.gather(torch.stack(noted)).unflatten(0, (accelerator.num_processes, len(noted)))
    batches = gathered.transpose(0, 1).flatten(0, 1)  # (micro-batches, statistics), in the order of j
    sizes = [2 * layer.num_features for layer in layers]
    for place, batch in enumerate(batches, start=1):
        shares = [
            1 / (count + place) if momentum is None else momentum
            for count, momentum in zip(counts, momenta, strict=True)
        ]
        share = torch.tensor(shares, dtype=torch.float64).repeat_interleave(torch.tensor(sizes)).to(running.device)
        running = (share * batch + (1 - share) * running).to(batch.dtype)  # rounded once, as torch does it
    for layer, count, values in zip(layers, counts, running.split(sizes), strict=True):
        mean, variance = values.chunk(2)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
        layer.num_batches_tracked.fill_(count + len(batches))


def _flat(layers: list[Any]) -> Tensor:
    """A copy of all means and variances, one behind the other."""
    return torch.cat([buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)])
