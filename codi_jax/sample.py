"""Make pictures with a trained model, from the command line and from Python.

    python -m codi_jax.sample --checkpoint demo --input small.jpg --output out/ --steps 4
    python -m codi_jax.sample --checkpoint models/sd21 --prompt "a cat" --output out/

The second makes a picture from text alone. In Python:

    from codi_jax.sample import Sampler

    sampler = Sampler.load("demo")
    picture = sampler(Image.open("small.jpg"), steps=4)
"""

from codi_jax.cli import app, flags
from codi_jax.parallel.platform import keep_compiled
from codi_jax.sampling.guidance import Guidance
from codi_jax.sampling.sampler import Sampler
from codi_jax.sampling.user_files import Request, make_files

__all__ = ["Sampler"]


def define_flags() -> None:
    """The flags of this command."""
    flags.define(Request)
    flags.define(Guidance)


def run(_: list[str]) -> None:
    """Make the pictures that the flags ask for."""
    keep_compiled()
    print(make_files(flags.read(Request), flags.read(Guidance)))


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__)


if __name__ == "__main__":
    main()
