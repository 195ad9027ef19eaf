"""Python models in children that call other models: the parent's end is a caller that answers by itself."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError, invalid_argument
from servable.core.messages import InferRequest, InferResponse
from servable.engines.base import Artifact, EngineOptions, Told
from servable.engines.child import load_in_child
from servable.engines.child_model import ChildModel
from servable.engines.python_code import declared_uses

Load = Callable[..., ChildModel]


class Doubler:
    """Answers each call with twice its input; remembers what came together. ``gate`` holds answers back."""

    def __init__(self) -> None:
        self.together: list[int] = []
        self.requests: list[InferRequest] = []
        self.given_up: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()

    def call(self, requests: Mapping[int, InferRequest], told: Told) -> None:
        self.together.append(len(requests))
        self.requests += requests.values()
        self.asked.set()
        threading.Thread(target=self._answer, args=(dict(requests), told)).start()

    def _answer(self, requests: dict[int, InferRequest], told: Told) -> None:
        assert self.gate.wait(10)
        for number, request in requests.items():
            x = request.inputs["x"]
            if x.size and x.dtype.kind == "f" and float(x.flat[0]) < 0:
                told(number, invalid_argument("no number below 0"))
            elif x.dtype.hasobject:
                told(number, InferResponse(request.model, "s", {"y": x}))
            else:
                told(number, InferResponse(request.model, "s", {"y": 2 * x, "z": x}))

    def give_up(self, numbers: Sequence[int] | None = None) -> None:
        self.given_up += numbers or []


@pytest.fixture
def caller() -> Doubler:
    return Doubler()


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    models: list[ChildModel] = []

    def start(body: str, timeout_s: float = 0.0) -> ChildModel:
        head = "import asyncio, threading\nimport numpy as np\nfrom servable import ServingError, Tensor\n"
        path = tmp_path / "model.py"
        path.write_text(head + "class Caller:\n    uses = ['other']\n" + textwrap.indent(textwrap.dedent(body), "    "))
        options = EngineOptions(allow_python=True, child_timeout_s=timeout_s)
        model = load_in_child("python", Artifact("python", path), options)
        assert isinstance(model, ChildModel)
        models.append(model)
        return model

    yield start
    for model in models:
        model.close()


def run(model: ChildModel, caller: Doubler, *values: float) -> list[float]:
    x = np.array(values, np.float32)
    found: list[float] = model.calling(caller).run("serving_default", {"x": x}, ["output"])["output"].tolist()
    return found


def error_of(model: ChildModel, caller: Doubler, *values: float) -> ServingError:
    with pytest.raises(ServingError) as caught:
        run(model, caller, *values)
    return caught.value


VECTOR = 'Tensor["float32", "n"]'


def test_a_coroutine_awaits_and_a_plain_function_waits(load: Load, caller: Doubler) -> None:
    waits = load(f"def predict(self, x: {VECTOR}) -> {VECTOR}:\n    return self.models['other'](x=x)['y'] + 1")
    assert run(waits, caller, 1, 2) == [3, 5]
    assert waits.uses == ("other",)
    awaits = load(
        f"async def predict(self, x: {VECTOR}) -> {VECTOR}:\n    return (await self.models['other'](x=x))['y']"
    )
    for _ in range(3):
        assert run(awaits, caller, 1, 2) == [2, 4]


def test_a_call_says_what_a_client_can_say(load: Load, caller: Doubler) -> None:
    model = load(f"""
        async def predict(self, x: {VECTOR}) -> {VECTOR}:
            await self.models["other"]("named", version=3, outputs=["y"], inputs={{"version": 1.5, "x": x}})
            texts = await self.models["other"](label="stable", x=np.array(["\u00e9", "b"]))
            assert texts["y"].tolist() == ["\u00e9".encode(), b"b"]
            try:
                self.models["other"](version=1, label="both", x=x)
            except ServingError as error:
                return x + error.code
    """)
    assert run(model, caller, 1) == [4]
    first, second = caller.requests
    assert (first.model, first.signature, first.output_filter) == (("other", 3, None), "named", ("y",))
    assert {name: array.tolist() for name, array in first.inputs.items()} == {"version": 1.5, "x": [1]}
    assert (second.model, second.signature) == (("other", None, "stable"), "")


def test_calls_of_one_tick_travel_together_and_answers_find_their_callers(load: Load, caller: Doubler) -> None:
    model = load(f"""
        async def predict(self, x: {VECTOR}) -> {VECTOR}:
            async def twice(value):
                once = await self.models["other"](x=np.full(50_000, value))
                return (await self.models["other"](x=once["y"]))["y"][-1]
            return np.array(await asyncio.gather(*map(twice, x)), np.float32)
    """)
    values = [float(value) for value in range(40)]
    assert run(model, caller, *values) == [4 * value for value in values]
    assert caller.together[0] == 40
    assert sum(caller.together) == 80


def test_an_error_of_the_other_model_is_one_that_can_be_caught_or_passed_on(load: Load, caller: Doubler) -> None:
    model = load(f"""
        async def predict(self, x: {VECTOR}) -> {VECTOR}:
            calls = (self.models["other"](x=x[i : i + 1]) for i in range(2))
            found = await asyncio.gather(*calls, return_exceptions=True)
            if isinstance(found[1], ServingError) and len(x) == 2:
                return np.repeat(found[0]["y"], 2)
            raise found[1]
    """)
    assert run(model, caller, 1, -1) == [2, 2]
    error = error_of(model, caller, 1, -1, 0)
    assert (error.code, error.message) == (Code.INVALID_ARGUMENT, "no number below 0")


def test_what_was_not_declared_and_when_nothing_runs_there_are_no_calls(load: Load, caller: Doubler) -> None:
    model = load(f"""
        def load(self):
            try:
                self.models["other"](x=1.0)
            except ServingError as error:
                self.refusal = error.message

        def predict(self, x: {VECTOR}) -> {VECTOR}:
            if x[0]:
                raise ServingError(3, self.refusal)
            self.models["stranger"](x=x)
    """)
    assert "while predict runs" in error_of(model, caller, 1).message
    error = error_of(model, caller, 0)
    assert (error.code, error.message) == (
        Code.FAILED_PRECONDITION,
        "Caller calls the model 'stranger', but its uses names other",
    )
    with pytest.raises(ServingError, match="on a server"):
        load(f"def predict(self, x: {VECTOR}) -> {VECTOR}:\n    return self.models['other'](x=x)['y']").run(
            "serving_default", {"x": np.ones(1, np.float32)}, ["output"]
        )


def test_a_call_that_is_given_up_is_cancelled_and_its_answer_hurts_nobody(load: Load, caller: Doubler) -> None:
    model = load(f"""
        async def predict(self, x: {VECTOR}) -> {VECTOR}:
            if x[0] == 7:
                self.left = asyncio.ensure_future(self.models["other"](x=x))
                await asyncio.sleep(0.01)
                return x
            try:
                async with asyncio.timeout(0.05):
                    await self.models["other"](x=x)
            except TimeoutError:
                return x + 1
    """)
    caller.gate.clear()
    assert run(model, caller, 1) == [2]
    assert caller.given_up == [1]
    assert run(model, caller, 7) == [7]
    caller.gate.set()
    plain = load(f"def predict(self, x: {VECTOR}) -> {VECTOR}:\n    return self.models['other'](x=x)['y'] + 1")
    assert run(plain, caller, 1) == [3]
    assert run(model, caller, 7) == [7]


def test_an_answer_does_not_overwrite_what_was_just_asked(load: Load, caller: Doubler) -> None:
    model = load(f"""
        async def predict(self, x: {VECTOR}) -> {VECTOR}:
            self.left = asyncio.ensure_future(self.models["other"](x=x + 7))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return x + 8
    """)
    done = threading.Event()

    def be_in_the_way() -> None:
        while not done.is_set():
            pass

    # The parent is slow to read: it must be waited for.
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.05)
    threading.Thread(target=be_in_the_way).start()
    try:
        assert run(model, caller, 0, 0) == [8, 8]
    finally:
        done.set()
        sys.setswitchinterval(before)
    assert [request.inputs["x"].tolist() for request in caller.requests] == [[7, 7]]


def test_waiting_for_another_model_does_not_count_as_hanging(load: Load, caller: Doubler) -> None:
    model = load(
        f"""
        def predict(self, x: {VECTOR}) -> {VECTOR}:
            found = self.models["other"](x=x)["y"]
            while x[0] == 5:
                pass
            return found
        """,
        timeout_s=0.6,
    )
    caller.gate.clear()
    opener = threading.Timer(1.2, caller.gate.set)
    opener.start()
    assert run(model, caller, 1) == [2]
    error = error_of(model, caller, 5)
    assert (error.code, "longer than 0.6 s" in error.message) == (Code.UNAVAILABLE, True)


def test_a_child_that_dies_while_it_waits_costs_its_call(load: Load, caller: Doubler) -> None:
    model = load(f"def predict(self, x: {VECTOR}) -> {VECTOR}:\n    return self.models['other'](x=x)['y']")
    caller.gate.clear()
    pid = model.pid

    def kill_when_asked() -> None:
        caller.asked.wait(10)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_asked)
    killer.start()
    error = error_of(model, caller, 1)
    killer.join()
    caller.gate.set()
    assert (error.code, "ended by SIGKILL" in error.message) == (Code.UNAVAILABLE, True)


def test_threads_of_a_plain_function_take_turns(load: Load, caller: Doubler) -> None:
    model = load(f"""
        def predict(self, x: {VECTOR}) -> {VECTOR}:
            found = [None] * len(x)
            def one(i):
                found[i] = self.models["other"](x=x[i])["y"]
            threads = [threading.Thread(target=one, args=(i,)) for i in range(len(x))]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            return np.array(found)
    """)
    assert run(model, caller, 1, 2, 3) == [2, 4, 6]


def test_threads_beside_a_coroutine_call_through_its_loop(load: Load, caller: Doubler) -> None:
    model = load(f"""
        async def predict(self, x: {VECTOR}) -> {VECTOR}:
            def one(value):
                return self.models["other"](x=value)["y"]
            return np.array(await asyncio.gather(*(asyncio.to_thread(one, value) for value in x)))
    """)
    assert run(model, caller, 1, 2, 3) == [2, 4, 6]
    assert run(model, caller, 4) == [8]


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("class M:\n    uses = ['a', 'b', 'a']\n    def predict(self): ...", ("a", "b")),
        ("class M:\n    uses: tuple = ('a',)\n    def predict(self): ...", ("a",)),
        ("uses = ['a']\nclass _M:\n    uses = ['b']\nclass M:\n    def predict(self): ...", ()),
        ("class M:\n    def predict(self): (", ()),
        pytest.param("class M:\n    uses = ['a']\nx = " + "(" * 5000, (), id="too deep"),
        pytest.param("class M:\n    uses = ['a']\nx = " + "-" * 50_000 + "1", (), id="too deep to be parsed"),
    ],
)
def test_uses_is_read_without_running_the_file(tmp_path: Path, code: str, names: tuple[str, ...]) -> None:
    (tmp_path / "model.py").write_text(code + "\nraise SystemExit\n")
    assert declared_uses(tmp_path / "model.py") == names


@pytest.mark.parametrize("value", ["'a'", "[1]", "NAMES", "[f()]", "None"])
def test_uses_that_is_no_list_of_names_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "model.py").write_text(f"class M:\n    uses = {value}\n")
    with pytest.raises(ServingError, match=r"line 2 is read before the file is run"):
        declared_uses(tmp_path / "model.py")
