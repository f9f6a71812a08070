"""The paper's ablations, from nothing: `python benchmarks/ablation.py --out DIR`.

Makes phantoms, prepares them (and the training CTs with `--ct-data FOLDER`), trains the systems of
configs/ablation, each of which differs from both.toml in one factor, measures the alignment of
those that have one, and runs `fewview experiment configs/experiment-ablation.toml`: losses, views,
compression, sizes of the networks and denoiser calls. Rows that share stage 1 train it once. Every
step goes on where it was stopped; what evidence.py has trained into the same `--out` is taken over
where it is the same. `--only` and `--seeds` do a part of it, as in evidence.py. `--steps N` cuts
each stage to N steps, to see that everything runs.
"""

from pathlib import Path

from runs import ROOT, options_of, prepare, run_experiment, run_python, train

CONFIGS = ROOT / "configs" / "ablation"
DEFAULT = "both"
LOSSES = ("both", "contrast", "reconstruction", "ldm")
"""The four-row ablation, with the default first: all take over its stage 1 of seed 0."""

LEARNS_ON = "joint"
"""Half of stage 2, then all learns on together; on the default's stage 1 too."""

EVIDENCE = "fewview"
"""The system of evidence.py has the default's stages 1 and 2."""

COMPRESSION = ("ratio16", "ratio32", "ratio128")
PUBLISHED = "published"
"""Networks of CLS-DM's published sizes."""

SMALL = ("small", "small-ldm")
"""Networks of the sizes of configs/clsdm.toml, aligned and vanilla, all on one stage 1 too."""

ALIGNED = ("both", "contrast", LEARNS_ON, *COMPRESSION, PUBLISHED, "small")
"""What has learned a projector."""


def measure_alignment(run: Path, out: Path, steps: int | None) -> None:
    """Retrieval, distances and picture of a run's model, unless they are there."""
    if (out / "alignment.json").is_file():
        return
    words = ["-m", "fewview.experiment.alignment", run / "model", "--out", out]
    words += ["--phantoms", 50] if steps is None else ["--phantoms", 3, "--phantom-size", 64]
    run_python(*words)


def main() -> None:
    """Prepare, train, measure, compare."""
    options = options_of(__doc__, "experiment-ablation")
    out: Path = options.out
    prepare(out, options.phantoms, options.ct_data, options.workers)
    rows = [(name, seed) for seed in options.seeds for name in (*LOSSES, *SMALL)]
    rows += [(name, 0) for name in (LEARNS_ON, *COMPRESSION, PUBLISHED) if 0 in options.seeds]
    for name, seed in rows:
        if options.only and name not in options.only:
            continue
        shared = DEFAULT if name in (*LOSSES, LEARNS_ON) else SMALL[0] if name in SMALL else None
        source = CONFIGS / f"{name}.toml"
        evidence = EVIDENCE if name == DEFAULT else None
        run = train(source, seed, options, stage_one_of=shared, stage_two_of=evidence)
        if name in ALIGNED:
            measure_alignment(run, out / "alignment" / f"{name}-{seed}", options.steps)
    if not options.only:
        run_experiment(options.experiment, options)


if __name__ == "__main__":
    main()
