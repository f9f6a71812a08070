"""Copies are made once; validation takes the memory of one case, however many there are."""

import re
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewview.config import load
from fewview.data.store import (
    CaseInfo,
    Store,
    StoreSettings,
    open_store,
    write_case,
    write_index,
)
from fewview.training import source as source_module
from fewview.training import train
from fewview.training.config import RunConfig
from fewview.training.examples import BodyCache, ExampleKey, ScanCache
from fewview.training.processes import join
from fewview.training.source import TrainingSource
from fewview.training.stage_config import ExamplesConfig

NUM_HELD_OUT = 4


@pytest.fixture(scope="module")
def held_out_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise: two cases to train and four to validate."""
    path = tmp_path_factory.mktemp("held_out")
    draw, cases = np.random.default_rng(0), []
    for i in range(2 + NUM_HELD_OUT):
        write_case(path, str(i), draw.integers(-1000, 1000, (16, 16, 16), dtype=np.int16))
        case = CaseInfo(
            id=str(i),
            patient=str(i),
            split="train" if i < 2 else "val",
            source=str(i),
            checksum=str(i),
            shape=(16, 16, 16),
            voxel_to_patient=np.diag([25.0, 25.0, 25.0, 1.0]),
            outside_share=0.0,
        )
        cases.append(case)
    write_index(path, StoreSettings(size=16), cases)
    return path


@pytest.fixture
def source(tiny_config, held_out_store) -> TrainingSource:
    run, opened = load(tiny_config, RunConfig), open_store(held_out_store)
    return TrainingSource(run.system, run.training, opened, ScanCache(opened), join("cpu"))


def test_in_validation_only_one_case_is_alive(source):
    made, alive = [], []
    for target, views in source.validation():
        made += [weakref.ref(part) for part in (target, views.images, views.rays.position)]
        alive.append([part() is not None for part in made].count(True))
    assert alive == [3] * NUM_HELD_OUT


def test_held_out_scans_are_read_anew_and_never_take_the_place_of_training_scans(
    source, monkeypatch
):
    asked, read = [], Store.read
    monkeypatch.setattr(Store, "read", lambda *args: asked.append(args[1]) or read(*args))
    for _ in range(2):
        assert len(list(source.validation_targets())) == NUM_HELD_OUT
    assert sorted(asked) == sorted(2 * [case.id for case in source.store.of_split("val")])


def test_no_stage_keeps_the_cases_it_has_validated(
    tiny_config, held_out_store, tmp_path, monkeypatch
):
    alive, made, view_batch = [], [], source_module.view_batch

    def counting(*args):
        alive.append([one() is not None for one in made].count(True))
        batch = view_batch(*args)
        made.append(weakref.ref(batch.rays.position))
        return batch

    monkeypatch.setattr(source_module, "view_batch", counting)
    train(tiny_config, held_out_store, tmp_path / "run")
    assert len(alive) == 2 * NUM_HELD_OUT  # stages 2 and 3; stage 1 needs no views
    assert max(alive) <= 1  # the one before, while the next is made


def with_examples(source: TrainingSource, count: int, **settings: object) -> TrainingSource:
    """The same with so many copies."""
    return replace(source, training=ExamplesConfig(num_examples=count, **settings))


def test_cases_that_are_in_no_stage_are_warned_of(source, caplog):
    with_examples(source, 2).warn_of_unused()
    assert caplog.records == []
    with_examples(source, 1).warn_of_unused()
    (record,) = caplog.records
    assert re.match("num_examples is 1, but there are 2 cases .*: 1 of them", record.getMessage())


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 1), (1.0, 0)])
def test_a_kind_without_a_share_is_left_out_on_purpose(share, count, source, caplog):
    first, *others = source.store.cases
    store = replace(source.store, cases=(replace(first, id="case_0000"), *others))
    with_examples(replace(source, store=store), 1, phantom_share=share).warn_of_unused()
    assert len(caplog.records) == count


def test_a_case_that_is_copied_twice_counts_once(source, caplog):
    first, other = source.store.of_split("train")
    cases = (replace(first, id="case_0000"), other, replace(other, id="third"))
    store = replace(source.store, cases=cases)
    rare = with_examples(replace(source, store=store), 2, phantom_share=0.999)
    keys = rare.keys()
    assert {key.case for key in keys} == {"case_0000"}
    rare.warn_of_unused()
    assert "3 cases to train on: 2 of them" in caplog.text


def test_a_run_warns_of_them_once(tiny_config, held_out_store, tmp_path, caplog):
    text = tiny_config.read_text().replace("num_examples = 4", "num_examples = 1")
    tiny_config.write_text(text.replace("batch_size = 2", "batch_size = 1"))
    train(tiny_config, held_out_store, tmp_path / "run")
    lines = [record.getMessage() for record in caplog.records]
    assert sum("in no stage" in line for line in lines) == 1


def test_a_copy_is_made_once_and_stays_what_it_was(source, monkeypatch):
    fresh = replace(source, bodies=BodyCache(capacity_bytes=0))
    made, augment = [], source_module.augment
    monkeypatch.setattr(
        source_module, "augment", lambda *a, **k: made.append(a) or augment(*a, **k)
    )
    key, other = source.keys()[:2]
    first = source.body(key)
    source.body(other)
    again = source.body(key)
    assert len(made) == 2
    assert torch.equal(again.hu, first.hu)
    assert torch.equal(again.hu, fresh.body(key).hu)
    assert torch.equal(source.target(again), fresh.target(fresh.body(key)))


def test_copies_beyond_the_memory_given_are_made_anew(source, monkeypatch):
    key, other = source.keys()[:2]
    one = source.body(key).hu
    small = replace(source, bodies=BodyCache(capacity_bytes=one.numel() * one.element_size()))
    made, augment = [], source_module.augment
    monkeypatch.setattr(
        source_module, "augment", lambda *a, **k: made.append(a) or augment(*a, **k)
    )
    for wanted in (key, other, key, other):
        small.body(wanted)
    assert len(made) == 3  # the first is kept, the second does not fit


def test_a_kept_part_of_a_scan_does_not_keep_all_of_it(source):
    whole = source.body(source.keys()[0])
    part = replace(whole, hu=whole.hu[2:4])
    bodies, key = BodyCache(), ExampleKey("case", 0)
    assert torch.equal(bodies.get(key, lambda: part).hu, part.hu)
    kept = bodies.get(key, lambda: pytest.fail("made again")).hu
    assert torch.equal(kept, part.hu)
    assert kept.untyped_storage().nbytes() == part.hu.numel() * part.hu.element_size()


def test_a_body_that_is_no_copy_of_the_run_is_not_kept(source, monkeypatch):
    made, augment = [], source_module.augment
    monkeypatch.setattr(
        source_module, "augment", lambda *a, **k: made.append(a) or augment(*a, **k)
    )
    once = ExampleKey(source.keys()[0].case, source.training.num_examples)
    source.body(once)
    source.body(once)
    assert len(made) == 2
