"""Make pictures with a trained model, from the command line and from Python.

    python -m codi_jax.sample photo.jpg 'holiday/*.png' --output out/
    python -m codi_jax.sample --checkpoint sd --prompt "a cat" --output a.png

The second makes a picture from text alone. Exit status 3: some pictures could not be made.
`Sampler` does the same from Python; docs/sampling.md says more.
"""

import sys

from codi_jax.cli import app, flags
from codi_jax.sampling.colours import FIXES
from codi_jax.sampling.file_plan import EXISTING, STDOUT, Naming
from codi_jax.sampling.guidance import Guidance
from codi_jax.sampling.picture_formats import FORMATS
from codi_jax.sampling.sampler import Sampler
from codi_jax.sampling.sizing import Sizing
from codi_jax.sampling.tiling import Tiling
from codi_jax.sampling.user_files import Request, make_files

__all__ = ["Sampler"]


def define_flags() -> None:
    """The flags of this command."""
    flags.define(Request)
    flags.define(Naming, {"existing": EXISTING, "format": [*FORMATS]})
    flags.define(Sizing, {"color_fix": FIXES})
    flags.define(Tiling)
    flags.define(Guidance)


def run(inputs: list[str]) -> None:
    """Make the pictures that the flags ask for."""
    request = flags.read(Request, inputs=tuple(inputs))
    naming = flags.read(Naming)
    report = make_files(
        request, flags.read(Guidance), naming, flags.read(Sizing), flags.read(Tiling)
    )
    print(report.text, file=sys.stderr if naming.output == STDOUT else None)
    if report.failures:
        print(f"{len(report.failures)} not made:", *report.failures, sep="\n  ", file=sys.stderr)
        sys.exit(3)


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__, arguments=True)


if __name__ == "__main__":
    main()
