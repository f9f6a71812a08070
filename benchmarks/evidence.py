"""The default evidence of docs/results.md, from nothing: `python benchmarks/evidence.py --out DIR`.

Makes phantoms, prepares them (and, with `--ct-data FOLDER`, the training CTs of
configs/fewview-64.csv), trains every system of configs/evidence with the same budget, and runs
`fewview experiment` on held-out phantoms. Every step goes on where it was stopped. `--steps N`
cuts each stage to N steps and the experiment to two phantoms, to see that everything runs.
"""

from runs import ROOT, options_of, prepare, run_experiment, train

CONFIGS = ROOT / "configs" / "evidence"
HEADLINE_SEEDS = (0, 1, 2)
RUNS = {  # the system, its seeds, and whose model it starts from
    "fewview": (HEADLINE_SEEDS, None),
    "x2ct-cnn": (HEADLINE_SEEDS, None),
    "x2ct-gan": ((0,), "x2ct-cnn"),
    "inrr3ct": ((0,), None),
    "ldm": ((0,), None),
    "coarse": ((0,), "fewview"),
}


def main() -> None:
    """Prepare, train, compare."""
    options = options_of(__doc__, "experiment-evidence")
    prepare(options.out, options.phantoms, options.ct_data)
    for name, (seeds, start) in RUNS.items():
        for seed in seeds:
            train(CONFIGS / f"{name}.toml", seed, options.out, options.steps, start=start)
    run_experiment(options.experiment, options.out, options.steps)


if __name__ == "__main__":
    main()
