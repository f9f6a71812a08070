"""Work of XctDiff's networks and stages, counted and not run, beside the published code's.

    python benchmarks/xctdiff_flop.py

Counted as in `clsdm_flop.py`, from which most of this comes: tensors without values, one sample,
one frontal view, 2 FLOP per multiplication and addition. Published: twice the multiply-accumulate
operations counted on the released code at the same sizes. The search for the nearest code counts as
the products it makes.
"""

import sys

import torch
from clsdm_flop import Case, alignment, case_of, compression, denoising, gflop, inference, read

PUBLISHED = {
    "encode a CT": 2 * 390.0,
    "quantize a latent": 2 * 2.1,
    "decode a CT": 2 * 1415.0,
    "encode a view": 2 * 34.9,
    "decode the estimate": 2 * 36.2,
    "one call of the denoiser": 2 * 64.7,
    "stage 2 step": 2 * (34.9 + 2.1 + 36.2),
    "stage 3 step, fixed views": 2 * (390.0 + 34.9 + 64.7),
    "stage 3 step, fresh views": 2 * (390.0 + 34.9 + 64.7),
    "inference, 50 steps": 2 * (34.9 + 50 * 64.7 + 2.1 + 1415.0),
}
"""GFLOP."""

NAMES = ("xctdiff-paper", "xctdiff", "xctdiff-64")


def work(case: Case) -> dict[str, float]:
    """GFLOP of each network and stage by the names of `PUBLISHED`, and some more."""
    networks, system = case.networks, case.run.system
    encoder, autoencoder = networks.view_encoder, networks.autoencoder
    low = case.latent.shape[-1]
    told = case.latent.new_empty(1, system.told_channels, low, low, low)
    view = gflop(lambda: encoder(case.images, case.rays, with_estimate=False))
    found = {
        "encode a CT": gflop(lambda: autoencoder.encode(case.volume)),
        "quantize a latent": gflop(lambda: autoencoder.codebook(case.latent)),
        "decode a CT": gflop(lambda: autoencoder.decode_codes(case.latent)),
        "encode a view": view,
        "decode the estimate": gflop(lambda: encoder.estimate_head(case.latent)),
        "one call of the denoiser": gflop(
            lambda: networks.denoiser(case.latent, case.latent.new_empty(1), told)
        ),
        "stage 1 step": gflop(lambda: compression(case)),
        "stage 2 step": gflop(lambda: alignment(case)),
    }
    # With self-conditioning half of the steps call the denoiser twice.
    calls = 1.5 if system.self_conditioning else 1.0
    denoised = calls * gflop(lambda: denoising(case, told))
    found["stage 3 step, fixed views"] = denoised
    found["stage 3 step, fresh views"] = view + denoised
    one, two = gflop(lambda: inference(case, 1)), gflop(lambda: inference(case, 2))
    for nfe in (10, 50):
        found[f"inference, {nfe} steps"] = one + (nfe - 1) * (two - one)
    return found


def num_parameters(case: Case) -> list[int]:
    """Of the autoencoder, the view encoder and the denoiser."""
    networks = case.networks
    return [
        sum(value.numel() for value in module.parameters())
        for module in (networks.autoencoder, networks.view_encoder, networks.denoiser)
    ]


def table() -> str:
    """The figures as a table in Markdown."""
    cases = [case_of(read(name), num_views=1) for name in NAMES]
    works = [work(case) for case in cases]
    lines = [
        "| GFLOP, one sample | published | xctdiff-paper | ratio | xctdiff | ratio | xctdiff-64 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in works[0]:
        published = PUBLISHED.get(name)
        paper, ours, small = (found[name] for found in works)
        cells = [name, "" if published is None else f"{published:.1f}"]
        for value in (paper, ours):
            cells += [f"{value:.1f}", "" if published is None else f"1/{published / value:.2f}"]
        lines.append(f"| {' | '.join([*cells, f'{small:.1f}'])} |")
    for name, case in zip(NAMES, cases, strict=True):
        counts = ", ".join(f"{count:,}" for count in num_parameters(case))
        lines += ["", f"{name}: {counts} parameters (autoencoder, view encoder, denoiser)."]
    return "\n".join(lines)


if __name__ == "__main__":
    with torch.no_grad():
        sys.stdout.write(table() + "\n")
