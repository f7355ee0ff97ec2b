"""Compile a run's training step for machines that you do not have, and say what it will cost.

    python -m codi_jax.aot --config=configs/sr.py:sd21 --topology=v5e:4x4
    python -m codi_jax.aot --config=configs/sr.py --quick

No weights are read and no chip is needed; a full-size step takes minutes to compile. Printed are
computation, memory against the chip's, what the devices send each other, and a bound on the speed.
"""

from pathlib import Path

from absl import flags

from codi_jax.checkpoint.files import save_json
from codi_jax.cli import app
from codi_jax.parallel.mesh import make_mesh
from codi_jax.parallel.topology import topology_devices
from codi_jax.run.ahead import compile_ahead
from codi_jax.run.config import define_config_flag
from codi_jax.run.plan import plan
from codi_jax.run.summary import summary
from codi_jax.typing import UserError


def define_flags() -> None:
    """The flags of this command."""
    define_config_flag("Path of the config, e.g. configs/sr.py:sd21")
    flags.DEFINE_string("topology", "", "TPU slice, e.g. v5e:4x4; by default this machine")
    flags.DEFINE_bool("quick", False, "Count, and compile nothing")
    flags.DEFINE_string("output", "", "JSON file that the figures are written to, too")


def run(_: list[str]) -> None:
    """Compile as the flags say, and print the report."""
    args = flags.FLAGS
    if args.config is None:
        raise UserError("give --config=configs/sr.py:sd21; see --help.")
    config, mesh = args.config, None
    if args.topology:
        mesh = make_mesh(**config.mesh, devices=topology_devices(args.topology))
        if config.dtype == "auto":
            config.dtype = "bfloat16"  # as it would be there
    planned = plan(config, mesh)
    print(summary(planned))
    ahead = compile_ahead(planned, args.quick)
    print(ahead.text())
    if args.output:
        save_json(Path(args.output).expanduser(), ahead.to_json())


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__)


if __name__ == "__main__":
    main()
