"""Either autoencoder by its config: the only place that knows which classes there are."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.autoencoder_dc import AutoencoderDC
from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig
from codi_jax.models.configs import AutoencoderConfig
from codi_jax.models.parts import parts, whole
from codi_jax.typing import Array, Params, Settings, UserError

#: Both have ``downsampling``, ``latent_channels``, ``scaling_factor``, ``CLASS``, ``unit_sized``
#: and ``reach``.
AnyAutoencoderConfig = AutoencoderConfig | AutoencoderDCConfig
#: Both have ``encode``, ``decode``, ``encode_unscaled``, ``decode_unscaled`` and ``__call__``.
Whole = AutoencoderKL | AutoencoderDC


@dataclasses.dataclass(frozen=True)
class InParts:
    """An autoencoder that works through a batch in equal parts, one after the other.

    It holds the activations of one part alone, and for a gradient computes them again. The
    numbers are those of the whole batch, but for rounding.

    Attributes:
        network: the autoencoder.
        count: of parts; the batch is a multiple of it.
    """

    network: Whole
    count: int

    @property
    def config(self) -> AnyAutoencoderConfig:
        """The autoencoder's."""
        return self.network.config

    def apply(self, variables: Params, values: Array, *, method: str) -> Array:
        """As flax's ``apply``, for a method that takes one array [B, ...]."""

        @jax.checkpoint
        def one(part: Array) -> Array:
            return self.network.apply(variables, part, method=method)

        return whole(jax.lax.map(one, parts(values, self.count)))


#: What encodes and decodes.
Autoencoder = Whole | InParts
_CONFIGS: dict[str, type[AutoencoderConfig] | type[AutoencoderDCConfig]] = {
    config.CLASS: config for config in (AutoencoderConfig, AutoencoderDCConfig)
}
#: diffusers' names of the classes.
CLASSES = tuple(_CONFIGS)


def autoencoder_config(config: Settings) -> AnyAutoencoderConfig:
    """The architecture that the content of a ``config.json`` describes.

    Args:
        config: names its class as ``_class_name``; without that it is an ``AutoencoderKL``.

    Raises:
        UserError: another class, or a key or value that is not implemented.
    """
    name = config.get("_class_name", AutoencoderConfig.CLASS)
    if not isinstance(name, str) or name not in _CONFIGS:
        raise UserError(
            f"the autoencoder's _class_name is {name!r}; choose one of {', '.join(CLASSES)}."
        )
    return _CONFIGS[name].from_config(dict(config))


def make_autoencoder(config: AnyAutoencoderConfig, dtype: DTypeLike = jnp.float32) -> Whole:
    """The network of an architecture, computing in ``dtype``."""
    if isinstance(config, AutoencoderDCConfig):
        return AutoencoderDC(config, dtype)
    return AutoencoderKL(config, dtype)


# A plan asks for the shapes, a start for the parameters: flax is traced for both once.
@functools.partial(jax.jit, static_argnums=0)
def init_autoencoder(config: AnyAutoencoderConfig, key: jax.Array) -> Params:
    """Random parameters; of an ``AutoencoderKL`` with a narrow posterior.

    Drawn as usual, the posterior's deviation would start at 1 and bury the mean: training would
    spend its first thousands of steps on shrinking it.
    """
    side = 2 * config.downsampling
    images = jax.ShapeDtypeStruct((1, side, side, config.in_channels), jnp.float32)
    params = make_autoencoder(config).lazy_init(key, images, key)["params"]
    if isinstance(config, AutoencoderConfig):
        last = params["quant_conv"] if config.use_quant_conv else params["encoder"]["conv_out"]
        last["bias"] = last["bias"].at[config.latent_channels :].set(-8.0)  # the log-variance
    return params
