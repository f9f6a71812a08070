"""The processes that train one model together: who they are, and what they tell each other.

Lightning Fabric joins them, on one machine or several, under the variables that torchrun sets; one
process alone is a group of one, and then nothing here communicates. Everything else in `training`
is written for one process that is handed some places of each batch.
"""

import atexit
import contextlib
import logging
import os
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Value = TypeVar("Value")

GRADIENTS_AT_ONCE = 2**25
"""Values averaged in one message: 128 MB of single precision beside the gradients themselves."""

MEETING_SECONDS = 600.0
"""How long processes wait for each other at the start."""


class LostProcesses(ConnectionError):
    """Another process of the group ended; what ended it is told by that one or its launcher."""


class OneProcessFailed(ValueError):
    """What one process of a group ran into, which the others do not know of."""


def is_first() -> bool:
    """Whether this process writes and reports: it is alone, or torchrun's rank 0."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Let only one process of a group tell a failure.

    That is the first one for what all run into, and for what one alone ran into that one. Of a
    lost process its launcher tells.
    """
    try:
        yield
    except LostProcesses:
        raise SystemExit(1) from None
    except OneProcessFailed:
        raise
    except (ValueError, OSError, KeyboardInterrupt):
        if is_first():
            raise
        raise SystemExit(1) from None


def join(device: str) -> "Processes":
    """This process in its group: that of torchrun under torchrun, otherwise alone.

    Args:
        device: `cpu`, `cuda`, ...; in a group each process takes the GPU of its local rank.

    Raises:
        ValueError: If one GPU is named for several processes.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind, _, index = device.partition(":")
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        devices = [int(index)] if index and kind != "cpu" else 1
        return Processes(Fabric(accelerator=kind, devices=devices, plugins=LightningEnvironment()))
    here, everywhere = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if index and here > 1:
        raise ValueError(f"{here} processes cannot share {device}; give --device {kind}")
    fabric = Fabric(
        accelerator=kind,
        devices=here,
        num_nodes=everywhere // here,
        strategy="ddp",
        plugins=TorchElasticEnvironment(),
    )
    with _told_of_losses():
        _meet(str(fabric.device))
        fabric.launch()
    return Processes(fabric)


def _meet(device: str) -> None:
    """Make the process group, under a name that only the processes now alive have agreed on.

    A restarted group meets at the same store as the one before it (torch 2.13, when torchrun keeps
    the store), and would otherwise find there the addresses of dead processes.
    """
    store, rank, count = next(rendezvous("env://"))
    name = agreed_name(store, rank, count)
    gpu = device.startswith("cuda")
    if gpu:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "nccl" if gpu else "gloo",
        store=PrefixStore(name, store),
        rank=rank,
        world_size=count,
    )
    if gpu:
        atexit.register(torch.distributed.destroy_process_group)  # NCCL warns without it


def agreed_name(store: torch.distributed.Store, rank: int, count: int) -> str:
    """A fresh name that every process of a group learns, whatever earlier groups left in the store.

    Each process but the first calls; the first answers every call it finds, also one of a dead
    process, with that call and the group's name, until all have come in under that name. A process
    takes only an answer to its own call.

    Raises:
        LostProcesses: If the others do not come in `MEETING_SECONDS`.
    """
    own = uuid4().hex
    others, until = set(range(1, count)), time.monotonic() + MEETING_SECONDS
    while time.monotonic() < until:
        if rank == 0:
            for other in others:
                if store.check([f"call {other}"]):
                    store.set(f"answer {other}", store.get(f"call {other}").decode() + own)
            others = {other for other in others if not store.check([f"{own} {other}"])}
            if not others:
                return own
        else:
            store.set(f"call {rank}", own)
            answer = store.get(f"answer {rank}").decode() if store.check([f"answer {rank}"]) else ""
            if answer.startswith(own):
                name = answer.removeprefix(own)
                store.set(f"{name} {rank}", "in")
                return name
        time.sleep(0.01)
    raise LostProcesses("the other processes of this run did not come")


class Processes:
    """A process and its group."""

    def __init__(self, fabric: "Fabric") -> None:
        """Stand for a process that Fabric has launched."""
        self.fabric = fabric
        self.rank: int = fabric.global_rank
        self.count: int = fabric.world_size

    @property
    def device(self) -> str:
        """Where this process computes."""
        return str(self.fabric.device)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when every process has come here."""
        with _told_of_losses():
            self.fabric.barrier()

    def of_first(self, value: Value) -> Value:
        """The first process's value, on every process."""
        with _told_of_losses():
            return self.fabric.broadcast(value)

    def gathered(
        self, values: Shaped[Tensor, "batch *shape"]
    ) -> Shaped[Tensor, "all_batches *shape"]:
        """The values of all processes in the order of their ranks; gradients flow back to each.

        Every process computes the same from what it gets, and so sends back the same gradient.
        Their sum, which each receives for its own values, is the number of processes times too
        large; `average_gradients` divides by it.
        """
        if self.count == 1:
            return values
        with _told_of_losses(), warnings.catch_warnings():
            # Fabric 2.6 gathers by a function that torch 2.13 calls deprecated.
            warnings.simplefilter("ignore", FutureWarning)
            of_ranks = self.fabric.all_gather(values, sync_grads=True)
        assert isinstance(of_ranks, Tensor), "a tensor in, a tensor out"
        return of_ranks.flatten(0, 1)

    def sum(self, *numbers: float) -> list[float]:
        """Each number's sum over the processes."""
        if self.count == 1:
            return list(numbers)
        together = torch.tensor(numbers, dtype=torch.float32, device=self.device)
        with _told_of_losses():
            self.fabric.all_reduce(together, reduce_op="sum")  # in place
        return together.tolist()

    def mean(self, figures: dict[str, float]) -> dict[str, float]:
        """Each figure's mean over the processes, all of which have the same names of figures."""
        sums = self.sum(*figures.values())
        return {name: value / self.count for name, value in zip(figures, sums, strict=True)}

    @torch.no_grad()
    def average(self, values: Tensor) -> Tensor:
        """The mean over the processes, without gradient."""
        if self.count == 1:
            return values
        together = values.detach().clone()
        with _told_of_losses():
            self.fabric.all_reduce(together, reduce_op="mean")  # in place
        return together

    @torch.no_grad()
    def average_gradients(self, module: nn.Module) -> None:
        """Replace the gradients of this process by the mean over the processes.

        After the backward pass and not during it (as DDP does): the loss of a stage is no forward
        pass of one module, some heads get no gradient in some stages, and gradients that are added
        in the same order after a restart make it exact.
        """
        if self.count == 1:
            return
        gradients = [value.grad for value in module.parameters() if value.grad is not None]
        for some in _together(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in some])
            with _told_of_losses():
                self.fabric.all_reduce(flat, reduce_op="mean")
            pieces = flat.split([gradient.numel() for gradient in some])
            for gradient, piece in zip(some, pieces, strict=True):
                gradient.copy_(piece.view(gradient.shape))

    def was_restarted(self) -> bool:
        """Whether torchrun has started the group anew after the loss of a process."""
        (restarts,) = self.sum(float(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))
        return restarts > 0


def _together(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in turn, as many at once as one message takes."""
    some: list[Tensor] = []
    for gradient in gradients:
        if some and sum(one.numel() for one in some) + gradient.numel() > GRADIENTS_AT_ONCE:
            yield some
            some = []
        some.append(gradient)
    if some:
        yield some


@contextlib.contextmanager
def _told_of_losses() -> Iterator[None]:
    """Tell the loss of another process apart from a defect."""
    try:
        yield
    except RuntimeError as error:
        if is_loss(error):
            raise LostProcesses("another process of this run was lost") from error
        raise


def is_loss(error: RuntimeError) -> bool:
    """Whether torch says by this error that another process cannot be reached."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
