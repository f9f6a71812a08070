"""Model cards and data cards, written from runs and experiments: nothing typed by hand.

A card holds what files say. What no file says is named as not known, never filled in.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fewview.data.licenses import PHANTOM
from fewview.experiment.summary import HEADLINE, Entry
from fewview.experiment.tables import Table, interval_text, markdown, views_word

WARNING = "**Research software, not a medical device: never for diagnosis or treatment.**"


def model_card(facts: Mapping[str, Any], entries: Sequence[Entry] = (), data: str = "") -> str:
    """A model's card as Markdown.

    Args:
        facts: What `facts.model_facts` found.
        entries: Its scores in an experiment, by view count.
        data: What it was scored on, in words.

    Returns:
        The card: what the model is, what it was trained for and how, its scores with 95 %
        intervals, its configuration.
    """
    size, extent = facts["size"], facts["extent_mm"]
    low, high = facts["window_hu"]
    parts = [
        f"# {facts['name']}",
        WARNING + " What a volume shows beyond its X-rays comes from the training data.",
        "## What it is",
        f"X-rays to a CT of {size} x {size} x {size} voxels of {extent / size:g} mm "
        f"({extent:g} mm cube), HU clipped to {low:g} to {high:g}. "
        f"Weights of {facts['weights_bytes'] / 1e6:.1f} MB, fingerprint "
        f"`{facts['fingerprint']}`.",
        "## Trained for",
        f"View counts {', '.join(map(str, facts['num_views']))} near the geometry "
        f"`{facts['geometry']}`. Outside of this `reconstruct` warns.",
        "## Training",
        *_training(facts["run"]),
        "## Scores",
        *_scores(entries, data),
        "## Configuration",
        f"```toml\n{facts['config'].strip()}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _training(run: Mapping[str, Any]) -> list[str]:
    """How it was trained, as far as the run beside it says."""
    if not run:
        return ["Not known: there is no run beside the model's folder."]
    start = f", from the weights of `{run['start']}`" if run["start"] else ""
    inputs = ", ".join(f"`{name}`" for name in run["inputs"])
    lines = [f"fewview {run['fewview']} on {run['device']}, read {inputs}{start}."]
    rows = [["stage", "steps", "batch"]]
    for stage, settings in run["training"].items():
        if isinstance(settings, dict) and "num_steps" in settings:
            batch = str(settings.get("batch_size", "-"))
            rows.append([stage, str(settings["num_steps"]), batch])
    if len(rows) > 1:
        lines.append(_bare(rows))
    return lines


def _scores(entries: Sequence[Entry], data: str) -> list[str]:
    """Scores by view count."""
    if not entries:
        return ["Not measured."]
    rows = [["views", "cases", *(measure.heading for measure in HEADLINE), "seconds"]]
    for entry in entries:
        cells = [interval_text(entry.measures.get(one.key), one) for one in HEADLINE]
        count = str(entry.num_cases)
        rows.append([str(entry.num_views), count, *cells, f"{entry.seconds:.2f}"])
    about = f"On {data}. Mean over cases with its 95 % bootstrap interval over cases."
    return [about, _bare(rows)]


def _bare(rows: list[list[str]]) -> str:
    """A table without its title."""
    return "\n".join(markdown(Table("", rows)).splitlines()[2:])


def data_card(
    name: str, cases: Sequence[Mapping[str, Any]], store: Mapping[str, Any] | None
) -> str:
    """The card of what an experiment was scored on, as Markdown.

    Args:
        name: Of the experiment.
        cases: Its cases, with `name`, `kind`, `place` and `checksum`.
        store: What `facts.store_facts` found, if a store was used.

    Returns:
        The card: where the cases come from and how many, the store's hash, splits and
        licenses, and the checksum of every case.
    """
    kinds = {
        kind: sum(case["kind"] == kind for case in cases) for kind in ("phantom", "store", "file")
    }
    parts = [f"# Data of {name}", WARNING, "## Cases", _kinds(kinds)]
    if store is not None:
        parts += ["## Store", *_store(store)]
    rows = [["case", "from", "checksum"]]
    rows += [[case["name"], case["kind"], f"`{case['checksum'][:16]}`"] for case in cases]
    parts += ["## Checksums", _bare(rows)]
    return "\n\n".join(parts) + "\n"


def _kinds(kinds: Mapping[str, int]) -> str:
    """How many cases of each kind, and what that means."""
    words = {
        "phantom": "from procedural phantoms of held-out seeds; license: " + PHANTOM,
        "store": "from a prepared store",
        "file": "from CT files; their licenses are not known here, see their source",
    }
    return "\n".join(f"- {count} {words[kind]}" for kind, count in kinds.items() if count)


def _store(store: Mapping[str, Any]) -> list[str]:
    """What is known of the store."""
    couch = "kept" if store["keep_couch"] else "removed"
    lines = [
        f"`{store['name']}`, layout `{store['layout']}`, {store['extent_mm'] / store['size']:g} mm "
        f"voxels, model grid of {store['size']} voxels, couch {couch}. SHA-256 of its index "
        f"`{store['index_sha256']}`, of its splits `{store['split_sha256']}`.",
        "Outside the model grid lies "
        f"{store['outside_share_mean']:.1%} of the body's mass on average and "
        f"{store['outside_share_max']:.1%} at most.",
    ]
    rows = [["split", "cases", "patients"]]
    rows += [[s, str(n["cases"]), str(n["patients"])] for s, n in store["splits"].items()]
    lines.append(_bare(rows))
    for key, word in (("collections", "collection"), ("licenses", "license")):
        rows = [[word, "cases"], *([one, str(count)] for one, count in store[key].items())]
        lines.append(_bare(rows))
    return lines


def counted(cases: Sequence[Mapping[str, Any]]) -> str:
    """How many cases of each kind, such as `20 held-out phantoms and 1 CT file`."""
    words = {"phantom": "held-out phantom", "store": "store case", "file": "CT file"}
    parts = []
    for kind, word in words.items():
        count = sum(case["kind"] == kind for case in cases)
        if count:
            parts.append(f"{count} {word}{'' if count == 1 else 's'}")
    return " and ".join(parts)


def described(cases: Sequence[Mapping[str, Any]], entries: Sequence[Entry]) -> str:
    """What an experiment was scored on, in one line."""
    views = ", ".join(views_word(n) for n in sorted({entry.num_views for entry in entries}))
    return f"{counted(cases)}; {views}"
