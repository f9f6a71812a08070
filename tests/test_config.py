"""Configurations refuse what they do not know, and survive being written."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from fewview import config


@dataclass(frozen=True, kw_only=True)
class Cone:
    """One beam."""

    kind: Literal["cone"] = "cone"
    sdd_mm: float = 1800.0


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Another beam."""

    kind: Literal["parallel"] = "parallel"
    pitch_mm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Tilted:
    """A beam that must be named."""

    kind: Literal["tilted"]
    tilt_deg: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Net:
    """A part that refuses nonsense."""

    num_channels: int
    widths: tuple[int, ...] = (8, 16)

    def __post_init__(self) -> None:
        """Refuse a net without channels."""
        if self.num_channels < 1:
            raise ValueError(f"num_channels must be at least 1, got {self.num_channels}")


@dataclass(frozen=True, kw_only=True)
class System:
    """What a file describes."""

    net: Net
    beam: Cone | Parallel = field(default_factory=Cone)
    stages: tuple[Net, ...] = ()
    refiner: Net | None = None
    name: str = ""
    learning_rate: float = 1e-5
    ema: bool = True
    weights: dict[str, float] = field(default_factory=dict)
    source: Path | None = None


def message(text: str) -> str:
    with pytest.raises(ValueError, match=r"system\.toml") as caught:
        config.parse(text, System, name="system.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_becomes_nested_dataclasses(tmp_path):
    path = tmp_path / "system.toml"
    path.write_text(
        'name = "a"\nlearning_rate = 1\n[net]\nnum_channels = 4\nwidths = [1, 2]\n'
        '[beam]\nkind = "parallel"\npitch_mm = 2.0\n'
    )
    assert config.load(path, System) == System(
        name="a",
        learning_rate=1.0,
        net=Net(num_channels=4, widths=(1, 2)),
        beam=Parallel(pitch_mm=2.0),
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("nam = 1\n[net]\nnum_channels = 4", "unknown key nam (did you mean name?)"),
        ("[net]\nnum_chanels = 4", "unknown key net.num_chanels (did you mean num_channels?)"),
        ("[net]\nnum_channels = 4\n[beam]\nkind = 'cone'\npitch_mm = 1.0", "key beam.pitch_mm"),
        ("stages = [{num_channels = 1, zzz = 2}]\n[net]\nnum_channels = 4", "key stages.0.zzz"),
        ("[net]\nnum_channels = 4\n[refiner]\nnum_channel = 4", "key refiner.num_channel "),
    ],
)
def test_an_unknown_key_is_named_with_what_may_have_been_meant(text, key):
    assert key in message(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[net]\nnum_channels = '4'", "net.num_channels: input should be a valid integer, got '4'"),
        ("[net]\nnum_channels = true", "net.num_channels"),
        ("[net]\nnum_channels = 4.0", "net.num_channels"),
        ("[net]\nnum_channels = 4\nwidths = 8", "net.widths"),
        ("learning_rate = 2020-01-01\n[net]\nnum_channels = 4", "learning_rate"),
        ("net = 3", "net: "),
        ("ema = 1\n[net]\nnum_channels = 4", "ema: "),
        ("[net]\nnum_channels = 4\n[beam]\nkind = 'fan'", "beam"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(text, key):
    assert key in message(text)


@dataclass(frozen=True, kw_only=True)
class Grown:
    """A part that had one kind before it got a second."""

    beam: Annotated[Cone | Tilted, Field(discriminator="kind")] = field(default_factory=Cone)
    beams: tuple[Annotated[Cone | Tilted, Field(discriminator="kind")], ...] = ()


def test_a_table_without_kind_means_the_member_whose_kind_has_a_default():
    found = config.parse("beams = [{ sdd_mm = 2.0 }]\n[beam]\nsdd_mm = 3.0", Grown)
    assert found == Grown(beam=Cone(sdd_mm=3.0), beams=(Cone(sdd_mm=2.0),))
    tilted = "[beam]\nkind = 'tilted'\ntilt_deg = 3.0"
    assert config.parse(tilted, Grown).beam == Tilted(kind="tilted", tilt_deg=3.0)
    assert config.parse(config.to_toml(found), Grown) == found


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[beam]\nsd_mm = 3.0", "unknown key beam.sd_mm (did you mean sdd_mm?)"),
        ("[beam]\ntilt_deg = 3.0", "unknown key beam.tilt_deg (known here: kind, sdd_mm)"),
        ("[beam]\nkind = 'tilted'\nsdd_mm = 3.0", "unknown key beam.sdd_mm"),
        ("beams = [{ sd_mm = 3.0 }]", "unknown key beams.0.sd_mm"),
        ("[beam]\nkind = 'fan'", "beam"),
        ("[beam]\nsdd_mm = 'far'", "beam.cone.sdd_mm: input should be a valid number"),
    ],
)
def test_a_table_without_kind_is_read_as_strictly_as_any(text, key):
    with pytest.raises(ValueError, match=re.escape(key)):
        config.parse(text, Grown)


def test_a_missing_key_is_named():
    assert "missing key net.num_channels" in message("[net]")


def test_a_dataclass_refuses_nonsense_in_its_own_words():
    assert message("[net]\nnum_channels = 0").endswith("num_channels must be at least 1, got 0")


def test_many_problems_stay_one_line():
    assert "and 2 more" in message("a = 1\nb = 2\nc = 3\nd = 4\ne = 5")


def test_what_is_not_toml_is_refused_with_the_file_named(tmp_path):
    path = tmp_path / "system.toml"
    path.write_bytes(b"\x1f\x8b\xff")
    with pytest.raises(ValueError, match=r"system\.toml: not a text file"):
        config.load(path, System)
    assert "not valid TOML" in message("[net")


@given(
    name=st.text(),
    learning_rate=st.floats(allow_nan=False),
    weights=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    num_channels=st.integers(1, 2**40),
    stages=st.lists(st.integers(1, 9)),
)
def test_what_is_written_reads_back_equal(name, learning_rate, weights, num_channels, stages):
    system = System(
        net=Net(num_channels=num_channels),
        beam=Parallel(pitch_mm=0.5),
        stages=tuple(Net(num_channels=count) for count in stages),
        name=name,
        learning_rate=learning_rate,
        weights=weights,
        source=Path("a/b"),
    )
    assert config.parse(config.to_toml(system), System) == system


def test_nan_survives_writing():
    system = System(net=Net(num_channels=1), learning_rate=math.nan)
    assert math.isnan(config.parse(config.to_toml(system), System).learning_rate)


def test_none_where_none_is_not_the_default_is_refused():
    @dataclass(frozen=True)
    class Odd:
        steps: int | None = 3

    with pytest.raises(ValueError, match="steps is None"):
        config.to_toml(Odd(steps=None))
