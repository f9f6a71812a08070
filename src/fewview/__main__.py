"""`python -m fewview`: the command, also where its script is not on the path (torchrun -m)."""

from fewview.cli import main

if __name__ == "__main__":
    main()
