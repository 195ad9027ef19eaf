"""Any HTTP service: method, path, headers and body from templates."""

from __future__ import annotations

import json
import random
import re
import uuid
from dataclasses import dataclass

import numpy as np

from servable.core.errors import invalid_argument
from servable.lab.exchange import Fault, Prepared, Sample
from servable.lab.wires import replies
from servable.transport.exchange import RequestHead
from servable.transport.http1.client import encode_request
from servable.transport.reply import Reply
from servable.wire import json_writer

_VARIABLE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_RANGE = re.compile(r"randint:(-?\d+):(-?\d+)")
_KNOWN = "index, random, randint:LOW:HIGH, uuid and the names of inputs"


@dataclass(frozen=True)
class Template:
    """A request with places for what changes: ``{{index}}``, ``{{random}}``, ``{{randint:1:6}}``, ``{{uuid}}``, and
    ``{{NAME}}`` for an input as JSON.
    """

    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""

    def fill(self, text: str, sample: Sample, index: int, chance: random.Random) -> str:
        """Put values in their places; INVALID_ARGUMENT names a place that is not known."""
        return _VARIABLE.sub(lambda found: _value(found[1], sample, index, chance), text)


class Http:
    """Plain HTTP/1.1. An answer is right if its status is 2xx and its body, where one is expected, is the same."""

    multiplexed = False

    def __init__(self, template: Template, authority: bytes, scheme: bytes = b"http", *, seed: int = 0) -> None:
        self._template = template
        self._authority = authority
        self._scheme = scheme
        self._chance = random.Random(seed)  # noqa: S311  # variety, not secrecy
        self._index = 0

    def prepare(self, sample: Sample) -> Prepared:
        """Fill the template; the next sample gets the next index."""
        template, index = self._template, self._index
        self._index += 1

        def fill(text: str) -> bytes:
            return template.fill(text, sample, index, self._chance).encode()

        fields = tuple((name.lower().encode(), fill(value)) for name, value in template.headers)
        head = RequestHead(
            template.method.encode(),
            fill(template.path),
            fields,
            authority=self._authority,
            scheme=self._scheme,
            version=b"1.1",
        )
        try:
            encode_request(head)
        except ValueError as error:
            raise invalid_argument(f"this request cannot be sent: {error}") from None
        return Prepared(head, fill(template.body), sample.rows, None)

    def fault(self, reply: Reply) -> Fault | None:
        """Look at the status."""
        return replies.http_fault(reply)

    def outputs(self, reply: Reply) -> bytes:
        """Return the body as it is."""
        return reply.body


def _value(name: str, sample: Sample, index: int, chance: random.Random) -> str:
    if name in sample.inputs:
        array = sample.inputs[name]
        if array.dtype.hasobject and not array.ndim:
            return json.dumps(array.item().decode("utf-8", "replace"))
        text = json_writer.dumps_tensor("x", "x", array if array.ndim else np.asarray([array.item()]))
        value = json.loads(text)["x"]
        return json.dumps(value if array.ndim else value[0])
    if name == "index":
        return str(index)
    if name == "random":
        return repr(chance.random())
    if name == "uuid":
        return str(uuid.UUID(int=chance.getrandbits(128), version=4))
    bounds = _RANGE.fullmatch(name)
    if bounds is None or int(bounds[1]) > int(bounds[2]):
        raise invalid_argument(f"{{{{{name}}}}} is no variable of a template: there are {_KNOWN}")
    return str(chance.randint(int(bounds[1]), int(bounds[2])))
