"""The default evidence of docs/results.md, from nothing: `python benchmarks/evidence.py --out DIR`.

Makes phantoms, prepares them (and, with `--ct-data FOLDER`, the training CTs of
configs/fewview-64.csv), trains every system of configs/evidence and the plain latent diffusion of
configs/ablation with the same budget, and runs `fewview experiment` on held-out phantoms. With
`--ct-data` it also runs on the validation CT. Every step goes on where it was stopped. Several at
once, each in its own terminal: `--only fewview,ldm,coarse` and `--only x2ct-cnn,x2ct-gan,inrr3ct`
only train; then the command without `--only`. `--seeds 0` does a third of it. `--steps N` cuts each
stage to N steps and the experiment to two phantoms, to see that everything runs.
"""

from runs import ROOT, options_of, prepare, run_experiment, train

CONFIGS = {
    name: ROOT / "configs" / "evidence" / f"{name}.toml"
    for name in ("fewview", "x2ct-cnn", "x2ct-gan", "inrr3ct", "coarse")
}
CONFIGS["ldm"] = ROOT / "configs" / "ablation" / "ldm.toml"
"""Plain latent diffusion is one of the ablations too; trained once, it serves both."""

HEADLINE_SEEDS = (0, 1, 2)
RUNS = {  # the system, its seeds, and whose model it starts from
    "fewview": (HEADLINE_SEEDS, None),
    "x2ct-cnn": (HEADLINE_SEEDS, None),
    "x2ct-gan": ((0,), "x2ct-cnn"),
    "inrr3ct": ((0,), None),
    "ldm": ((0,), None),
    "coarse": ((0,), "fewview"),
}
STAGE_ONE_OF = {"fewview": "fewview", "ldm": "fewview"}
"""Whose stage 1 of seed 0 a row takes over: all seeds of both have one autoencoder."""


def main() -> None:
    """Prepare, train, compare."""
    options = options_of(__doc__, "experiment-evidence")
    prepare(options.out, options.phantoms, options.ct_data, options.workers)
    for seed in options.seeds:
        for name, (seeds, start) in RUNS.items():
            if seed not in seeds or (options.only and name not in options.only):
                continue
            train(
                CONFIGS[name],
                seed,
                options,
                start=start,
                stage_one_of=STAGE_ONE_OF.get(name),
            )
    if not options.only:
        run_experiment(options.experiment, options)


if __name__ == "__main__":
    main()
