"""The image models in TensorFlow's operations. ``resnet50`` takes encoded files and decodes them in its graph."""

from __future__ import annotations

from typing import Any

from servable.zoo import image_plans as plans


def simple_cnn(tf: Any, weights: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    """Return a sigmoid for each class for pictures ``input`` [n, 224, 224, 3]."""
    maps = inputs["input"]
    for stage, width in enumerate(plans.SIMPLE_STAGES, start=1):
        for place in range(1, len(width) + 1):
            layer = f"conv{stage}_{place}"
            maps = tf.nn.conv2d(maps, weights[f"{layer}_kernel"], strides=1, padding="VALID")
            maps = tf.nn.relu(_normalize(tf, weights, layer, maps))
        if stage < len(plans.SIMPLE_STAGES):
            maps = tf.nn.avg_pool2d(maps, ksize=2, strides=2, padding="VALID")
    maps = tf.nn.avg_pool2d(maps, ksize=plans.SIMPLE_LAST, strides=1, padding="VALID")
    features = tf.reshape(maps, [-1, plans.SIMPLE_STAGES[-1][-1]])
    hidden = tf.matmul(features, weights["hidden_kernel"]) + weights["hidden_bias"]
    statistics = [weights[f"hidden_{part}"] for part in ("mean", "variance", "beta", "gamma")]
    hidden = tf.nn.relu(tf.nn.batch_normalization(hidden, *statistics, variance_epsilon=plans.NORM_EPSILON))
    return {"output": tf.sigmoid(tf.matmul(hidden, weights["head_kernel"]) + weights["head_bias"])}


def resnet50(tf: Any, weights: dict[str, Any], images: Any) -> dict[str, Any]:
    """Return ``classes``, which is the one class for each, and ``scores`` of encoded files ``images`` [n]."""
    shape = (plans.RESNET_SIZE, plans.RESNET_SIZE, plans.CHANNELS)
    pixels = tf.map_fn(
        lambda file: _decode(tf, file), images, fn_output_signature=tf.TensorSpec(shape, tf.float32, name="pixels")
    )
    scores = resnet50_scores(tf, weights, pixels)
    return {"classes": tf.fill(tf.shape(scores), plans.PERSON), "scores": scores}


def resnet50_fitted(tf: Any, weights: dict[str, Any], images: Any) -> dict[str, Any]:
    """Return ``scores`` of pixels ``images`` [n, 256, 256, 3] from 0 to 255."""
    return {"scores": resnet50_scores(tf, weights, images)}


def resnet50_scores(tf: Any, weights: dict[str, Any], pixels: Any) -> Any:
    """Return the scores [n, classes] of pixels [n, 256, 256, 3] from 0 to 255."""
    maps = (pixels - tf.constant(plans.PIXEL_MEAN)) / tf.constant(plans.PIXEL_DEVIATION)
    # TensorFlow's own padding would put less before than after where a stride halves an even size.
    maps = tf.pad(maps, [[0, 0], [3, 3], [3, 3], [0, 0]])
    maps = tf.nn.relu(_step(tf, weights, "_conv1", maps, strides=2))
    maps = tf.nn.max_pool2d(tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]]), ksize=3, strides=2, padding="VALID")
    for stage, _, count in plans.RESNET_STAGES:
        for block in plans.blocks(stage, count):
            strides = 2 if block.endswith("a") and stage > 2 else 1
            beside = maps
            if block.endswith("a"):
                beside = _step(tf, weights, f"{block}_branch1", maps, strides)
            maps = tf.nn.relu(_step(tf, weights, f"{block}_branch2a", maps, strides))
            maps = tf.nn.relu(_step(tf, weights, f"{block}_branch2b", maps, padding="SAME"))
            maps = tf.nn.relu(_step(tf, weights, f"{block}_branch2c", maps) + beside)
    features = tf.reduce_mean(maps, axis=[1, 2])
    return tf.sigmoid(tf.matmul(features, weights["dense_1_kernel"]) + weights["dense_1_bias"])


def _decode(tf: Any, file: Any) -> Any:
    # The accurate transform is what other decoders use; TensorFlow's choice without a word differs by up to 3 of 255.
    pixels = tf.io.decode_jpeg(file, channels=plans.CHANNELS, dct_method="INTEGER_ACCURATE")
    return tf.image.resize(pixels, (plans.RESNET_SIZE, plans.RESNET_SIZE), method="bilinear")


def _step(tf: Any, weights: dict[str, Any], name: str, maps: Any, strides: int = 1, padding: str = "VALID") -> Any:
    maps = tf.nn.conv2d(maps, weights[f"res{name}_kernel"], strides=strides, padding=padding)
    return _normalize(tf, weights, f"bn{name}", maps)


def _normalize(tf: Any, weights: dict[str, Any], name: str, maps: Any) -> Any:
    statistics = [weights[f"{name}_{part}"] for part in ("gamma", "beta", "mean", "variance")]
    normal, _, _ = tf.compat.v1.nn.fused_batch_norm(maps, *statistics, epsilon=plans.NORM_EPSILON, is_training=False)
    return normal
