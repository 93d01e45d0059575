"""Rows of activations as products read them, and the row kernels that write them.

A row has a *form*. `S8`: a group of 32 inputs is 44 bytes: 32 signed codes, their float32 scale
amax / 127, the scale times the sum of the codes (for minima), and -128 times the sum as int32
(for weights taken plus 128). `BF16`: the inputs as bfloat16 where an instruction multiplies
those, else as float32. Widths are multiples of 32; addresses and counts are not checked.

A group with a value that is not finite gets a scale that is not finite, which makes every
output of its row infinite or not a number.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import partial

from pie.errors import UsageError

from .bfloat import narrow
from .dot import lanes
from .embed import emit_embed
from .emit import F32, I8, I32, I64, Emit, Value, const, vector
from .layout import GROUP, Kind
from .library import Emitter, load
from .target import Target, detect


class Form(IntEnum):
    """How a row is stored; the numbers are what kernels switch on."""

    S8 = 0
    BF16 = 1


CODE_GROUP = 44
"""Bytes of a group of a row of form S8: codes, scale, scale * sum, -128 * sum."""
SCALE, SCALED_SUM, LESS = 32, 36, 40

_TINIEST = 2.0**-120
"""Groups with no larger value are zeros; 127 over it is still finite."""


def form_of(kind: Kind) -> Form:
    """The form of rows that a matrix of that kind is multiplied with."""
    return Form.BF16 if kind is Kind.BF16 else Form.S8


def group_bytes(form: Form, target: Target) -> int:
    """Bytes of 32 inputs of a row."""
    if form is Form.S8:
        return CODE_GROUP
    return GROUP * (2 if target.bf16 else 4)


def row_bytes(form: Form, inputs: int, target: Target | None = None) -> int:
    """Bytes of a row, a multiple of 64; of this machine's target if none is given."""
    target = target or detect()
    if target is None:
        raise UsageError("there are no packed kernels for this machine")
    return -(-(inputs // GROUP * group_bytes(form, target)) // 64) * 64


def _load(e: Emit, address: Value) -> list[Value]:
    """32 float32 as vectors."""
    return [e.load(e.F, address, 4 * at) for at in range(0, GROUP, e.lanes)]


def _fold(e: Emit, values: list[Value], join: Callable[[Value, Value], Value]) -> Value:
    """One scalar of 32 lanes, by one tree for all targets: lane i with i + 16, then i + 8, ..."""
    b = e.b
    while len(values) > 1:
        half = len(values) // 2
        values = [join(x, y) for x, y in zip(values[:half], values[half:], strict=True)]
    value = values[0]
    while value.type.count > 2:
        half = value.type.count // 2
        value = join(*(b.shuffle_vector(value, value, lanes(at, half)) for at in (0, half)))
    return join(*(b.extract_element(value, const(I32, i)) for i in (0, 1)))


def _codes(e: Emit, values: list[Value], address: Value) -> None:
    """Write a group of form S8."""
    b, whole = e.b, e.I
    bits = [b.and_(b.bitcast(value, whole), const(whole, 0x7FFFFFFF)) for value in values]
    # As integers the bits of sizes are in order, and those that are no number above infinity's.
    top = _fold(e, bits, lambda x, y: b.select(b.icmp_signed(">", x, y), x, y))
    size = b.bitcast(top, F32)
    usable = b.fcmp_ordered(">=", size, const(F32, _TINIEST))
    inverse = b.select(usable, b.fdiv(const(F32, 127.0), size), const(F32, 0.0))
    scale, factor, total = b.fmul(size, const(F32, 1 / 127)), e.splat(inverse), const(whole, 0)
    for i, value in enumerate(values):
        bounded = e.maximum(e.round(b.fmul(value, factor)), const(e.F, -127.0))
        code = b.fptosi(e.minimum(bounded, const(e.F, 127.0)), whole)
        e.store(b.trunc(code, vector(I8, e.lanes)), address, e.lanes * i)
        total = b.add(total, code)
    count = e.total_int(total)
    e.store(scale, address, SCALE)
    e.store(b.fmul(scale, b.sitofp(count, F32)), address, SCALED_SUM)
    e.store(b.mul(count, const(I32, -128)), address, LESS)


def write_group(e: Emit, form: Form, values: list[Value], row: Value, group: Value) -> None:
    """Write 32 inputs, as vectors of float32, as one group of a row."""
    address = e.at(row, group, group_bytes(form, e.target))
    if form is Form.S8:
        _codes(e, values, address)
    elif e.target.bf16:
        for i, value in enumerate(values):
            e.store(narrow(e, value), address, 2 * e.lanes * i)
    else:
        for i, value in enumerate(values):
            e.store(value, address, 4 * e.lanes * i)


def _by_form(e: Emit, form: Value, body: Callable[[Form], None]) -> None:
    for known in Form:
        e.when(e.b.icmp_signed("==", form, const(I64, known)), partial(body, known))


def _each_group(e: Emit, groups: Value, body: Callable[[Value], None]) -> None:
    """`body(i)` for i in 0 .. groups-1, which may be none."""

    def step(index: Value, _: list[Value]) -> list[Value]:
        body(index)
        return []

    def loop() -> None:
        e.loop(groups, [], step)

    e.when(e.b.icmp_signed(">", groups, const(I64, 0)), loop)


def _quantise(
    e: Emit, form: Value, source: Value, row: Value, inputs: Value, first: Value, groups: Value
) -> None:
    """Groups first .. first+groups-1 of a row, of float32 that begin at `source`."""

    def write(known: Form) -> None:
        def group(i: Value) -> None:
            write_group(e, known, _load(e, e.at(source, i, 4 * GROUP)), row, e.b.add(first, i))

        _each_group(e, groups, group)

    _by_form(e, form, write)


def _normalised(
    e: Emit, x: Value, weight: Value, width: Value, epsilon: Value
) -> Callable[[Value], list[Value]]:
    """Group i of x / sqrt(mean(x ** 2) + epsilon) * weight."""
    b = e.b

    def squares(i: Value, sums: list[Value]) -> list[Value]:
        values = _load(e, e.at(x, i, 4 * GROUP))
        return [e.fma(v, v, total) for v, total in zip(values, sums, strict=True)]

    groups = b.sdiv(width, const(I64, GROUP))
    sums = e.loop(groups, [const(e.F, 0.0)] * (GROUP // e.lanes), squares)
    mean = b.fdiv(_fold(e, sums, b.fadd), b.sitofp(width, F32))
    root = e.overloaded("sqrt", F32, b.fadd(mean, epsilon))
    factor = e.splat(b.fdiv(const(F32, 1.0), root))

    def group(i: Value) -> list[Value]:
        values, weights = (_load(e, e.at(at, i, 4 * GROUP)) for at in (x, weight))
        return [b.fmul(b.fmul(v, factor), w) for v, w in zip(values, weights, strict=True)]

    return group


def _norm(e: Emit, x: Value, weight: Value, out: Value, width: Value, epsilon: float) -> None:
    """out[width] = x / sqrt(mean(x ** 2) + epsilon) * weight, all float32."""
    normalised = _normalised(e, x, weight, width, epsilon)

    def group(i: Value) -> None:
        for at, value in enumerate(normalised(i)):
            e.store(value, e.at(out, i, 4 * GROUP), 4 * e.lanes * at)

    _each_group(e, e.b.sdiv(width, const(I64, GROUP)), group)


def _norm_quantise(
    e: Emit, form: Value, x: Value, weight: Value, row: Value, inputs: Value, epsilon: float
) -> None:
    """A whole row of what `norm` gives."""
    normalised = _normalised(e, x, weight, inputs, epsilon)

    def write(known: Form) -> None:
        def group(i: Value) -> None:
            write_group(e, known, normalised(i), row, i)

        _each_group(e, e.b.sdiv(inputs, const(I64, GROUP)), group)

    _by_form(e, form, write)


def _gate_quantise(
    e: Emit,
    form: Value,
    activation: Value,
    gate: Value,
    up: Value,
    row: Value,
    inputs: Value,
    group: Value,
) -> None:
    """Group `group` of a row: 32 of silu(gate) * up (`activation` 0) or gelu(gate) * up (1)."""
    b = e.b
    silu = b.icmp_signed("==", activation, const(I64, 0))
    values = []
    for x, factor in zip(_load(e, gate), _load(e, up), strict=True):
        # gelu-tanh is x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 * x ** 3)).
        cubic = e.fma(b.fmul(x, x), const(e.F, 0.044715), const(e.F, 1.0))
        inner = b.fmul(b.fmul(x, const(e.F, 1.5957691216057308)), cubic)
        power = e.exp(b.fneg(b.select(silu, x, inner)))
        gated = b.fdiv(x, b.fadd(const(e.F, 1.0), power))
        values.append(b.fmul(gated, factor))
    _by_form(e, form, lambda known: write_group(e, known, values, row, group))


EMITTERS: dict[str, Emitter] = {
    "quantise": _quantise,
    "norm": _norm,
    "norm_quantise": _norm_quantise,
    "gate_quantise": _gate_quantise,
    "embed": emit_embed,
}

quantise, norm, norm_quantise, gate_quantise, embed = load("rows", EMITTERS)
