"""The text of a compiled program."""

import jax
import jax.numpy as jnp

from codi_jax.parallel.hlo import Program, array_bytes

TEXT = """HloModule m

%fused (x: f32[4], y: f32[4]) -> (f32[4], f32[4]) {
  %x = f32[4]{0} parameter(0)
  %y = f32[4]{0} parameter(1)
  %n = f32[4]{0} negate(%y)
  ROOT %pair = (f32[4]{0}, f32[4]{0}) tuple(%x, %n)
}

ENTRY %main (a: f32[4], b: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %b = f32[4]{0} parameter(1)
  %one = f32[] constant(1)
  %f = (f32[4]{0}, f32[4]{0}) fusion(%a, %b), kind=kLoop, calls=%fused
  %first = f32[4]{0} get-tuple-element(%f), index=0
  %second = f32[4]{0} get-tuple-element(%f), index=1
  %padded = f32[8]{0} pad(%second, %one), padding=0_4
  ROOT %sum = f32[4]{0} add(%first, %second)
}
"""


def test_a_value_is_followed_through_fusions_to_its_argument() -> None:
    program = Program(TEXT)
    first, second = (program.argument("main", name) for name in ("first", "second"))
    assert first == program.argument("main", "a") != second
    assert second == program.argument("main", "padded") == program.argument("fused", "y")
    assert program.argument("main", "sum") is None and program.argument("main", "one") is None


def test_what_xla_writes_is_read() -> None:
    argument = jnp.zeros((4, 4))
    text = jax.jit(lambda x: jnp.tanh(x @ x).T + 1).lower(argument).compile().as_text()
    program = Program(text)
    kinds = {operation.kind for _, operation in program}
    assert {"parameter", "tanh"} <= kinds
    assert all(
        operand in program.computations[name].operations
        for name, operation in program
        for operand in operation.operands
    )


def test_bytes_of_arrays() -> None:
    assert array_bytes("(bf16[3,3,2]{2,1,0:T(8,128)(2,1)}, f32[], /*index=2*/pred[8])") == [
        36,
        4,
        8,
    ]
