"""Progress is readable in a log."""

from fewview import progress


def test_progress_is_plain_lines_with_time_left_when_piped(capsys, monkeypatch):
    now = iter([0.0, 10.0, 11.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.steps("prepare") as show:
        show(1, 3, "a")
        show(2, 3, "left out, too soon after the first")
        show(3, 3, "c")
    assert capsys.readouterr().err.splitlines() == [
        "fewview: prepare: 1 of 3, 20 s left a",
        "fewview: prepare: 3 of 3 c",
    ]


def test_a_stage_counts_time_from_where_it_was_resumed(capsys, monkeypatch):
    now = iter([0.0, 100.0, 100.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.steps("train") as show:
        show.staged("diffusion", 500, 1000, "")
        show.staged("diffusion", 600, 1000, "loss 0.1")
    assert capsys.readouterr().err.splitlines()[1] == (
        "fewview: diffusion: 600 of 1000, 40 s left loss 0.1"
    )


def test_long_times_are_told_in_minutes_and_hours():
    told = [progress._duration(seconds) for seconds in (40.0, 720.0, 12_000.0)]
    assert told == ["40 s", "12 min", "3 h 20 min"]
