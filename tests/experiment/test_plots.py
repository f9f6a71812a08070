"""Plots join what belongs together and draw what is finite."""

import math
from itertools import cycle, islice

from fewview.evaluation.statistics import Interval
from fewview.experiment.plots import COLORS, MARKERS, plots
from fewview.experiment.summary import Entry


def entry(method: str, num_views: int, nfe: float, psnr: float = 20.0) -> Entry:
    measures = {"psnr": Interval(psnr, psnr - 1.0, psnr + 1.0)}
    return Entry(method, False, num_views, 3, 1, measures, 0.5, nfe, None, None)


def test_there_is_a_plot_against_calls_only_where_something_was_sampled():
    assert set(plots([entry("a", 1, 0.0), entry("a", 2, 0.0)])) == {"quality-views", "quality-time"}
    assert set(plots([entry("a", 2, 4.0)])) == {"quality-calls", "quality-time"}


def test_methods_of_one_model_are_one_line_against_calls_with_its_head_at_zero():
    entries = [entry("head", 2, 0.0), entry("one", 2, 4.0), entry("SIRT", 2, 0.0)]
    svg = plots(entries, {"head": "m", "one": "m"})["quality-calls"].decode()
    assert "m, 2 views" in svg
    assert "SIRT" not in svg
    assert ">0<" in svg
    assert ">4<" in svg


def test_infinite_and_unknown_ends_are_no_error_and_the_picture_is_the_same_every_time():
    entries = [entry("a", 1, 0.0, math.inf), entry("b", 1, 0.0)]
    entries[1].measures["ssim"] = Interval(0.5, math.nan, math.nan)
    assert plots(entries) == plots(entries)


def test_no_two_of_many_methods_look_alike():
    looks = list(islice(zip(cycle(COLORS), cycle(MARKERS)), 60))
    assert len(set(looks)) == 60
