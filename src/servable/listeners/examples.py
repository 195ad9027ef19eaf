"""From requests with tf.Examples to the request path, and what is asked of signatures: what gRPC and REST share."""

from __future__ import annotations

from collections.abc import Callable

from servable.core.errors import ServingError
from servable.core.messages import InferRequest, Metadata, ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE
from servable.lifecycle.manager import Manager
from servable.serving.inference import Inference
from servable.serving.joint import Answers, Cancellable, submit_all
from servable.wire import tfserving_examples as examples
from servable.wire.tfserving_grpc_examples import InferenceTask, MultiInferenceRequest

JointReply = Callable[[Answers | ServingError], None]


class Examples:
    """Submits requests of Classify, Regress and MultiInference.

    ``check_method``: whether a signature must have been made for the method.
    """

    def __init__(self, inference: Inference, manager: Manager, *, check_method: bool = False) -> None:
        self._inference = inference
        self._manager = manager
        self._check_method = check_method

    def check_predict(self, model: ModelRef, name: str) -> None:
        """Refuse a signature for Predict whose method name is none of those that TensorFlow Serving knows."""
        if not self._check_method:
            return
        loaded = self._manager.acquire(model)
        try:
            signature = loaded.model.signatures.get(name or DEFAULT_SIGNATURE)
            if signature is not None:
                examples.check_predict_method(signature)
        finally:
            self._manager.release(loaded)

    def submit(
        self,
        method: examples.ExampleMethod,
        request: examples.ExampleRequest,
        deadline: float | None,
        metadata: Metadata,
        reply: JointReply,
    ) -> Cancellable:
        """Run one signature; ``ServingError`` if it is not for this method."""
        loaded = self._manager.acquire(self._inference.resolve(request.model))
        try:
            name = request.signature or DEFAULT_SIGNATURE
            signature = loaded.model.signatures.get(name)
            if signature is None:
                raise examples.missing_signature(name)
            outputs = examples.example_outputs(
                method, signature, loaded.ref, loaded.model.engine, check_method=self._check_method
            )
            asked = InferRequest(loaded.ref, request.inputs(), name, outputs, deadline, metadata, api=method.api)
            return submit_all(self._inference, [asked], reply)
        finally:
            self._manager.release(loaded)

    def submit_tasks(
        self,
        request: MultiInferenceRequest,
        deadline: float | None,
        metadata: Metadata,
        reply: Callable[[tuple[InferenceTask, ...], Answers | ServingError], None],
    ) -> Cancellable:
        """Run the signatures of all tasks, in the same version; ``ServingError`` for the first that cannot be."""
        loaded = self._manager.acquire(self._inference.resolve(request.model))
        try:
            model = loaded.model
            tasks = request.tasks(loaded.ref, model.signatures, model.engine, check_method=self._check_method)
            inputs = request.inputs()
            asked = [
                InferRequest(loaded.ref, inputs, task.signature, task.outputs, deadline, metadata, api=task.method.api)
                for task in tasks
            ]
            return submit_all(self._inference, asked, lambda outcome: reply(tasks, outcome))
        finally:
            self._manager.release(loaded)
