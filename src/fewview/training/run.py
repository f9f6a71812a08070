"""A whole training run: the three stages in order, each from its checkpoint, then the bundle."""

import json
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from fewview import config as config_files
from fewview.bundle import Bundle, RegressorBundle, load_model, save_bundle
from fewview.data.files import replacing_file
from fewview.data.store import open_store
from fewview.models.layers import channels_last
from fewview.regressor import Regressor, build_regressor
from fewview.system import Networks, build_networks
from fewview.training.alignment import train_alignment
from fewview.training.autoencoder import train_autoencoder
from fewview.training.batches import shares
from fewview.training.checkpoint import part, read_checkpoint
from fewview.training.config import AnyRun, RunConfig, load_run
from fewview.training.diffusion import train_diffusion
from fewview.training.examples import ScanCache
from fewview.training.latents import cached_latents
from fewview.training.loop import Report
from fewview.training.processes import Processes, join
from fewview.training.regression import train_regression
from fewview.training.regression_config import RegressionRun
from fewview.training.source import TrainingSource
from fewview.training.start import AnyNetworks, fingerprint, keep_share, start_from
from fewview.training.style import frontal_pictures, style_card, train_style
from fewview.training.style_config import StyleRun
from fewview.transfer.style import StyleNetworks, build_style


def _silent(stage: str, step: int, num_steps: int, shown: str) -> None:
    """Report nothing."""


def train(  # noqa: PLR0913 - one for each flag of the command
    config_path: Path,
    store: Path,
    out: Path,
    *,
    stage: str | None = None,
    start: str | Path | None = None,
    radiographs: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    report: Report = _silent,
) -> None:
    """Train a system; at the end `out/model` is a folder that `reconstruct` takes.

    Under torchrun this process joins its group. All processes must see the same `store` and `out`;
    the first one writes and reports. A group that torchrun restarts goes on as with `resume`.

    Args:
        config_path: A TOML file as in `configs/`.
        store: A prepared store with a train split.
        out: The run's folder: config.toml, one checkpoint per stage, metrics.jsonl, model/.
        stage: Only this stage; earlier ones must be finished. Without it, all in order.
        start: Bundled name or folder of the model whose weights the networks start from.
        radiographs: Folder of real radiographs, which style models and only they need.
        resume: Go on in a folder that has a run of the same config.
        device: Where the networks train.
        report: Called while training.

    Raises:
        ValueError: If the config, the store, the stage or the folder cannot be used.
    """
    config = load_run(config_path)
    stages = stages_of(config)
    if stage is not None and stage not in stages:
        raise ValueError(f"no stage {stage!r} in {config_path}; it has {', '.join(stages)}")
    pictures = _radiographs(config, config_path, radiographs)
    opened = open_store(store)
    if not opened.of_split("train"):
        raise ValueError(f"{store} has no case in the train split; see `prepare --split`")
    begun = None if start is None else load_model(start)
    share = config.training.start_share
    if share and begun is None:
        raise ValueError(f"{config_path}: start_share = {share:g} needs --start MODEL")
    processes = join(device)
    resume = processes.was_restarted() or resume
    for name in stages:
        shares(getattr(config.training, name), name, processes)  # refuses before anything is made
    _claim(out, config, _origins(begun, pictures), processes, resume=resume)
    torch.manual_seed(config.training.seed)
    networks = _fresh(config)
    if begun is not None:
        start_from(networks, begun.networks)
    networks.to(processes.device)
    for module in networks.modules().values():
        channels_last(module)
    source = TrainingSource(config.system, config.training, opened, ScanCache(opened), processes)
    source.warn_of_unused()
    _run(config, networks, source, pictures, out, stage, report)
    if stage in (None, stages[-1]) and processes.first:
        if isinstance(config, RunConfig) and isinstance(networks, Networks):
            networks.guidable = config.training.diffusion.condition_dropout > 0.0
        if begun is not None:
            keep_share(networks, begun.networks, share)
        shown = config.training.augmentation.display_share
        card = _card(config, out)
        save_bundle(out / "model", config.system, networks, card, display_share=shown, force=True)


def stages_of(config: AnyRun) -> tuple[str, ...]:
    """The stages of a run, in order."""
    if isinstance(config, RegressionRun):
        return ("regression",)
    if isinstance(config, StyleRun):
        return ("style",)
    if config.training.alignment is None:
        return ("autoencoder", "diffusion")
    return ("autoencoder", "alignment", "diffusion")


def _fresh(config: AnyRun) -> AnyNetworks:
    """Fresh networks of whatever a run trains."""
    match config:
        case RegressionRun():
            return build_regressor(config.system)
        case StyleRun():
            return build_style(config.system)
        case RunConfig():
            return build_networks(config.system)


def _run(
    config: AnyRun,
    networks: AnyNetworks,
    source: TrainingSource,
    pictures: Tensor,
    out: Path,
    stage: str | None,
    report: Report,
) -> None:
    """Train what `_fresh` has made for the run."""
    match config, networks:
        case RunConfig(), Networks():
            _run_stages(stage, config, networks, source, out, report)
        case RegressionRun(), Regressor():
            regression = config.training.regression
            train_regression(regression, networks.network, source, out, report=report)
        case StyleRun(), StyleNetworks():
            train_style(config, networks, source, pictures, out, report=report)


def _run_stages(
    stage: str | None,
    config: RunConfig,
    networks: Networks,
    source: TrainingSource,
    out: Path,
    report: Report,
) -> None:
    """All stages of a system in order, or one on top of the finished ones before it."""
    for name in stages_of(config):
        if stage in (None, name):
            _run_stage(name, config, networks, source, out, report)
        else:
            _load_finished(name, config, networks, out)
        if name == stage:
            break


def _radiographs(config: AnyRun, path: Path, folder: Path | None) -> Tensor:
    """The radiographs of a run that trains a style model; none for other runs."""
    if not isinstance(config, StyleRun):
        if folder is not None:
            raise ValueError(f"{path} trains no style model; leave --radiographs out")
        return torch.empty(0, 1, 1, 1)
    if folder is None:
        raise ValueError(f"{path} trains a style model; give --radiographs FOLDER")
    return frontal_pictures(folder, config.system.views)


def _origins(start: Bundle | RegressorBundle | None, pictures: Tensor) -> str:
    """Lines for config.toml that name what a run stands on beside its config and store."""
    lines = ""
    if start is not None:
        lines += f"\n# started from {start.config.name}, weights {fingerprint(start.networks)}\n"
    if len(pictures):
        digest = sha256(pictures.numpy().tobytes()).hexdigest()[:16]
        lines += f"\n# {len(pictures)} radiographs, pixels {digest}\n"
    return lines


def _claim(
    out: Path,
    config: AnyRun,
    origins: str,
    processes: Processes,
    *,
    resume: bool,
) -> None:
    """Make the run's folder, or check that it is a run of this config and these origins."""
    text = config_files.to_toml(config) + origins
    kept = out / "config.toml"
    begun = kept.exists()
    if begun:
        if not resume:
            raise ValueError(f"{out} already has a run; add --resume to go on, or choose another")
        if kept.read_text(encoding="utf-8") != text:
            raise ValueError(f"{out} was begun with another config or start; choose another folder")
    elif out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and has no run in it; choose another folder")
    processes.wait()  # all have looked before the first one writes
    if processes.first and not begun:
        out.mkdir(parents=True, exist_ok=True)
        with replacing_file(kept) as writing:
            writing.write_text(text, encoding="utf-8")


def _run_stage(
    name: str,
    config: RunConfig,
    networks: Networks,
    source: TrainingSource,
    out: Path,
    report: Report,
) -> None:
    training = config.training
    if name == "autoencoder":
        train_autoencoder(training.autoencoder, networks.autoencoder, source, out, report=report)
        return
    latents = cached_latents(out / "latents.safetensors", networks.autoencoder, source, report)
    if name == "alignment" and training.alignment is not None:
        train_alignment(training.alignment, networks, latents, source, out, report=report)
        return
    train_diffusion(
        training.diffusion,
        config.system,
        networks,
        training.alignment,
        latents,
        source,
        out,
        report=report,
    )


def _load_finished(name: str, config: RunConfig, networks: Networks, out: Path) -> None:
    """Put the averaged weights of a finished stage in place."""
    path = out / f"{name}.safetensors"
    if not path.exists():
        raise ValueError(f"{out}: the {name} stage has not been trained yet; train it first")
    tensors, metadata = read_checkpoint(path)
    num_steps = getattr(config.training, name).num_steps
    if int(metadata["step"]) < num_steps:
        raise ValueError(f"{out}: the {name} stage stopped at {metadata['step']} of {num_steps}")
    averages = part(tensors, "average")
    if name == "alignment":
        modules = {"view_encoder": networks.view_encoder, "projector": networks.projector}
        for key, module in modules.items():
            module.load_state_dict(part(averages, key))
            module.eval().requires_grad_(False)
    elif name == "autoencoder":
        networks.autoencoder.load_state_dict(part(averages, "autoencoder"))
        networks.autoencoder.eval().requires_grad_(False)


def _card(config: AnyRun, out: Path) -> str:
    """A card that says what is known without an evaluation."""
    if isinstance(config, StyleRun):
        return style_card(config, out)
    last: dict[str, float] = {}
    for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "val_psnr_db" in entry:
            last[entry["stage"]] = entry["val_psnr_db"]
    scores = "\n".join(f"- {stage}: {value:.2f} dB" for stage, value in last.items())
    return (
        f"# {config.system.name}\n\n"
        "Research software, not a medical device. Do not use it for diagnosis.\n\n"
        "Validation PSNR in training (range of the HU window, model grid):\n\n"
        f"{scores or '- none: the store has no val split'}\n"
    )
