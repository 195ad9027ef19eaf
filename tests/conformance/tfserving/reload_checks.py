"""HandleReloadConfigRequest by TensorFlow Serving's stubs: ``reload_checks ADDRESS FOLDER``.

FOLDER holds the models ``half`` (versions 1 and 3), ``code`` (in Python) and ``empty``. The checks run in the order in
which they are written here: each leaves the models to the next.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import grpc
from tests.conformance.tfserving.checks import TIMEOUT_S, Api, checks_in, main, rule

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNKNOWN = grpc.StatusCode.UNKNOWN


def config(api: Api, *models: str) -> Any:
    """Return a request for these models of the folder: NAME or NAME=FOLDER."""
    request = api.model_management.ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    for text in models:
        name, _, folder = text.partition("=")
        base_path = f"{api.arguments[0]}/{folder or name}"
        request.config.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    return request


def reload(api: Api, request: Any) -> Any:
    return api.models.HandleReloadConfigRequest(request, TIMEOUT_S)


def answers(api: Api, name: str) -> int:
    """Return the version that answers for a model."""
    request = api.request(name, x=api.typed("DT_FLOAT", [1, 1], float_val=[1.0]))
    return int(api.call(request).model_spec.version.value)


def gone(api: Api, name: str) -> bool:
    try:
        answers(api, name)
    except grpc.RpcError as error:
        return bool(error.details() == f"Servable not found for request: Latest({name})")
    return False


@rule("reload-3", "reload-8")
def check_a_new_model_answers_when_the_call_returns(api: Api) -> None:
    reply = reload(api, config(api, "half", "second=half"))
    assert (reply.status.error_code, reply.status.error_message) == (0, "")
    assert reply.HasField("status")
    assert (answers(api, "half"), answers(api, "second")) == (3, 3)


@rule("reload-2", "config-3")
def check_models_that_are_left_out_go(api: Api) -> None:
    reload(api, config(api, "half"))
    end = time.monotonic() + TIMEOUT_S
    while not gone(api, "second"):
        assert time.monotonic() < end, "the model still answers"
    assert answers(api, "half") == 3


@rule("label-2", "reload-6", "label-3")
def check_labels_move(api: Api) -> None:
    request = config(api, "half")
    model = request.config.model_config_list.config[0]
    model.model_version_policy.all.SetInParent()
    reload(api, request)
    model.version_labels["stable"] = 3
    reload(api, request)
    asked = api.request("half", x=api.typed("DT_FLOAT", [1, 1], float_val=[1.0]))
    asked.model_spec.version_label = "stable"
    assert api.call(asked).model_spec.version.value == 3
    model.version_labels["stable"] = 9
    api.fails(
        lambda: reload(api, request),
        grpc.StatusCode.FAILED_PRECONDITION,
        "Request to assign label to version 9 of model half, which is not currently available for inference",
    )
    assert api.call(asked).model_spec.version.value == 3, "what was refused changes nothing"


@rule("reload-3", "reload-7", "status-3")
def check_models_that_cannot_be_loaded(api: Api) -> None:
    api.fails_with(
        lambda: reload(api, config(api, "half", "code")),
        UNKNOWN,
        "1 model(s) did not become available: {{{name: code version: 1} due to error: PERMISSION_DENIED: ",
    )
    api.fails_with(
        lambda: reload(api, config(api, "half", "empty", "missing")),
        UNKNOWN,
        "2 model(s) did not become available: {{{name: empty} due to error: NOT_FOUND: ",
    )
    assert answers(api, "half") == 3


@rule("reload-9")
def check_what_growth_of_metrics_is_told(api: Api) -> None:
    request = config(api, "half")
    names = ["/tensorflow/serving/nonesuch", "servable_requests_total", "/tensorflow/cc/saved_model/load_attempt_count"]
    request.metric_names.extend(names)
    found = {metric.name: metric.int64_value_increase for metric in reload(api, request).metric}
    assert found == dict.fromkeys(names, 0), "nothing was asked or loaded meanwhile"


@rule("reload-1", "reload-4", "reload-5", "reload-8")
def check_lists_that_are_refused(api: Api) -> None:
    fails = functools.partial(api.fails, code=INVALID)
    request = api.model_management.ReloadConfigRequest()
    text = (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )
    fails(lambda: reload(api, request), text=text)
    request.config.custom_model_config.type_url = "x"
    fails(lambda: reload(api, request), text=text)
    fails(
        lambda: reload(api, config(api, "half", "half")),
        text="Illegal to list model half multiple times in config list",
    )
    relative = config(api, "half")
    relative.config.model_config_list.config[0].base_path = "models/half"
    fails(
        lambda: reload(api, relative),
        text="Expected model half to have an absolute path or URI; got base_path()=models/half",
    )
    other = config(api, "half")
    other.config.model_config_list.config[0].model_platform = "other"
    api.fails_with(lambda: reload(api, other), INVALID, "Model half requests unsupported platform other")
    both = config(api, "half")
    both.config.model_config_list.config[0].model_type = 1
    api.fails_with(
        lambda: reload(api, both),
        INVALID,
        "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform, "
        "model name is half",
    )
    assert answers(api, "half") == 3, "what was refused changes nothing"


@rule("reload-2")
def check_an_empty_list_serves_nothing(api: Api) -> None:
    reload(api, config(api))
    end = time.monotonic() + TIMEOUT_S
    while not gone(api, "half"):
        assert time.monotonic() < end, "the model still answers"
    reload(api, config(api, "half"))
    assert answers(api, "half") == 3


CHECKS = checks_in(globals())

if __name__ == "__main__":
    main(CHECKS)
