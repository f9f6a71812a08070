"""CPU time and accuracy of the projector beside nanodrr and RTK.

Two orthogonal cone views (SDD 1020, SOD 850) of a cube of 320 mm. All methods take turns
in one process, and CPU time (user and system, all threads) is counted, so that a busy
machine disturbs all alike; figures are medians, ratios are medians of paired ratios.

    pip install --constraint constraints.txt "nanodrr==0.1.7" "itk-rtk==2.7.*" .
    python benchmarks/projector.py --size 128 --threads 1

Without the two other projectors their rows are left out.
"""

import argparse
import math
import os
import platform
import resource
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch
from torch import Tensor

from fewview.xray.geometry import Cameras, ViewGeometry, cameras, stack_cameras
from fewview.xray.projector import backproject, project, project_plain

EXTENT_MM = 320.0
SDD_MM, SOD_MM = 1020.0, 850.0

Method = Callable[[], object]


def main() -> None:
    """Measure and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    views = two_views(options.size)
    volume, exact = blobs(options.size, views)
    upstream = torch.rand(1, 2, options.size, options.size)
    forward, gradient = methods_of(volume, upstream, views, options.threads)
    out = sys.stdout.write
    out(f"{machine()}; size {options.size}, {options.threads} thread(s)\n\n")
    out("| projector | forward, ms | ratio | forward + gradient, ms | ratio | error |\n")
    out("|---|---|---|---|---|---|\n")
    forward_times = paired_times(forward, options.repeats)
    gradient_times = paired_times(gradient, options.repeats)
    for name, method in forward.items():
        error = relative_error(method(), exact)
        cells = [cell(forward_times, name), cell(gradient_times, name)]
        out(f"| {name} | {' | '.join(cells)} | {100 * error:.3f} % |\n")


def two_views(size: int) -> Cameras:
    """Cameras [1, 2] whose detector just holds the cube's shadow."""
    pitch = EXTENT_MM * SDD_MM / SOD_MM / size
    geometries = [
        ViewGeometry(
            beam="cone",
            primary_angle_deg=angle,
            sdd_mm=SDD_MM,
            sod_mm=SOD_MM,
            num_rows=size,
            num_cols=size,
            pixel_pitch_mm=(pitch, pitch),
        )
        for angle in (0.0, 90.0)
    ]
    return stack_cameras([cameras(geometries, (0.0, 0.0, 0.0))])


def affine(size: int) -> Tensor:
    """voxel_to_patient [4, 4] of the cube, centered on the isocenter."""
    spacing = EXTENT_MM / size
    matrix = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
    matrix[:3, 3] = -0.5 * spacing * (size - 1)
    return matrix


def blobs(size: int, views: Cameras) -> tuple[Tensor, Tensor]:
    """Eight Gaussian blobs as a volume [1, 1, d, h, w] and their exact integrals [1, 2, r, c].

    A blob exp(-|x - c|^2 / 2 s^2) has the integral s sqrt(2 pi) exp(-q^2 / 2 s^2) along a
    line that passes its center at the distance q.
    """
    generator = torch.Generator().manual_seed(1)
    centers = (torch.rand(8, 3, generator=generator, dtype=torch.float64) - 0.5) * 160.0
    widths = 12.0 + 16.0 * torch.rand(8, generator=generator, dtype=torch.float64)
    axis = (torch.arange(size, dtype=torch.float64) - 0.5 * (size - 1)) * EXTENT_MM / size
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volume = torch.zeros(size, size, size, dtype=torch.float64)
    for (cx, cy, cz), width in zip(centers, widths, strict=True):
        squares = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2
        volume += torch.exp(-squares / (2.0 * width**2))
    exact = torch.zeros(1, 2, size, size, dtype=torch.float64)
    pixels = torch.arange(size, dtype=torch.float64)
    for view in range(2):
        camera = views[0, view].to(dtype=torch.float64)
        ray = camera.origin + pixels[:, None, None] * camera.step_v
        ray = ray + pixels[None, :, None] * camera.step_u - camera.source
        ray = ray / ray.norm(dim=-1, keepdim=True)
        for center, width in zip(centers, widths, strict=True):
            distance = torch.linalg.cross((center - camera.source).expand_as(ray), ray)
            squares = distance.square().sum(-1)
            peak = width * math.sqrt(2.0 * math.pi)
            exact[0, view] += peak * torch.exp(-squares / (2.0 * width**2))
    return volume.float()[None, None], exact


def methods_of(
    volume: Tensor, upstream: Tensor, views: Cameras, threads: int
) -> tuple[dict[str, Method], dict[str, Method]]:
    """Forward, and forward plus gradient, of every projector that is installed."""
    size = volume.shape[-1]
    matrix = affine(size)[None]
    leaf = volume.clone().requires_grad_()
    forward: dict[str, Method] = {
        "fewview": lambda: project(volume, matrix, views),
        "fewview, plain reference": lambda: project_plain(volume, matrix, views),
    }
    gradient: dict[str, Method] = {
        "fewview": lambda: torch.autograd.grad(project(leaf, matrix, views), leaf, upstream),
        "fewview, plain reference": lambda: torch.autograd.grad(
            project_plain(leaf, matrix, views), leaf, upstream
        ),
        "fewview, gradient alone": lambda: backproject(upstream, matrix, views, (size,) * 3),
    }
    if find_spec("nanodrr"):
        for name, num_samples in (
            ("nanodrr, one sample a voxel", size),
            ("nanodrr, its default 500", 500),
        ):
            forward[name] = nanodrr_forward(volume, views, num_samples)
            gradient[name] = nanodrr_gradient(leaf, upstream, views, num_samples)
    if find_spec("itk"):
        forward["RTK Joseph"], back = rtk_joseph(volume, upstream, views, threads)
        gradient["RTK Joseph"] = both(forward["RTK Joseph"], back)
    return forward, gradient


def both(first: Method, second: Method) -> Method:
    """One method after the other."""
    return lambda: (first(), second())


def nanodrr_forward(volume: Tensor, views: Cameras, num_samples: int) -> Method:
    """Nanodrr's `render` on the same rays; its setup is not timed."""
    from nanodrr.camera import make_k_inv
    from nanodrr.data import Subject
    from nanodrr.drr import render

    size = volume.shape[-1]
    matrix = affine(size).float()
    subject = Subject(
        volume,
        torch.zeros_like(volume),
        matrix,
        matrix.inverse(),
        Subject._make_voxel_to_grid(volume.shape),
        torch.zeros(3),
        max_label=0,
        convert_to_mu=False,
    )
    pitch = float(views.step_u[0, 0].norm())
    k_inv = make_k_inv(SDD_MM, pitch, pitch, 0.0, 0.0, size, size).repeat(2, 1, 1)
    axes = (views.step_u[0] / pitch, views.step_v[0] / pitch, views.direction[0], views.source[0])
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[:, :3] = torch.stack(axes, dim=-1)
    sdd = torch.full((2,), SDD_MM)
    return lambda: render(subject, k_inv, pose, sdd, size, size, num_samples)


def nanodrr_gradient(leaf: Tensor, upstream: Tensor, views: Cameras, num_samples: int) -> Method:
    """The same with its gradient in the volume."""
    forward = nanodrr_forward(leaf, views, num_samples)

    def run() -> object:
        image = forward()
        assert isinstance(image, Tensor)
        return torch.autograd.grad(image, leaf, upstream.transpose(0, 1))

    return run


def rtk_joseph(
    volume: Tensor, upstream: Tensor, views: Cameras, threads: int
) -> tuple[Method, Method]:
    """RTK's Joseph forward projection and back projection on the same rays."""
    import itk
    from itk import RTK as rtk

    itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(threads)
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(threads)
    size = volume.shape[-1]
    geometry = rtk.ThreeDCircularProjectionGeometry.New()
    for view in range(2):
        camera = views[0, view].to(dtype=torch.float64)
        foot = camera.source + SDD_MM * camera.direction
        step_u, step_v = camera.step_u / camera.step_u.norm(), camera.step_v / camera.step_v.norm()
        vectors = [vector.tolist() for vector in (camera.source, foot, step_u, step_v)]
        assert geometry.AddProjection(*vectors)
    pitch = float(views.step_u[0, 0].norm())
    spacing = EXTENT_MM / size

    def image(array: Tensor, step: tuple[float, float, float]) -> object:
        made = itk.image_from_array(array.numpy())
        made.SetSpacing(step)
        counts = array.shape[::-1]
        made.SetOrigin([-0.5 * (n - 1) * s for n, s in zip(counts, step, strict=True)])
        return made

    voxels = image(volume[0, 0], (spacing,) * 3)
    pixels = image(torch.zeros(2, size, size), (pitch, pitch, 1.0))
    kind = type(voxels)
    forward = rtk.JosephForwardProjectionImageFilter[kind, kind].New()
    forward.SetInput(0, pixels)
    forward.SetInput(1, voxels)
    forward.SetGeometry(geometry)
    forward.InPlaceOff()
    back = rtk.JosephBackProjectionImageFilter[kind, kind].New()
    back.SetInput(0, image(torch.zeros_like(volume[0, 0]), (spacing,) * 3))
    back.SetInput(1, image(upstream[0], (pitch, pitch, 1.0)))
    back.SetGeometry(geometry)
    back.InPlaceOff()

    def run_forward() -> Tensor:
        forward.Modified()
        forward.Update()
        return torch.from_numpy(itk.array_view_from_image(forward.GetOutput()))[None]

    def run_back() -> None:
        back.Modified()
        back.Update()

    return run_forward, run_back


def paired_times(methods: dict[str, Method], repeats: int) -> dict[str, list[float]]:
    """CPU seconds per method; in every round each method runs once."""
    for method in methods.values():
        method()
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            start = cpu_seconds()
            method()
            times[name].append(cpu_seconds() - start)
    return times


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cell(times: dict[str, list[float]], name: str) -> str:
    """Median CPU milliseconds and median ratio to fewview."""
    ratios = [one / ours for one, ours in zip(times[name], times["fewview"], strict=True)]
    return f"{1e3 * statistics.median(times[name]):.0f} | {statistics.median(ratios):.2f}"


def relative_error(image: object, exact: Tensor) -> float:
    """Norm of the error over norm of the exact integrals."""
    assert isinstance(image, Tensor)
    difference = image.detach().reshape(exact.shape).double() - exact
    return float(difference.norm() / exact.norm())


def machine() -> str:
    """Processor, cores and versions in one line."""
    names = ["torch", "nanodrr", "itk-rtk"]
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    isa = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {isa}, {os.cpu_count()} cores, {', '.join(found)}"


if __name__ == "__main__":
    main()
