"""Which rule counts which operation, by format. An operation that is not here is not counted, and that is said."""

from __future__ import annotations

from collections.abc import Mapping

from servable.forge.inspection.costs import (
    Rule,
    adds_all,
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
    recurs,
    scales,
    spreads,
)
from servable.forge.inspection.families_keras import KERAS
from servable.forge.inspection.families_torch import TORCH

_SOFTMAX = 5
"""Maximum, difference, exponential, sum, quotient."""
_NORMALIZATION = 8
"""Mean and variance (four), difference, quotient, factor, summand."""
_LSTM, _GRU, _RNN = 13, 11, 2
"""Per unit and step beside the products: biases, gates, the new state."""


def _table(rules: Mapping[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in rules.items() for name in names.split()}


_TENSORFLOW = _table(
    {
        free: "Const HostConst NoOp Placeholder PlaceholderV2 PlaceholderWithDefault Identity IdentityN "
        "StopGradient PreventGradient Snapshot EnsureShape Reshape ExpandDims Squeeze Shape ShapeN Size Rank "
        "VarHandleOp VariableV2 ReadVariableOp VarIsInitializedOp Assert CheckNumerics Bitcast "
        "TensorListReserve EmptyTensorList TensorListElementShape TensorListLength TensorListFromTensor "
        "BroadcastArgs BroadcastGradientArgs HashTableV2 HashTable MutableHashTableV2",
        moves: "Transpose ConcatV2 Concat Pack Unpack Split SplitV Slice StridedSlice Pad PadV2 MirrorPad Tile Cast "
        "Fill ZerosLike OnesLike Range LinSpace BroadcastTo ReverseV2 ReverseSequence OneHot Where "
        "SpaceToBatchND SpaceToBatch BatchToSpaceND BatchToSpace SpaceToDepth DepthToSpace "
        "ResizeNearestNeighbor MatrixDiag MatrixDiagV3 MatrixBandPart InvertPermutation DynamicStitch "
        "ScatterNd TensorScatterUpdate Unique UniqueV2 AssignVariableOp AssignAddVariableOp "
        "AssignSubVariableOp TensorListStack Copy Diag Roll",
        looks_up: "Gather GatherV2 GatherNd ResourceGather ResourceGatherNd EmbeddingLookup",
        # An element of a list: what is read or written is the element.
        each(0): "TensorListGetItem TensorListSetItem TensorListPushBack TensorListPopBack",
        each(1): "Add AddV2 Sub Mul Div RealDiv FloorDiv TruncateDiv DivNoNan MulNoNan Maximum Minimum Pow Mod "
        "FloorMod SquaredDifference Relu Relu6 Elu Selu LeakyRelu Softplus Softsign Sigmoid Tanh Erf Erfc Exp "
        "Expm1 Log Log1p Sqrt Rsqrt Square Reciprocal Inv Abs Neg Sign Floor Ceil Round Rint Sin Cos Tan Asin "
        "Acos Atan Atan2 Sinh Cosh Equal NotEqual Less LessEqual Greater GreaterEqual LogicalAnd LogicalOr "
        "LogicalNot BitwiseAnd BitwiseOr BitwiseXor Invert LeftShift RightShift Select SelectV2 IsNan IsInf "
        "IsFinite BiasAdd BiasAddV1 ClipByValue Lgamma Digamma",
        each(2): "FakeQuantWithMinMaxVars FakeQuantWithMinMaxArgs QuantizeV2 Dequantize",
        each(_SOFTMAX): "Softmax LogSoftmax",
        each(8): "ResizeBilinear",
        each_input(1): "Sum Mean Max Min Prod Any All ArgMax ArgMin Cumsum Cumprod EuclideanNorm TopKV2 TopK L2Loss "
        "AccumulateNV2 InTopK InTopKV2",
        adds_all: "AddN",
        scales: "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3",
        convolves((-1,), bias=None): "Conv2D Conv3D",
        convolves((-1,)): "_FusedConv2D",
        convolves((-2, -1), bias=None): "DepthwiseConv2dNative",
        convolves((-2, -1)): "_FusedDepthwiseConv2dNative",
        spreads(2, 1, (-1,), None): "Conv2DBackpropInput Conv3DBackpropInputV2",
        multiplies(transposed="transpose_a"): "MatMul",
        multiplies(transposed="transpose_a", bias=2): "_FusedMatMul",
        multiplies(transposed="adj_x"): "BatchMatMul BatchMatMulV2 BatchMatMulV3",
        contracts: "Einsum",
        pools("ksize"): "MaxPool AvgPool MaxPool3D AvgPool3D MaxPoolWithArgmax",
    }
)

_ONNX = _table(
    {
        free: "Constant Identity Reshape Squeeze Unsqueeze Flatten Shape Size Optional OptionalGetElement Dropout "
        "SequenceEmpty",
        moves: "Transpose Concat Split Slice Pad Tile Cast CastLike Expand ConstantOfShape Range OneHot NonZero "
        "Compress SpaceToDepth DepthToSpace EyeLike ScatterElements ScatterND Scatter ReverseSequence Trilu "
        "Unique ConcatFromSequence SplitToSequence SequenceAt",
        looks_up: "Gather GatherElements GatherND",
        each(1): "Add Sub Mul Div Pow Mod Max Min Relu Relu6 LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid Tanh "
        "Erf Exp Log Sqrt Reciprocal Abs Neg Sign Floor Ceil Round Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh "
        "Acosh Atanh Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor Not BitwiseAnd BitwiseOr "
        "BitwiseXor BitwiseNot BitShift Where Clip IsNaN IsInf Softplus Softsign ThresholdedRelu Shrink "
        "QuickGelu",
        each(2): "QuantizeLinear DequantizeLinear HardSwish Swish Mish QLinearAdd QLinearMul QLinearSigmoid "
        "QLinearLeakyRelu DynamicQuantizeLinear",
        each(4): "Gelu FastGelu BiasGelu",
        each(_SOFTMAX): "Softmax LogSoftmax Hardmax QLinearSoftmax",
        each(_NORMALIZATION): "LayerNormalization GroupNormalization InstanceNormalization RMSNormalization "
        "SimplifiedLayerNormalization SkipLayerNormalization MeanVarianceNormalization LpNormalization",
        each_input(1): "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ArgMax ArgMin GlobalAveragePool "
        "GlobalMaxPool CumSum TopK QLinearGlobalAveragePool QLinearReduceMean",
        each_input(2): "ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp",
        adds_all: "Sum Mean",
        scales: "BatchNormalization",
        convolves((0,)): "Conv FusedConv",
        convolves((0,), bias=None): "ConvInteger",
        convolves((0,), kernel=3, bias=8): "QLinearConv",
        spreads(0, 1, (0,), 2): "ConvTranspose",
        multiplies(): "MatMul MatMulInteger",
        multiplies(bias=4): "MatMulIntegerToFloat",
        multiplies(bias=6): "DynamicQuantizeMatMul",
        multiplies(transposed="transA", bias=2): "Gemm FusedGemm",
        multiplies(transposed="transA"): "FusedMatMul",
        multiplies(transposed="transA", bias=6): "QGemm",
        multiplies(left=0, bias=None): "QLinearMatMul",
        contracts: "Einsum",
        pools("kernel_shape"): "MaxPool AveragePool LpPool QLinearAveragePool",
        recurs((1, 2), _LSTM): "LSTM DynamicQuantizeLSTM",
        recurs((1, 2), _GRU): "GRU",
        recurs((1, 2), _RNN): "RNN",
    }
)

_OPENVINO = _table(
    {
        free: "Const Constant Parameter Result Reshape Squeeze Unsqueeze ShapeOf ReadValue Assign",
        moves: "Transpose Concat Split VariadicSplit Slice StridedSlice Pad Tile Convert ConvertLike Broadcast Range "
        "OneHot NonZero ReverseSequence Reverse SpaceToBatch BatchToSpace SpaceToDepth DepthToSpace "
        "ScatterUpdate ScatterNDUpdate ScatterElementsUpdate Roll Eye ShuffleChannels",
        looks_up: "Gather GatherND GatherElements GatherTree",
        each(1): "Add Subtract Multiply Divide Power Mod FloorMod Maximum Minimum SquaredDifference ReLU Relu PReLU "
        "PRelu Elu Selu Sigmoid Tanh Erf Exp Log Sqrt Abs Negative Sign Floor Ceiling Round Sin Cos Tan Asin "
        "Acos Atan Sinh Cosh Equal NotEqual Less LessEqual Greater GreaterEqual LogicalAnd LogicalOr "
        "LogicalXor LogicalNot BitwiseAnd BitwiseOr BitwiseXor BitwiseNot Select Clamp HardSigmoid SoftPlus "
        "SoftSign IsNaN IsInf IsFinite",
        each(2): "HSwish Swish Mish HSigmoid",
        each(4): "Gelu FakeQuantize",
        each(_SOFTMAX): "SoftMax Softmax LogSoftmax",
        each(_NORMALIZATION): "MVN NormalizeL2 GroupNormalization",
        each_input(1): "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceLogicalAnd ReduceLogicalOr CumSum "
        "TopK AdaptiveAvgPool AdaptiveMaxPool",
        each_input(2): "ReduceL1 ReduceL2",
        scales: "BatchNormInference",
        convolves((0,), bias=None): "Convolution",
        convolves((0, 1), bias=None): "GroupConvolution",
        spreads(0, 1, (0,), None): "ConvolutionBackpropData",
        spreads(0, 1, (0, 1), None): "GroupConvolutionBackpropData",
        multiplies(transposed="transpose_a"): "MatMul",
        contracts: "Einsum",
        attends: "ScaledDotProductAttention",
        pools("kernel"): "MaxPool AvgPool",
        recurs((4, 5), _LSTM): "LSTMSequence",
        recurs((3, 4), _LSTM): "LSTMCell",
        recurs((3, 4), _GRU): "GRUSequence",
        recurs((2, 3), _GRU): "GRUCell",
        recurs((3, 4), _RNN): "RNNSequence",
        recurs((2, 3), _RNN): "RNNCell",
    }
)

_TFLITE = _table(
    {
        free: "RESHAPE SQUEEZE EXPAND_DIMS SHAPE RANK BITCAST VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE CALL_ONCE",
        moves: "TRANSPOSE CONCATENATION SPLIT SPLIT_V SLICE STRIDED_SLICE PAD PADV2 MIRROR_PAD TILE CAST FILL "
        "ZEROS_LIKE RANGE BROADCAST_TO PACK UNPACK ONE_HOT WHERE REVERSE_V2 REVERSE_SEQUENCE "
        "SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND SPACE_TO_DEPTH DEPTH_TO_SPACE RESIZE_NEAREST_NEIGHBOR SCATTER_ND "
        "DYNAMIC_UPDATE_SLICE DENSIFY UNIQUE",
        looks_up: "GATHER GATHER_ND",
        each(1): "ADD SUB MUL DIV FLOOR_DIV FLOOR_MOD MAXIMUM MINIMUM POW SQUARED_DIFFERENCE RELU RELU6 RELU_N1_TO_1 "
        "RELU_0_TO_1 LEAKY_RELU PRELU ELU LOGISTIC TANH EXP LOG SQRT RSQRT SQUARE ABS NEG SIGN FLOOR CEIL "
        "ROUND SIN COS EQUAL NOT_EQUAL LESS LESS_EQUAL GREATER GREATER_EQUAL LOGICAL_AND LOGICAL_OR "
        "LOGICAL_NOT SELECT SELECT_V2 BITWISE_XOR RIGHT_SHIFT ATAN2",
        each(2): "QUANTIZE DEQUANTIZE HARD_SWISH FAKE_QUANT",
        each(4): "GELU",
        each(_SOFTMAX): "SOFTMAX LOG_SOFTMAX",
        each(8): "RESIZE_BILINEAR",
        each(4): "L2_NORMALIZATION",
        each_input(1): "SUM MEAN REDUCE_MAX REDUCE_MIN REDUCE_PROD REDUCE_ANY REDUCE_ALL ARG_MAX ARG_MIN CUMSUM "
        "TOPK_V2",
        adds_all: "ADD_N",
        convolves((0,)): "CONV_2D",
        convolves((-1,)): "CONV_3D",
        convolves((0, -1)): "DEPTHWISE_CONV_2D",
        spreads(2, 1, (-1,), 3): "TRANSPOSE_CONV",
        multiplies_rows(): "FULLY_CONNECTED",
        multiplies(transposed="adj_x"): "BATCH_MATMUL",
        pools("filter_height filter_width"): "MAX_POOL_2D AVERAGE_POOL_2D L2_POOL_2D",
        recurs((1, 2, 3, 4, 16, 5, 6, 7, 8), _LSTM): "UNIDIRECTIONAL_SEQUENCE_LSTM",
        recurs((1, 2), _RNN): "UNIDIRECTIONAL_SEQUENCE_RNN",
    }
)

FAMILIES: Mapping[str, Mapping[str, Rule]] = {
    "tensorflow": _TENSORFLOW,
    "onnx": _ONNX,
    "openvino": _OPENVINO,
    "tflite": _TFLITE,
    "torch": TORCH,
    "keras": KERAS,
}
"""Format -> type of operation -> rule. Types of torch are those without namespace and overload."""
