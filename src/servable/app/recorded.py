"""Recorded calls, between files and the request path: warm-up reads them, request logs write them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse
from servable.lifecycle.manager import LoadedVersion
from servable.lifecycle.warmup_file import replay, warmup_file
from servable.observe.log_options import RequestLogOptions
from servable.observe.request_log import Encode
from servable.protos.tfrecord import DamagedRecordsError, frame_record, read_records
from servable.wire import prediction_log

log = logging.getLogger("servable.app")


def replay_warmup(loaded: LoadedVersion, run: Callable[[InferRequest], None], iterations: int) -> int:
    """Run the requests that a version brings, and return how many there are.

    ``ServingError`` if one of them fails, and then its load has failed.
    """
    path = warmup_file(loaded.path)
    if path is None:
        return 0
    model = loaded.model

    def requests_of(record: bytes) -> Sequence[InferRequest]:
        call = prediction_log.decode_prediction_log(record)
        if call is None:
            return ()
        return prediction_log.requests_of(call, loaded.ref, model.signatures, model.engine)

    try:
        count = replay(read_records(path), path, requests_of, run, iterations)
    except DamagedRecordsError as error:
        message = f"{path}: {error}. Please verify your warmup data is in TFRecord format."
        raise ServingError(Code.DATA_LOSS, message) from None
    log.info("%s/%s answered the %d requests of its %s", loaded.name, loaded.version, count, path.name)
    return count


def record_encoder(tags: tuple[str, ...], options: RequestLogOptions) -> Encode:
    """Return what makes the records of a request log; ``tags`` are the graph's in a SavedModel."""

    def encode(request: InferRequest, response: InferResponse, time_s: float) -> bytes:
        call = prediction_log.logged_call(request, response, time_s)
        return frame_record(prediction_log.encode_call(call, options.sampling_rate, tags))

    return encode
