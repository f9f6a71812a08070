"""The methods that an experiment can compare, as tables of its TOML file.

Each is a small dataclass with a `kind`; `prediction` and `ceilings` resolve it. A learned
baseline is a model folder like any other, so `kind = "model"` runs it.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

SEED_MARK = "{seed}"
"""Stands for the seed in a model's folder: one trained run per seed."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of an experiment a method runs; all of it by default."""

    num_views: tuple[int, ...] | None = None
    """Only these of the experiment's view counts."""

    seeds: tuple[int, ...] | None = None
    """Only these of the experiment's seeds."""


SHARE = ("num_views", "seeds")
"""The fields of `Share`: they say which results there are, not what they are."""


@dataclass(frozen=True, kw_only=True)
class ModelMethod(Share):
    """A trained model, run by `reconstruct`."""

    kind: Literal["model"] = "model"

    model: str = "fewview-64"
    """Bundled name or model folder; `{seed}` in it is replaced by the seed."""

    nfe: int | None = None
    """Denoiser calls per sample, 0 for the deterministic head; the model's default."""

    samples: int | None = None
    """Samples to average; the model's default."""

    guidance: float | None = None
    """Guidance scale; the model's default. Other than 1 it needs training for it."""

    consistency_steps: int | None = None
    """Projection consistency steps, 0 for none; the model's default."""

    beyond_training: bool = False
    """Also run numbers of views that the model was not trained for."""

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        if self.nfe is not None and self.nfe < 0:
            raise ValueError(f"nfe must be 0 or more, got {self.nfe}")
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        if self.guidance is not None and not self.guidance >= 0.0:
            raise ValueError(f"guidance must be 0 or more, got {self.guidance}")
        if self.consistency_steps is not None and self.consistency_steps < 0:
            raise ValueError(f"consistency_steps must be 0 or more, got {self.consistency_steps}")


@dataclass(frozen=True, kw_only=True)
class MeanMethod(Share):
    """The mean volume that comes with the package."""

    kind: Literal["mean"] = "mean"


@dataclass(frozen=True, kw_only=True)
class ConstantMethod(Share):
    """One value everywhere."""

    kind: Literal["constant"] = "constant"

    hu: float | None = None
    """The value in HU; by default the mean of the bundled mean volume."""


@dataclass(frozen=True, kw_only=True)
class BackprojectionMethod(Share):
    """Unfiltered back-projection."""

    kind: Literal["backprojection"] = "backprojection"


@dataclass(frozen=True, kw_only=True)
class FdkMethod(Share):
    """Filtered back-projection."""

    kind: Literal["fdk"] = "fdk"


@dataclass(frozen=True, kw_only=True)
class SirtMethod(Share):
    """Simultaneous iterative reconstruction."""

    kind: Literal["sirt"] = "sirt"

    num_steps: int = 40
    """Steps over all views."""


@dataclass(frozen=True, kw_only=True)
class CglsMethod(Share):
    """Least squares by conjugate gradients."""

    kind: Literal["cgls"] = "cgls"

    num_steps: int = 10
    """Conjugate gradient steps."""


@dataclass(frozen=True, kw_only=True)
class TvMethod(Share):
    """Least squares with total variation."""

    kind: Literal["tv"] = "tv"

    weight: float = 8e-4
    """Weight of the total variation, in 1/mm."""

    num_steps: int = 100
    """Primal-dual steps."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderCeiling(Share):
    """The truth sent through a model's autoencoder: a ceiling, which sees the truth."""

    kind: Literal["autoencoder"] = "autoencoder"

    model: str = "fewview-64"
    """Bundled name or model folder; `{seed}` in it is replaced by the seed."""


@dataclass(frozen=True, kw_only=True)
class GridCeiling(Share):
    """The truth on the experiment's model grid: a ceiling, which sees the truth."""

    kind: Literal["grid"] = "grid"


Predictor = (
    ModelMethod
    | MeanMethod
    | ConstantMethod
    | BackprojectionMethod
    | FdkMethod
    | SirtMethod
    | CglsMethod
    | TvMethod
)
"""Methods that see X-rays only."""

Ceiling = AutoencoderCeiling | GridCeiling
"""What sees the truth and bounds the others."""

Method = Annotated[Predictor | Ceiling, Field(discriminator="kind")]


def model_of(method: Predictor | Ceiling, seed: int) -> str | None:
    """The model that a method loads for a seed, or None."""
    if isinstance(method, ModelMethod | AutoencoderCeiling):
        return method.model.replace(SEED_MARK, str(seed))
    return None


def is_trained_by_seed(method: Predictor | Ceiling) -> bool:
    """Whether each seed of a method is a trained model of its own."""
    return model_of(method, 0) != model_of(method, 1)
