"""A trained model as a folder: config.toml, weights.safetensors, card.md. No pickle is read."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewview import config as config_files
from fewview.data.files import replacing_folder
from fewview.regressor import AnySystem, Regressor, RegressorConfig, build_regressor
from fewview.system import Networks, SystemConfig, build_networks
from fewview.transfer.style import StyleBundle, StyleConfig, StyleNetworks, build_style

FORMAT = "fewview-model/1"
DEFAULT_MODEL = "fewview-64"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model, ready to run."""

    config: SystemConfig
    networks: Networks
    card: str
    display_share: float | None = None
    """Share of pictures for the eye among the views of its training, where that is known."""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.networks.denoiser.parameters()).device

    @torch.no_grad()
    def autoencode(
        self, hu: Float[Tensor, "batch 1 depth height width"]
    ) -> Float[Tensor, "batch 1 depth height width"]:
        """The autoencoder's own reconstruction of a CT on the model grid: the system's ceiling."""
        autoencoder = self.networks.autoencoder
        unit = self.config.grid.to_unit(hu.to(self.device))
        return self.config.grid.to_hu(autoencoder.decode(autoencoder.encode(unit).mean))


@dataclass(frozen=True, eq=False)
class RegressorBundle:
    """A trained regressor, ready to run."""

    config: RegressorConfig
    networks: Regressor
    card: str
    display_share: float | None = None
    """As in `Bundle`."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.networks.device


def bundled_folder() -> Path:
    """The folder of the models that come with the package."""
    return Path(str(files("fewview"))) / "bundled"


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in bundled_folder().glob("*/config.toml"))


def _model_folder(model: str | Path) -> Path:
    if str(model) in bundled_models():
        return bundled_folder() / str(model)
    folder = Path(model)
    if not folder.is_dir():
        names = ", ".join(bundled_models()) or "none"
        raise ValueError(f"no model {model}: neither a folder nor a bundled model ({names})")
    for name in ("config.toml", "weights.safetensors", "card.md"):
        if not (folder / name).is_file():
            raise ValueError(f"model folder {folder}: {name} is missing")
    return folder


def load_bundle(model: str | Path = DEFAULT_MODEL, *, device: str = "cpu") -> Bundle:
    """Read a trained system by bundled name or folder.

    Raises:
        ValueError: As `load_model`, and if the model is a regressor.
    """
    loaded = load_model(model, device=device)
    if isinstance(loaded, RegressorBundle):
        raise ValueError(f"{model} is a regressor, which has neither autoencoder nor samples")
    return loaded


def load_model(
    model: str | Path = DEFAULT_MODEL, *, device: str = "cpu"
) -> Bundle | RegressorBundle:
    """Read a trained model of any kind by bundled name or folder.

    Raises:
        ValueError: If the model is unknown, a file is missing or damaged, or weights and config
            do not belong together.
    """
    folder = _model_folder(model)
    card = (folder / "card.md").read_text(encoding="utf-8")
    kind = config_files.value_at(folder / "config.toml", "kind")
    if kind == "style":
        raise ValueError(f"{model} changes the style of radiographs; give it to --style")
    if kind == "regressor":
        regressor_config = config_files.load(folder / "config.toml", RegressorConfig)
        regressor = build_regressor(regressor_config)
        metadata = _read_weights(folder / "weights.safetensors", regressor)
        shown = _display_share(metadata)
        return RegressorBundle(regressor_config, regressor.to(device), card, shown)
    config = config_files.load(folder / "config.toml", SystemConfig)
    networks = build_networks(config)
    metadata = _read_weights(folder / "weights.safetensors", networks)
    networks.latent_scale = float(metadata["latent_scale"])
    networks.guidable = metadata.get("guidable") == "True"
    return Bundle(config, networks.to(device), card, _display_share(metadata))


def load_style(model: str | Path, *, device: str = "cpu") -> StyleBundle:
    """Read a trained style model.

    Raises:
        ValueError: As `load_model`, and if the model is of another kind.
    """
    folder = _model_folder(model)
    if config_files.value_at(folder / "config.toml", "kind") != "style":
        raise ValueError(f"{model} is no style model: it reconstructs; give it to --model")
    config = config_files.load(folder / "config.toml", StyleConfig)
    networks = build_style(config)
    _read_weights(folder / "weights.safetensors", networks)
    card = (folder / "card.md").read_text(encoding="utf-8")
    return StyleBundle(config, networks.to(device), card)


def _display_share(metadata: dict[str, str]) -> float | None:
    return float(metadata["display_share"]) if "display_share" in metadata else None


def _read_weights(weights: Path, networks: Networks | Regressor | StyleNetworks) -> dict[str, str]:
    """Put stored weights into fresh networks; returns what is stored beside them."""
    try:
        with safe_open(weights, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights}: damaged or not a safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{weights}: not a {FORMAT} file; was it written by fewview?")
    for part, module in networks.modules().items():
        own = {
            key.removeprefix(f"{part}."): value
            for key, value in tensors.items()
            if key.startswith(f"{part}.")
        }
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise ValueError(
                f"{weights}: the weights of the {part} do not fit config.toml"
            ) from error
        module.eval().requires_grad_(False)
    return dict(metadata)


def save_bundle(
    folder: Path,
    config: AnySystem | StyleConfig,
    networks: Networks | Regressor | StyleNetworks,
    card: str,
    *,
    display_share: float | None = None,
    force: bool = False,
) -> None:
    """Write a trained model; weights are stored in half precision, which is all they carry."""
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().half().contiguous()
        for part, module in networks.modules().items()
        for name, tensor in module.state_dict().items()
    }
    metadata = {"format": FORMAT}
    if display_share is not None:
        metadata["display_share"] = repr(display_share)
    if isinstance(networks, Networks):
        metadata |= {
            "latent_scale": repr(networks.latent_scale),
            "guidable": str(networks.guidable),
        }
    with replacing_folder(folder, force=force) as writing:
        (writing / "config.toml").write_text(config_files.to_toml(config), encoding="utf-8")
        (writing / "card.md").write_text(card, encoding="utf-8")
        save_file(tensors, writing / "weights.safetensors", metadata)
