"""What each field of TensorFlow Serving's configuration files does here: the page of them, and the lines at start.

A text that begins with ``-`` says why a field has no effect, as in "accepted, no effect because ...".
"""

from __future__ import annotations

MODEL_SERVER = {
    "ModelServerConfig.model_config_list": "the models; a list in a later reload replaces the whole set",
    "ModelServerConfig.custom_model_config": "refused: there are no sources of models but directories",
    "ModelConfigList.config": "one model",
    "ModelConfig.name": "what clients call it; required, each once",
    "ModelConfig.base_path": "its directory of versions: an absolute path, or `file://` and one",
    "ModelConfig.model_type": "`TENSORFLOW`, or nothing; not together with `model_platform`",
    "ModelConfig.model_platform": "`tensorflow`, or nothing: which engine runs it is read from its files",
    "ModelConfig.logging_config": "its request log",
    "ModelConfig.model_version_policy": "which versions are served; the latest one by default",
    "ModelConfig.version_labels": "names for versions; a label follows once its version is available",
    "ServableVersionPolicy.latest": "the highest numbers",
    "ServableVersionPolicy.all": "every version",
    "ServableVersionPolicy.specific": "those named that exist",
    "Latest.num_versions": "how many of the highest; 0 is 1",
    "Specific.versions": "which; an empty list serves none",
    "LoggingConfig.log_collector_config": "where the log goes",
    "LoggingConfig.sampling_config": "how much is logged",
    "LoggingConfig.custom_logging_config": "refused: there is no code of yours in this server",
    "LogCollectorConfig.type": "`tfrecord`, also when it is not given",
    "LogCollectorConfig.filename_prefix": "how the names of its files begin; required",
    "SamplingConfig.sampling_rate": "the share of requests that is logged, 0 to 1",
    "SamplingConfig.attributes": "-requests carry neither an origin nor a criticality here",
    "SamplingConfig.per_task_sampling_configs": "the first with neither `dc` nor `task_index` replaces the rate",
    "PerTaskSamplingConfig.dc": "an entry with one is for other servers",
    "PerTaskSamplingConfig.task_index": "an entry with one is for other servers",
    "PerTaskSamplingConfig.sampling_rate": "the rate",
}
BATCHING = {
    "max_batch_size": "rows of one request at most, and of a batch; 1000",
    "batch_timeout_micros": "age of its oldest request at which a batch runs although it is not full; 0",
    "max_enqueued_batches": "batches of one signature that may wait; 10",
    "num_batch_threads": "batches that are computed at once, all models together; the number of CPUs",
    "thread_pool_name": "a label of the metrics",
    "allowed_batch_sizes": "a batch is filled up to the next of these; the last must be `max_batch_size`",
    "pad_variable_length_inputs": "inputs of unequal shape are padded to the largest in the batch",
    "enable_large_batch_splitting": "a request may have more rows than a batch: it is cut",
    "max_execution_batch_size": "rows of a batch when requests are cut; `max_batch_size`",
}
MONITORING = {
    "MonitoringConfig.prometheus_config": "metrics for Prometheus",
    "PrometheusConfig.enable": "whether they are at `path` too; `/metrics` always has ours",
    "PrometheusConfig.path": "where on the REST ports; `/monitoring/prometheus/metrics`",
}
SSL = {
    "server_key": "the private key, as PEM text; required",
    "server_cert": "the certificate chain, as PEM text; required",
    "custom_ca": "authorities of clients' certificates, as PEM text; the system's if there are none",
    "client_verify": "whether clients must show a certificate",
}
_ONE_PROCESS = "-models are not spread over devices or processes by a session"
_GRAPH = "-the engine that was chosen for a model decides how its graph is compiled"
_GPU = "-models compute on CPUs"
CONFIG_PROTO = {
    "device_count": _GPU,
    "intra_op_parallelism_threads": "threads within an operation, any engine; `--tensorflow_intra_op_parallelism` wins",
    "inter_op_parallelism_threads": "threads between operations; `--tensorflow_inter_op_parallelism` wins",
    "use_per_session_threads": "-each model has threads of its own",
    "session_inter_op_thread_pool": "-each model has threads of its own",
    "placement_period": _ONE_PROCESS,
    "device_filters": _ONE_PROCESS,
    "gpu_options": _GPU,
    "pluggable_device_options": _GPU,
    "allow_soft_placement": _ONE_PROCESS,
    "log_device_placement": _ONE_PROCESS,
    "graph_options": _GRAPH,
    "operation_timeout_in_ms": "-each request has a deadline, and --child_timeout_s bounds calls",
    "rpc_options": _ONE_PROCESS,
    "cluster_def": _ONE_PROCESS,
    "isolate_session_state": _ONE_PROCESS,
    "share_cluster_devices_in_session": _ONE_PROCESS,
    "experimental": _GRAPH,
}
PLATFORM = {
    "session_target": _ONE_PROCESS,
    "session_config": "as the file of a session",
    "batching_parameters": "as the file of batching; batches requests without `--enable_batching`",
    "session_run_load_threadpool_index": "-each model has threads of its own",
    "experimental_transient_ram_bytes_during_load": "-memory is not reserved by estimates",
    "saved_model_tags": "tags of the graph in a SavedModel; `serve`",
    "in_graph_batching_parameters": "-batching inside a graph follows what the model was exported with",
    "experimental_fixed_input_tensors": "-clients send every input that has no default",
    "enable_model_warmup": "whether versions are warmed up",
    "model_warmup_options": "of these `num_request_iterations` counts",
    "enable_session_metadata": "-no session is told its model's name",
    "remove_unused_fields_from_bundle_metagraph": "-only signatures are kept of a graph's description",
    "prefer_tflite_model": "-a SavedModel goes before `model.tflite` unless its `servable.toml` says so",
    "resource_estimation_uses_validation_result": "-memory is not reserved by estimates",
    "num_tflite_interpreters": "-a TFLite model has one interpreter",
    "num_tflite_interpreters_per_pool": "-a TFLite model has one interpreter",
    "num_tflite_pools": "-a TFLite model has one interpreter",
    "wrap_session_with_no_threading_params": "-each model has threads of its own",
    "enable_per_model_batching_params": "as `--enable_per_model_batching_parameters`",
    "enable_saved_model_config": _GRAPH,
    "mixed_precision": "-every engine computes at f32: reduced precision is never silent",
}


def idle_reason(text: str) -> str:
    """Return why a field has no effect; "" if it has one."""
    return text[1:] if text.startswith("-") else ""
