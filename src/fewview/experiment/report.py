"""Everything a finished experiment writes for people, from its per-case results alone.

No model and no CT is opened: tables, plots, example pages, cards and the report can be made
again on any machine that has the experiment's folder.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewview import config as config_files
from fewview.data.files import replacing_file, replacing_folder
from fewview.evaluation.experiment_report import Picture, Section, write_page
from fewview.evaluation.protocols import HEADLINE, NEEDS_WEIGHTS, RETRIEVAL, UNMEASURED
from fewview.experiment.cards import counted, data_card, described, model_card
from fewview.experiment.config import ExperimentConfig, slug
from fewview.experiment.methods import is_trained_by_seed
from fewview.experiment.plots import plots
from fewview.experiment.results import (
    CONFIG,
    COSTS,
    PLAN,
    RESULTS,
    Result,
    read_result,
    write_tables,
)
from fewview.experiment.scoring import add_retrieval
from fewview.experiment.seeds import by_seed
from fewview.experiment.summary import (
    Entry,
    Place,
    by_place,
    paired_tests,
    summarize,
    worst_and_median,
)
from fewview.experiment.tables import (
    CEILING_MARK,
    Table,
    headline_tables,
    left_out_tables,
    markdown,
    paired_table,
    protocol_tables,
    seed_table,
    views_word,
)

FEW_CASES = 10
"""With fewer, a percentile bootstrap covers clearly less often than it says."""

PLOT_CAPTIONS = {
    "quality-views": "Quality against the number of views",
    "quality-calls": "Quality against denoiser calls",
    "quality-time": "Quality against the time of one volume",
}
ABOUT_EXAMPLES = (
    "Each picture: truth, reconstruction and their difference from top to bottom; the middle "
    "axial, coronal and sagittal slice from left to right. HU from -1000 (black) to 600 (white); "
    "differences from -500 HU (blue, too low) to 500 HU (red, too high)."
)


def report_experiment(out: Path) -> list[Entry]:
    """Write all tables, plots, pages and cards of an experiment.

    Args:
        out: The experiment's folder.

    Returns:
        The means with their intervals.

    Raises:
        ValueError: If the folder is no experiment or has no finished result.
    """
    config, plan = _read(out)
    results, missing = _results(out, plan, config)
    if not results:
        raise ValueError(f"{out}: nothing is finished yet{_first_reason(plan)}")
    entries = summarize(results, _flop(out, plan))
    models = {name: facts["name"] for name, facts in plan["models"].items()}
    drawn = plots(entries, models)
    tables = _tables(config, plan, results, entries)
    notes = _notes(config, plan, results, missing)
    write_tables(out, results)
    _write(out / "tables.md", _as_markdown(config, tables, notes))
    with replacing_folder(out / "plots", force=True) as folder:
        for name, data in drawn.items():
            (folder / f"{name}.svg").write_bytes(data)
    _write_cards(out, config, plan, entries)
    _write_examples(out, config, results)
    _write_report(out, config, results, tables, notes, drawn)
    return entries


def _read(out: Path) -> tuple[ExperimentConfig, dict[str, Any]]:
    """An experiment's config and plan."""
    try:
        plan = json.loads((out / PLAN).read_text(encoding="utf-8"))
        config = config_files.load(out / CONFIG, ExperimentConfig)
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{out} holds no finished experiment; run it first") from error
    return config, plan


def _results(out: Path, plan: dict[str, Any], config: ExperimentConfig) -> tuple[list[Result], int]:
    """The finished results of the plan in the config's order, and how many are missing."""
    read = [read_result(out / RESULTS / f"{key}.json") for key in plan["results"]]
    found = [result for result in read if result is not None]
    if RETRIEVAL in config.protocols:
        groups: dict[tuple[str, int, int], list[Result]] = {}
        for one in found:
            groups.setdefault((one.method, one.num_views, one.seed), []).append(one)
        found = [one for group in groups.values() for one in add_retrieval(out / RESULTS, group)]
    order = {name: index for index, name in enumerate(config.methods)}
    found.sort(key=lambda one: (order[one.method], one.num_views))
    return found, len(read) - len(found)


def _first_reason(plan: dict[str, Any]) -> str:
    """Why nothing is there, if something failed."""
    return f" ({plan['failed'][0]['reason']})" if plan["failed"] else ""


def _flop(out: Path, plan: dict[str, Any]) -> dict[Place, float | None]:
    """Counted arithmetic by method and view count."""
    found: dict[Place, float | None] = {}
    for method, by_views in plan["costs"].items():
        for num_views, key in by_views.items():
            try:
                counted = json.loads((out / COSTS / f"{key}.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            found[method, int(num_views)] = counted.get("flop")
    return found


def _tables(
    config: ExperimentConfig,
    plan: dict[str, Any],
    results: Sequence[Result],
    entries: Sequence[Entry],
) -> list[Table]:
    """All tables of the report, in order."""
    tables = headline_tables(entries)
    trained = {name for name, method in config.methods.items() if is_trained_by_seed(method)}
    paired = paired_table(paired_tests(results, config.reference), config.reference)
    seeds = seed_table(by_seed(results, trained, config.reference), config.reference)
    tables += [table for table in (paired, seeds) if table is not None]
    tables += protocol_tables(entries, [one for one in config.protocols if one != HEADLINE])
    return tables + left_out_tables(plan["skipped"], plan["failed"])


def _notes(
    config: ExperimentConfig, plan: dict[str, Any], results: Sequence[Result], missing: int
) -> list[str]:
    """What has to be known to read the numbers."""
    noise = "noise-free" if config.photons is None else f"{config.photons:g} photons per pixel"
    scored, grid = config.scored, config.grid
    notes = [
        f"Cases: {counted(plan['cases'])}. X-rays: geometry {config.geometry}, "
        f"{config.num_pixels} x {config.num_pixels} pixels, {noise}, spread over 180 degrees "
        "from 0.",
        f"Scored by hu3d (HU clipped to -1000 to 1500) on {scored.size} voxels a side over "
        f"{scored.extent_mm:g} mm about the isocenter, where it was scanned. Methods without a "
        f"grid of their own reconstruct {grid.size} voxels a side over {grid.extent_mm:g} mm.",
        "Mean over cases; in brackets the 95 % bootstrap interval over cases. Seeds are averaged "
        "within a case first.",
        "Seconds: median wall time of one volume, weights already read. Peak MB: largest resident "
        "memory of the process, libraries included. GFLOP: convolutions, matrix products, "
        "attention and the interpolations of projector and lifting, counted in one run. NFE: "
        "denoiser calls.",
        _machine(plan, results),
    ]
    if any(result.ceiling for result in results):
        notes.append("A ceiling sees the truth: it bounds other methods and is no method itself.")
    if len(plan["cases"]) < FEW_CASES:
        notes.append(f"Fewer than {FEW_CASES} cases: their intervals are narrower than the truth.")
    if missing:
        notes.append(f"{missing} results are missing; see what failed.")
    for name in config.protocols:
        if name in NEEDS_WEIGHTS:
            notes.append(f"Protocol {name} is without {NEEDS_WEIGHTS[name]}.")
    notes.append(UNMEASURED)
    notes += sorted({note for result in results for note in result.notes})
    return notes


def _machine(plan: dict[str, Any], results: Sequence[Result]) -> str:
    """On what, and by which version."""
    devices = ", ".join(sorted({result.device for result in results}))
    threads = ", ".join(str(n) for n in sorted({result.num_threads for result in results}))
    sources = sorted({result.source for result in results})
    mixed = (
        "; results of several states of the source stand side by side" if len(sources) > 1 else ""
    )
    return (
        f"Device {devices}, {threads} threads, {plan['workers']} at once in the last run. "
        f"fewview {results[0].version}, source {', '.join(sources)}{mixed}."
    )


def _as_markdown(config: ExperimentConfig, tables: Sequence[Table], notes: Sequence[str]) -> str:
    """All tables as one Markdown file."""
    head = f"# {config.name}\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"
    return head + "\n" + "\n".join(markdown(table) for table in tables)


def _write(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_cards(
    out: Path, config: ExperimentConfig, plan: dict[str, Any], entries: Sequence[Entry]
) -> None:
    """Write `cards/data.md` and a card per model."""
    with replacing_folder(out / "cards", force=True) as folder:
        card = data_card(config.name, plan["cases"], plan["store"])
        (folder / "data.md").write_text(card, encoding="utf-8")
        for name, facts in plan["models"].items():
            mine = [entry for entry in entries if entry.method == name]
            card = model_card(facts, mine, described(plan["cases"], mine))
            (folder / f"model-{slug(name)}.md").write_text(card, encoding="utf-8")


def _write_examples(out: Path, config: ExperimentConfig, results: Sequence[Result]) -> None:
    """Write a page per method with the worst and the median case at every view count."""
    places = by_place(results)
    with replacing_folder(out / "examples", force=True) as folder:
        for name in dict.fromkeys(result.method for result in results):
            sections = [
                Section(views_word(num_views), pictures=_examples(out, rows))
                for (method, num_views), rows in places.items()
                if method == name
            ]
            sections[0] = Section(
                sections[0].title, (ABOUT_EXAMPLES,), pictures=sections[0].pictures
            )
            title = f"{config.name}: {name}"
            write_page(folder / f"{slug(name)}.html", title=title, sections=sections)


def _examples(out: Path, rows: Sequence[Result]) -> tuple[Picture, ...]:
    """The worst and the median case of a method at a view count."""
    worst, median = worst_and_median(rows)
    pictures = []
    for word, result in (("worst", worst), ("median", median)):
        path = out / RESULTS / f"{result.key}.png"
        if not path.is_file():
            continue
        caption = (
            f"{result.method}{CEILING_MARK if result.ceiling else ''}, {word} of {len(rows)}: "
            f"{result.case}, seed {result.seed}, PSNR {result.scores['psnr']:.2f} dB, "
            f"SSIM {result.scores['ssim']:.3f}"
        )
        pictures.append(Picture(path.read_bytes(), "png", caption, small=True))
    return tuple(pictures)


def _write_report(
    out: Path,
    config: ExperimentConfig,
    results: Sequence[Result],
    tables: Sequence[Table],
    notes: Sequence[str],
    drawn: dict[str, bytes],
) -> None:
    """Write `report.html`."""
    sections = [Section("How to read the numbers", tuple(notes))]
    sections += [
        Section(
            table.title,
            (table.note,) if table.note else (),
            tuple(tuple(row) for row in table.rows),
        )
        for table in tables
    ]
    pictures = tuple(Picture(data, "svg", PLOT_CAPTIONS[name]) for name, data in drawn.items())
    sections.insert(1, Section("Plots", pictures=pictures))
    places = by_place(results)
    shown = 2 if 2 in config.num_views else config.num_views[0]
    examples = tuple(
        picture
        for (_, num_views), rows in places.items()
        if num_views == shown
        for picture in _examples(out, rows)
    )
    about = f"{ABOUT_EXAMPLES} Other view counts are in the folder examples."
    title = f"Worst and median cases, {views_word(shown)}"
    sections.append(Section(title, (about,), pictures=examples))
    write_page(out / "report.html", title=config.name, sections=sections)
