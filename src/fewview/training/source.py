"""Where a run's examples come from: the train split, augmented; the val split, as it is."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fewview.data.store import CaseInfo, Store
from fewview.regressor import AnySystem
from fewview.training.examples import (
    Body,
    BodyCache,
    ExampleKey,
    ScanCache,
    augment,
    generator_of,
    on_model_grid,
    uniform,
)
from fewview.training.processes import Processes
from fewview.training.stage_config import ExamplesConfig
from fewview.training.views import (
    ViewBatch,
    draw_num_views,
    draw_view_batch,
    project_body,
    standard_geometries,
    view_batch,
)
from fewview.transfer.style import StyleConfig

log = logging.getLogger("fewview.training")

SMALLEST_BFLOAT16 = 32
"""Voxels along an axis. The deepest features of smaller grids are smaller than a kernel, and there
oneDNN (torch 2.13, CPUs with AVX512-BF16) writes past the end of bfloat16 weight gradients."""


def is_phantom(case: CaseInfo) -> bool:
    """Whether a case was made by `fewview phantom`, by the name its folders have."""
    return "case_" in case.id


@dataclass(frozen=True, eq=False)
class TrainingSource:
    """Examples of a store for one run; every draw follows from the run's seed."""

    system: AnySystem | StyleConfig
    training: ExamplesConfig
    store: Store
    scans: ScanCache
    processes: Processes
    bodies: BodyCache = field(default_factory=BodyCache)
    """Copies of this run."""

    @property
    def device(self) -> str:
        """Where this process computes."""
        return self.processes.device

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The precision of the run's forward passes; single on grids too small for bfloat16."""
        small = self.system.grid.size < SMALLEST_BFLOAT16
        if small or self.training.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.split(":")[0], torch.bfloat16)

    def keys(self) -> list[ExampleKey]:
        """The augmented copies of the run: scans in turn, phantoms at their share."""
        cases = self.store.of_split("train")
        phantoms = [case for case in cases if is_phantom(case)]
        scans = [case for case in cases if not is_phantom(case)]
        generator = generator_of(self.training.seed, 1)
        keys = []
        for index in range(self.training.num_examples):
            from_phantoms = uniform(generator, 0.0, 1.0) < self.training.phantom_share
            pool = (phantoms or scans) if from_phantoms else (scans or phantoms)
            keys.append(ExampleKey(pool[index % len(pool)].id, index))
        return keys

    def warn_of_unused(self) -> None:
        """Say if there are fewer copies than cases to copy: some are then in no stage."""
        count, share = self.training.num_examples, self.training.phantom_share
        every = self.store.of_split("train")
        # A kind with no share is left out on purpose, but for the only one that there is.
        cases = [case for case in every if (share > 0.0 if is_phantom(case) else share < 1.0)]
        cases = cases or every
        if self.processes.first and count < len(cases):
            used = {key.case for key in self.keys()}
            log.warning(
                "num_examples is %d, but there are %d cases to train on: %d of them are in no "
                "stage; raise num_examples",
                count,
                len(cases),
                len(cases) - len(used),
            )

    def body(self, key: ExampleKey) -> Body:
        """The augmented body of a copy."""

        def made() -> Body:
            return augment(
                self.scans.read(key.case),
                self.training.augmentation,
                generator_of(self.training.seed, 2, key.seed),
                max_height_mm=self.system.grid.extent_mm,
            )

        # Stages that never meet a body twice draw seeds beyond the copies of the run.
        is_copy = key.seed < self.training.num_examples
        return self.bodies.get(key, made) if is_copy else made()

    def target(self, body: Body) -> Float[Tensor, "1 1 depth height width"]:
        """The body on the model grid, in [-1, 1]."""
        grid = self.system.grid
        return grid.to_unit(on_model_grid(body, grid)).to(self.device)

    def draw(self, count: int, num_keys: int, *seeds: int) -> list[int]:
        """Indices of `count` different copies for one step."""
        generator = generator_of(self.training.seed, *seeds)
        return torch.randperm(num_keys, generator=generator)[:count].tolist()

    def views(self, bodies: list[Body], places: range, *seeds: int) -> ViewBatch:
        """Fresh views of the bodies at some places of a step's batch; all have as many."""
        num_views = draw_num_views(self.system.views, generator_of(self.training.seed, *seeds))
        generators = [generator_of(self.training.seed, *seeds, place) for place in places]
        return self._moved(
            draw_view_batch(
                bodies,
                num_views,
                self.system.views,
                self.training.augmentation,
                self.system.grid,
                generators,
            )
        )

    def noise(
        self, shape: Sequence[int], places: range, *seeds: int
    ) -> Float[Tensor, "place *shape"]:
        """Normal noise of a shape for each of some places of a step's batch."""
        drawn = [
            torch.randn(*shape, generator=generator_of(self.training.seed, *seeds, place))
            for place in places
        ]
        return torch.stack(drawn).to(self.device)

    def gathered(
        self, values: Shaped[Tensor, "batch *shape"]
    ) -> Shaped[Tensor, "all_batches *shape"]:
        """The values of all processes for one micro-batch, in the order of their places.

        Gradients flow back to each process; see `Processes.gathered`.
        """
        return self.processes.gathered(values)

    def held_out(self) -> Iterator[Body]:
        """This process's share of the val split as stored, one case after the other."""
        for case in self.store.of_split("val")[self.processes.rank :: self.processes.count]:
            yield self.scans.read(case.id, keep=False)

    def validation_targets(self) -> Iterator[Float[Tensor, "1 1 depth height width"]]:
        """This process's share of the val split as `validation` has it, without views."""
        for body in self.held_out():
            yield self.target(body)

    def validation(self, num_views: int = 2) -> Iterator[tuple[Tensor, ViewBatch]]:
        """Targets and standard, noise-free views of this process's share of the val split.

        Cases are read and projected one at a time, in every validation anew: kept, the rays of
        each would be six numbers per voxel and view.
        """
        for body in self.held_out():
            yield self.target(body), self._standard_views(body, num_views)

    def _standard_views(self, body: Body, num_views: int) -> ViewBatch:
        images, views = project_body(body, standard_geometries(self.system.views, num_views))
        return self._moved(view_batch([images], [views], [body], [True], self.system.grid))

    def _moved(self, batch: ViewBatch) -> ViewBatch:
        return ViewBatch(batch.images.to(self.device), batch.rays.to(self.device))
