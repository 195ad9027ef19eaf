"""Which rule counts which operation of torch. Types are those of ATen without namespace and overload."""

from __future__ import annotations

import math
from collections.abc import Mapping

from servable.forge.inspection.costs import (
    Cost,
    Rule,
    attends,
    contracts,
    convolves,
    each,
    each_input,
    free,
    looks_up,
    moves,
    multiplies,
    multiplies_rows,
    pools,
    scales,
    shape_at,
    spreads,
    traffic,
)
from servable.forge.inspection.graph import Graph, Node


def _convolves(graph: Graph, node: Node) -> Cost:
    """Both directions have one name in ATen."""
    rule = spreads(0, 1, (0,), 2) if node.attributes.get("transposed") else convolves((0,))
    return rule(graph, node)


def _recurs(states: int, per_unit: int) -> Rule:
    """All layers and directions at once: the data, the first states, then weights and biases of each."""

    def rule(graph: Graph, node: Node) -> Cost:
        steps = math.prod(shape_at(graph, node, 0)[:-1])
        shapes = [shape_at(graph, node, place) for place in range(1 + states, len(node.inputs))]
        matrices = [shape for shape in shapes if len(shape) == 2]
        units = sum(shape[-1] for shape in matrices[1::2])
        return Cost(steps * sum(map(math.prod, matrices)), steps * units * per_unit, traffic(graph, node))

    return rule


def _table(rules: Mapping[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in rules.items() for name in names.split()}


TORCH = _table(
    {
        free: "view _unsafe_view reshape unsqueeze squeeze expand expand_as detach alias flatten permute transpose "
        "t slice select split split_with_sizes chunk unbind unfold _assert_async _assert_scalar "
        "_assert_tensor_metadata dropout dropout_ feature_dropout lift_fresh_copy getitem as_strided movedim "
        "narrow unflatten size sym_size sym_constrain_range_for_size detach_ mT numpy_T view_as _operator.mul "
        "_operator.add _operator.sub _operator.floordiv _operator.mod _operator.ge _operator.le _operator.gt "
        "_operator.lt _operator.eq _operator.ne Constant GetAttr ListConstruct ListUnpack TupleConstruct "
        "TupleUnpack NumToTensor Int device",
        moves: "cat stack clone copy_ contiguous to _to_copy pad constant_pad_nd repeat flip roll arange full "
        "full_like zeros zeros_like ones ones_like empty masked_fill scatter slice_scatter select_scatter "
        "tril triu new_zeros pixel_shuffle type_as upsample_nearest2d fill fill_ repeat_interleave one_hot "
        "new_ones new_full scalar_tensor concat",
        looks_up: "embedding index index_select gather",
        each(1): "add add_ sub sub_ rsub mul mul_ div div_ floor_divide remainder pow relu relu_ relu6 hardtanh "
        "hardtanh_ clamp clamp_min clamp_max leaky_relu leaky_relu_ elu sigmoid tanh erf exp log log1p sqrt "
        "rsqrt reciprocal abs neg sign floor ceil round sin cos eq ne lt gt le ge logical_and logical_or "
        "logical_not bitwise_and bitwise_or bitwise_not where maximum minimum isnan hardsigmoid square "
        "__and__ __or__",
        each(2): "silu silu_ hardswish hardswish_ mish",
        each(4): "gelu",
        each(5): "softmax _softmax log_softmax _log_softmax",
        each(8): "layer_norm native_layer_norm group_norm native_group_norm rms_norm instance_norm upsample_bilinear2d",
        each_input(1): "sum mean amax amin max min argmax argmin any all cumsum topk prod adaptive_avg_pool2d "
        "_adaptive_avg_pool2d adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool1d",
        scales: "batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit native_batch_norm",
        convolves((0,)): "conv1d conv2d conv3d",
        _convolves: "convolution _convolution",
        spreads(0, 1, (0,), 2): "conv_transpose1d conv_transpose2d conv_transpose3d",
        multiplies(): "mm bmm matmul",
        multiplies(left=1, bias=0): "addmm baddbmm",
        multiplies_rows(): "linear",
        attends: "scaled_dot_product_attention",
        contracts: "einsum",
        pools("kernel_size"): "max_pool1d max_pool2d max_pool2d_with_indices max_pool3d avg_pool1d avg_pool2d "
        "avg_pool3d",
        _recurs(2, 13): "lstm",
        _recurs(1, 11): "gru",
        _recurs(1, 2): "rnn_tanh rnn_relu",
    }
)
