"""Collectives read from a program's text."""

import jax
import jax.numpy as jnp

from codi_jax.parallel.collectives import (
    Gathers,
    Traffic,
    collectives,
    gathers,
    windowed_loops,
)
from codi_jax.parallel.hlo import Program
from codi_jax.parallel.mesh import batch_sharding, make_mesh, replicated

TEXT = """HloModule m, is_scheduled=true

%all-reduce-scatter.1 (in.0: bf16[8,64], in.1: bf16[64]) -> (bf16[8,8], bf16[8]) {
  %in.0 = bf16[8,64]{1,0} parameter(0)
  %in.1 = bf16[64]{0} parameter(1)
  %sums = (bf16[8,64]{1,0:T(8,128)}, bf16[64]{0}) all-reduce(%in.0, %in.1), to_apply=%add
  ROOT %cut = (bf16[8,8]{1,0:T(8,128)(2,1)}, bf16[8]{0}) custom-call(%sums)
}

%begin (p.0: bf16[4,8]) -> (bf16[4,8], bf16[4,64]) {
  %p.0 = bf16[4,8]{1,0} parameter(0)
  %all-gather.7 = bf16[4,64]{1,0:T(8,128)} all-gather(%p.0), channel_id=9, dimensions={1}
  ROOT %both = (bf16[4,8]{1,0}, bf16[4,64]{1,0}) tuple(%p.0, %all-gather.7)
}

%goes_on (p.1: bf16[4,8]) -> bf16[4,64] {
  %p.1 = bf16[4,8]{1,0} parameter(0)
  ROOT %all-gather.8 = bf16[4,64]{1,0:T(8,128)S(1)} all-gather(%p.1), channel_id=9, dimensions={1}
}

ENTRY %main (all: (f32[3,3,16,2], bf16[4,8], f32[8])) -> f32[64] {
  %all = (f32[3,3,16,2]{3,2,1,0}, bf16[4,8]{1,0}, f32[8]{0}) parameter(0)
  %p = f32[3,3,16,2]{3,2,1,0} get-tuple-element(%all), index=0
  %half = bf16[3,3,16,2]{3,2,1,0:T(8,128)(2,1)} convert(%p)
  %all-gather.1 = bf16[3,3,16,16]{3,2,1,0} all-gather(bf16[3,3,16,2]{3,2,1,0} %half), dimensions={3}
  %k = bf16[4,8]{1,0} get-tuple-element(%all), index=1
  %begun = (bf16[4,8]{1,0}, bf16[4,64]{1,0}) fusion(%k), kind=kCustom, calls=%begin
  %again = bf16[4,8]{1,0} get-tuple-element(%begun), index=0
  %ended = bf16[4,64]{1,0} fusion(%again), kind=kCustom, calls=%goes_on
  %q = f32[8]{0} get-tuple-element(%all), index=2
  %mixed = f32[8]{0} add(%q, %p)
  %start = (f32[8]{0}, f32[64]{0}) all-gather-start(f32[8]{0} %mixed), dimensions={0}
  %done = f32[64]{0} all-gather-done((f32[8]{0}, f32[64]{0}) %start)
  %two = ((f32[8]{0}, f32[8]{0}), (f32[64]{0}, f32[64]{0})) all-gather-start(%q, %q), dimensions={0}
  %sum = (f32[], bf16[7]{0}) all-reduce(%r, %s), to_apply=%add
  %kept = (bf16[8,8]{1,0}, bf16[8]{0}) fusion(%g, %b), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %fusion = f32[64]{0} fusion(f32[64]{0} %done), calls=%all-gather-like
}
"""


def test_kinds_numbers_and_bytes() -> None:
    assert collectives(Program(TEXT)) == {
        "all-gather": Traffic(4, 2 * 9 * 16 * 16 + 2 * 4 * 64 + 4 * 64 + 2 * 4 * 64),
        "all-reduce": Traffic(1, 4 + 2 * 7),
        "reduce-scatter": Traffic(1, 2 * 8 * 8 + 2 * 8),
    }
    assert collectives(Program("")) == {}


def test_gathers_belong_to_arguments() -> None:
    # %p and %k once each, %q twice at once, and one of a sum.
    assert gathers(Program(TEXT)) == Gathers(arguments=3, most=2, computed=1)
    assert gathers(Program("")) == Gathers()


def test_of_a_program_that_xla_compiled() -> None:
    mesh = make_mesh(data=8, fsdp=1)
    mean = jax.jit(jnp.mean, in_shardings=batch_sharding(mesh), out_shardings=replicated(mesh))
    text = mean.lower(jax.ShapeDtypeStruct((16, 4), jnp.float32)).compile().as_text()
    assert collectives(Program(text)) == {"all-reduce": Traffic(1, 4)}


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
    assert windowed_loops(Program(LOOPS)) == 1
    assert windowed_loops(Program(TEXT)) == 0
