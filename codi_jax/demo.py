"""A page in the browser that makes pictures: drop one, look at before and after.

    python -m codi_jax.demo
    python -m codi_jax.demo --checkpoint demo,runs/inpaint --port 8000

It needs the extra `demo`: pip install 'codi_jax[demo]'. Ctrl-C stops it. Only this machine reaches
it, unless --host says otherwise: there are no passwords.
"""

import threading

from codi_jax.cli import app, flags
from codi_jax.sampling.page.limits import PageOptions
from codi_jax.sampling.page.server import serving
from codi_jax.sampling.tiling import Tiling


def define_flags() -> None:
    """The flags of this command."""
    flags.define(PageOptions)
    flags.define(Tiling)


def run(_: list[str]) -> None:
    """Serve the page until the command is stopped."""
    with serving(flags.read(PageOptions), flags.read(Tiling)) as address:
        print(f"the page is at {address} (Ctrl-C stops it)", flush=True)
        threading.Event().wait()


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__)


if __name__ == "__main__":
    main()
