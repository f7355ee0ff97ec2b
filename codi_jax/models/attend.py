"""Attention without the whole matrix of scores, which at full size is nearly all of the memory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

#: From so many queries and keys on, the scores of one head are not held whole.
LONG = 1024
#: Queries whose scores are held at a time.
CHUNK = 512
#: Widths of a head that cuDNN's kernel takes, forwards and backwards: multiples of 8 up to this.
CUDNN_WIDTH = 128


def attend(
    q: Float[Array, "batch queries heads head_dim"],
    k: Float[Array, "batch keys heads head_dim"],
    v: Float[Array, "batch keys heads head_dim"],
) -> Float[Array, "batch queries heads head_dim"]:
    """Softmax attention, scores and softmax in float32.

    Short sequences are XLA's. Of long ones (:data:`LONG`) cuDNN's flash attention takes those in
    half precision on a GPU; elsewhere the queries go in chunks, whose scores are computed again
    for the gradient. All three differ by rounding alone.
    """
    if min(q.shape[1], k.shape[1]) < LONG:
        return jax.nn.dot_product_attention(q, k, v)
    if _cudnn_takes(q):
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    return _in_chunks(q, k, v)


def _cudnn_takes(q: Float[Array, "batch queries heads head_dim"]) -> bool:
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    width = q.shape[-1]
    return jax.default_backend() == "gpu" and half and width % 8 == 0 and width <= CUDNN_WIDTH


def _in_chunks(
    q: Float[Array, "batch queries heads head_dim"],
    k: Float[Array, "batch keys heads head_dim"],
    v: Float[Array, "batch keys heads head_dim"],
) -> Float[Array, "batch queries heads head_dim"]:
    batch, queries, heads, width = q.shape
    count = -(-queries // CHUNK)
    padded = jnp.pad(q, ((0, 0), (0, count * CHUNK - queries), (0, 0), (0, 0)))
    chunks = padded.reshape(batch, count, CHUNK, heads, width).swapaxes(0, 1)

    @jax.checkpoint
    def one(chunk: Float[Array, "batch chunk heads head_dim"]) -> Array:
        return jax.nn.dot_product_attention(chunk, k, v)

    made = jax.lax.map(one, chunks)
    return made.swapaxes(0, 1).reshape(batch, count * CHUNK, heads, width)[:, :queries]
