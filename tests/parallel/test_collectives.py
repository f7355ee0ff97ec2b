"""Collectives read from a program's text."""

import jax
import jax.numpy as jnp

from codi_jax.parallel.collectives import Traffic, collectives, windowed_loops
from codi_jax.parallel.mesh import batch_sharding, make_mesh, replicated

TEXT = """
  %all-gather.1 = bf16[3,3,16,16]{3,2,1,0} all-gather(bf16[3,3,16,2]{3,2,1,0} %p), dimensions={3}
  %start = (f32[8]{0}, f32[64]{0}) all-gather-start(f32[8]{0} %q), dimensions={0}
  %done = f32[64]{0} all-gather-done((f32[8]{0}, f32[64]{0}) %start)
  %sum = f32[] all-reduce(f32[] %r), to_apply=%add
  ROOT %fusion = f32[64]{0} fusion(f32[64]{0} %done), calls=%all-gather-like
"""


def test_kinds_numbers_and_bytes() -> None:
    assert collectives(TEXT) == {
        "all-gather": Traffic(2, 2 * 9 * 16 * 16 + 4 * 64),
        "all-reduce": Traffic(1, 4),
    }
    assert collectives("") == {}


def test_of_a_program_that_xla_compiled() -> None:
    mesh = make_mesh(data=8, fsdp=1)
    mean = jax.jit(jnp.mean, in_shardings=batch_sharding(mesh), out_shardings=replicated(mesh))
    text = mean.lower(jax.ShapeDtypeStruct((16, 4), jnp.float32)).compile().as_text()
    assert collectives(text) == {"all-reduce": Traffic(1, 4)}


LOOPS = """HloModule m, is_scheduled=true

%body.1 (p: (f32[4])) -> (f32[4]) {
  %p = (f32[4]) parameter(0)
  %send = f32[4]{0} collective-permute-start(%p), source_target_pairs={{0,1},{1,0}}
}

%body.2 (p: (f32[4])) -> (f32[4]) {
  %p = (f32[4]) parameter(0)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %a = (f32[4]) while(%x), condition=%c.1, body=%body.1
  %b = (f32[4]) while(%a), condition=%c.2, body=%body.2
  %c = f32[4]{0} collective-permute(%b), source_target_pairs={{0,1},{1,0}}
}
"""


def test_loops_over_slices_are_those_that_send_in_every_turn() -> None:
    assert windowed_loops(LOOPS) == 1
    assert windowed_loops(TEXT) == 0
