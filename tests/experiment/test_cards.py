"""Cards say what files say, and name what no file says."""

import hashlib
import shutil

from fewview.experiment.cards import data_card, model_card
from fewview.experiment.facts import model_facts, store_facts
from fewview.experiment.plan import fingerprint, model_folder
from fewview.records import write_record


def test_a_model_card_tells_of_the_run_beside_the_model(tmp_path):
    model = tmp_path / "run" / "model"
    shutil.copytree(model_folder("fewview-64"), model)
    alone = model_card(model_facts(str(model)))
    assert "Not known: there is no run" in alone
    assert "Not measured." in alone
    settings = "[training.diffusion]\nnum_steps = 700\nbatch_size = 8\n"
    (tmp_path / "run" / "config.toml").write_text(settings)
    write_record(
        tmp_path / "run" / "run.json",
        "train",
        settings={"start": "fewview-64"},
        inputs=["a.toml", "some/store"],
    )
    card = model_card(model_facts(str(model)))
    assert "read `a.toml`, `store`, from the weights of `fewview-64`" in card
    assert "| diffusion | 700 | 8 |" in card
    assert fingerprint(str(model)) in card


def test_a_data_card_tells_hash_counts_and_licenses_of_the_store(tiny_store):
    facts = store_facts(tiny_store)
    cases = [{"name": "case-0002", "kind": "store", "place": "case_0002", "checksum": "a" * 64}]
    card = data_card("a test", cases, facts)
    assert hashlib.sha256((tiny_store / "index.json").read_bytes()).hexdigest() in card
    assert "| train | 2 | 2 |" in card
    assert "| val | 1 | 1 |" in card
    assert "| not stated | 3 |" in card
    assert "- 1 from a prepared store" in card
