"""Alignment of a model: figures of made-up latents, and the whole measurement of a tiny model."""

import csv
import json

import numpy as np
import pytest
import torch

from fewview.bundle import load_bundle
from fewview.experiment.alignment import fresh_networks, main, unit_rows
from fewview.experiment.alignment_figures import (
    case_figures,
    embedding_svg,
    own_ranks,
    principal_axes,
    summarized,
)

NUM_POSITIONS = 8


def latents(seed: int, count: int = 6) -> torch.Tensor:
    return torch.randn(count, 4, 2, 2, 2, generator=torch.Generator().manual_seed(seed))


def figures_of(aligned: torch.Tensor, *, fresh_seed: int = 9) -> dict[str, np.ndarray]:
    rows = [unit_rows(one) for one in (latents(0), aligned, latents(fresh_seed))]
    return case_figures(*rows, num_positions=NUM_POSITIONS)


def test_perfect_alignment_finds_every_case_at_no_distance():
    figures = figures_of(3.0 * latents(0))
    assert figures["xray_to_ct_top1"].tolist() == [1.0] * 6
    assert figures["ct_to_xray_rank"].tolist() == [1.0] * 6
    np.testing.assert_allclose(figures["distance"], 0.0, atol=1e-6)
    np.testing.assert_allclose(
        figures["fresh_minus_distance"], figures["fresh_distance"], atol=1e-6
    )
    assert summarized(figures)["distance_to_others"]["mean"] == pytest.approx(2.0, abs=0.3)


def test_the_distance_is_that_of_unit_vectors_meaned_over_positions():
    aligned = latents(1)
    figures = figures_of(aligned)
    one, other = (torch.nn.functional.normalize(value, dim=1) for value in (aligned, latents(0)))
    expected = (one - other).square().sum(dim=1).flatten(1).mean(dim=1)
    np.testing.assert_allclose(figures["distance"], expected.numpy(), rtol=1e-5)


def test_views_that_all_say_the_same_find_one_case_and_are_found_by_none_for_sure():
    figures = figures_of(latents(0)[:1].expand(6, -1, -1, -1, -1))
    assert figures["xray_to_ct_top1"].sum() == 1.0
    assert figures["ct_to_xray_top1"].sum() == 0.0, "ties count against"
    assert figures["ct_to_xray_rank"].tolist() == [6.0] * 6


def test_ranks_go_by_rows_in_one_direction_and_by_columns_in_the_other():
    similarity = np.array([[0.9, 0.1, 0.0], [0.95, 0.8, 0.0], [0.3, 0.2, 0.1]])
    assert own_ranks(similarity).tolist() == [1, 2, 3]
    assert own_ranks(similarity.T).tolist() == [2, 1, 1]


def test_what_is_no_number_finds_no_case_and_is_found_by_none():
    assert own_ranks(np.full((3, 3), np.nan)).tolist() == [3, 3, 3]
    aligned = latents(0)
    aligned[2] = torch.nan
    figures = figures_of(aligned)
    assert figures["xray_to_ct_top1"].tolist() == [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    assert figures["xray_to_ct_rank"][2] == 6.0
    assert figures["ct_to_xray_top1"].sum() == 0.0, "one that is no number may be anywhere"


def test_the_picture_spreads_the_cts_along_what_differs_most_and_is_the_same_every_time():
    rows = np.zeros((4, 5), dtype=np.float32)
    rows[:, 3] = [-3.0, -1.0, 1.0, 3.0]
    rows[:, 1] = [0.5, -0.5, -0.5, 0.5]
    center, axes = principal_axes(rows)
    np.testing.assert_allclose(np.abs(axes), np.eye(5)[[3, 1]], atol=1e-6)
    assert (axes.max(axis=1) > 0.9).all(), "the largest component is positive"
    np.testing.assert_allclose(center, 0.0, atol=1e-6)
    assert embedding_svg(rows, rows, rows) == embedding_svg(rows, rows, rows)
    assert b"X-rays, aligned" in embedding_svg(rows, rows, rows)


def test_fresh_networks_are_the_same_every_time_and_leave_the_model_alone(tiny_run):
    bundle = load_bundle(tiny_run / "model")
    kept = bundle.networks.projector.project.weight.clone()
    one = fresh_networks(bundle).projector.project.weight
    torch.rand(1)
    other = fresh_networks(bundle).projector.project.weight
    assert torch.equal(one, other)
    assert torch.equal(bundle.networks.projector.project.weight, kept)
    assert not torch.equal(one, kept)


def test_a_model_is_measured_on_held_out_phantoms(tiny_run, tmp_path, capsys):
    words = [str(tiny_run / "model"), "--out", str(tmp_path / "out"), "--phantoms", "3"]
    assert main([*words, "--phantom-size", "16", "--num-views", "1"]) == 0
    found = json.loads((tmp_path / "out" / "alignment.json").read_text())
    assert (found["model"], found["num_cases"], found["num_views"]) == ("tiny", 3, 1)
    assert found["figures"]["xray_to_ct_top5"]["mean"] == 1.0
    rows = list(csv.DictReader((tmp_path / "out" / "alignment.csv").read_text().splitlines()))
    assert rows[0]["case"].startswith("phantom-")
    mean = sum(float(row["distance"]) for row in rows) / 3
    assert mean == pytest.approx(found["figures"]["distance"]["mean"], rel=1e-4)
    assert (tmp_path / "out" / "embedding.svg").is_file()
    assert "a pool of 3 cases" in capsys.readouterr().out
    assert main(words) == 1
    assert "not empty" in capsys.readouterr().err


def test_a_store_with_too_few_cases_is_refused(tiny_run, tiny_store, tmp_path, capsys):
    words = [str(tiny_run / "model"), "--out", str(tmp_path / "out"), "--data", str(tiny_store)]
    assert main([*words, "--split", "train"]) == 1
    assert "3 or more cases, got 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
