"""A training step by its parts: what `training_step.py` times and counts."""

import contextlib
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fewview.training.batches import shares
from fewview.training.examples import Body, ExampleKey
from fewview.training.loop import Averages, Stage
from fewview.training.memory import explained, recomputing
from fewview.training.optimizer import new_optimizer
from fewview.training.processes import Processes
from fewview.training.source import TrainingSource
from fewview.training.views import ViewBatch

PARTS = ("data", "forward", "backward", "optimizer")
GIB = 2**30


@dataclass
class Clock:
    """Seconds by part; waits for the GPU at each reading."""

    device: str
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add the time of the body to a part."""
        began = self.now()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + self.now() - began

    def now(self) -> float:
        """Seconds, with nothing left to do on the device."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class TimedSource(TrainingSource):
    """A source whose examples, views and noise are timed as data."""

    clock: Clock

    def body(self, key: ExampleKey) -> Body:
        """As the source's."""
        with self.clock.of("data"):
            return super().body(key)

    def target(self, body: Body) -> Tensor:
        """As the source's."""
        with self.clock.of("data"):
            return super().target(body)

    def views(self, bodies: list[Body], places: range, *seeds: int) -> ViewBatch:
        """As the source's."""
        with self.clock.of("data"):
            return super().views(bodies, places, *seeds)

    def noise(self, shape: Sequence[int], places: range, *seeds: int) -> Tensor:
        """As the source's."""
        with self.clock.of("data"):
            return super().noise(shape, places, *seeds)


def timed_steps(
    stage: Stage, processes: Processes, clock: Clock, num_steps: int
) -> dict[str, object]:
    """Medians of the parts of a step, peak memory and operations; the first steps do not count."""
    module, config = stage.module.train(), stage.config
    optimizer = new_optimizer(module, replace(config, learning_rate=1e-9))
    averages = Averages(module, config.ema_decay)
    places = shares(config, stage.name, processes)
    again = recomputing(module) if config.checkpointing else contextlib.nullcontext()
    times: list[dict[str, float]] = []
    with explained(config, stage.name, processes), again:
        with FlopCounterMode(display=False) as counter:
            one_step(stage, places, clock, 0)
        for step in range(num_steps + 1):
            clock.seconds.clear()
            one_step(stage, places, clock, step)
            with clock.of("optimizer"):
                torch.nn.utils.clip_grad_norm_(module.parameters(), config.max_grad_norm)
                optimizer.step()
                averages.update(module, step)
            times.append(dict(clock.seconds))
    figures: dict[str, object] = {
        part: statistics.median(one.get(part, 0.0) for one in times[1:]) for part in PARTS
    }
    figures["step"] = statistics.median(sum(one.values()) for one in times[1:])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if clock.device.startswith("cuda"):
        memory = torch.cuda.max_memory_allocated(clock.device)
    batch = f"{config.batch_size}" + (f" in {config.accumulate}" if config.accumulate > 1 else "")
    flops = counter.get_total_flops()
    return {
        **figures,
        "examples": config.batch_size,
        "batch": batch,
        "gib": memory / GIB,
        "flops": flops,
    }


def one_step(stage: Stage, places: list[range], clock: Clock, step: int) -> None:
    """Forward and backward over the micro-batches of a step; what data took is no forward time."""
    stage.module.zero_grad(set_to_none=True)
    for some in places:
        before = clock.seconds.get("data", 0.0)
        with clock.of("forward"):
            loss, _ = stage.step_loss(step, some)
        clock.seconds["forward"] -= clock.seconds.get("data", 0.0) - before
        with clock.of("backward"):
            (loss / len(places)).backward()
