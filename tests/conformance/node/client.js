// What grpc-js, the client of the JavaScript world, finds at a live server:
//
//     node client.js HOST:PORT FOLDER_OF_PROTOS
//
// Prints one line of JSON for each check: its name, and what went wrong or null.
"use strict";

const assert = require("node:assert/strict");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, protos] = process.argv.slice(2);
const files = ["serving_apis", "grpc_health", "grpc_reflection_v1", "grpc_reflection_v1alpha"];
const definition = loader.loadSync(files.map((name) => `servable/${name}.proto`), {
  includeDirs: [protos],
  keepCase: true,
  enums: String,
  longs: String,
  defaults: true,
  oneofs: true,
});
const loaded = grpc.loadPackageDefinition(definition);
const { PredictionService, ModelService } = loaded.tensorflow.serving;
const { reflection, health: { v1: health } } = loaded.grpc;
const UNBOUNDED = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };

function open(Service, options = {}) {
  return new Service(address, grpc.credentials.createInsecure(), { ...UNBOUNDED, ...options });
}

const prediction = open(PredictionService);
const models = open(ModelService);

function call(client, method, request, { timeout = 15000, metadata = new grpc.Metadata() } = {}) {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + timeout };
    client[method](request, metadata, options, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

function floats(model, shape, values) {
  const dim = shape.map((size) => ({ size }));
  return { model_spec: { name: model }, inputs: { x: { dtype: "DT_FLOAT", tensor_shape: { dim }, float_val: values } } };
}

function slow(steps) {
  const steps_tensor = { dtype: "DT_INT64", tensor_shape: {}, int64_val: [steps] };
  return { model_spec: { name: "slow" }, inputs: { steps: steps_tensor } };
}

async function fails(promise, code, text) {
  const error = await promise.then((reply) => assert.fail(`an answer came: ${JSON.stringify(reply)}`), (e) => e);
  if (error instanceof assert.AssertionError) throw error;
  assert.equal(error.code, code, error.message);
  if (text !== undefined) assert.equal(error.details, text);
}

const checks = {
  async predict() {
    const reply = await call(prediction, "Predict", floats("half_plus_two", [3, 1], [1, 2, 5]));
    assert.deepEqual(reply.outputs.y.float_val, [2.5, 3, 4.5]);
    assert.deepEqual(reply.outputs.y.tensor_shape.dim.map((dim) => dim.size), ["3", "1"]);
    assert.equal(reply.model_spec.version.value, "1");
    assert.equal(reply.model_spec.signature_name, "serving_default");
  },

  async status_and_metadata() {
    const status = await call(models, "GetModelStatus", { model_spec: { name: "half_plus_two" } });
    assert.equal(status.model_version_status[0].state, "AVAILABLE");
    const request = { model_spec: { name: "half_plus_two" }, metadata_field: ["signature_def"] };
    const metadata = await call(prediction, "GetModelMetadata", request);
    const packed = metadata.metadata.signature_def;
    assert.match(packed.type_url, /tensorflow\.serving\.SignatureDefMap$/);
    assert.ok(packed.value.includes("serving_default"));
  },

  // Frames of HTTP/2 hold 16 KiB, a stream's window 64 KiB, unless both sides agree on more.
  async replies_of_every_size() {
    for (const size of [1, 4000, 4090, 4096, 16380, 16384, 16400, 100000, 3000000]) {
      const values = Array.from({ length: size }, (_, index) => index % 1000);
      const reply = await call(prediction, "Predict", floats("echo", [1, size], values));
      assert.deepEqual(reply.outputs.y.float_val, values, `${size} values`);
    }
  },

  async large_replies_beside_each_other() {
    const values = Array.from({ length: 50000 }, (_, index) => index);
    const requests = Array.from({ length: 40 }, () => call(prediction, "Predict", floats("echo", [1, 50000], values)));
    for (const reply of await Promise.all(requests)) assert.deepEqual(reply.outputs.y.float_val, values);
  },

  async many_calls_at_once() {
    const numbers = Array.from({ length: 1000 }, (_, index) => index);
    const replies = await Promise.all(
      numbers.map((number) => call(prediction, "Predict", floats("half_plus_two", [1, 1], [number]))),
    );
    assert.deepEqual(replies.map((reply) => reply.outputs.y.float_val[0]), numbers.map((number) => number / 2 + 2));
  },

  async deadline() {
    await fails(call(prediction, "Predict", slow(300), { timeout: 60 }), grpc.status.DEADLINE_EXCEEDED);
    const reply = await call(prediction, "Predict", slow(1));
    assert.deepEqual(reply.outputs.done.int64_val, ["1"]);
  },

  async cancellation() {
    const calls = [];
    const ended = Array.from({ length: 20 }, () => new Promise((resolve) => {
      calls.push(prediction.Predict(slow(20), (error, reply) => resolve(error ? error.code : reply)));
    }));
    calls.forEach((one) => one.cancel());
    assert.deepEqual(await Promise.all(ended), Array(20).fill(grpc.status.CANCELLED));
    const reply = await call(prediction, "Predict", floats("half_plus_two", [1, 1], [1]));
    assert.deepEqual(reply.outputs.y.float_val, [2.5]);
  },

  async errors_in_every_script() {
    for (const name of ["nonesuch", "modèle", "모델", "🙂%20\n\t", "x".repeat(500)]) {
      const text = `Servable not found for request: Latest(${name})`;
      await fails(call(prediction, "Predict", floats(name, [1, 1], [1])), grpc.status.NOT_FOUND, text);
    }
  },

  async metadata_of_all_kinds() {
    const metadata = new grpc.Metadata();
    metadata.set("x-request-id", "abc");
    metadata.set("trace-bin", Buffer.from(Array.from({ length: 256 }, (_, index) => index)));
    const reply = await call(prediction, "Predict", floats("half_plus_two", [1, 1], [1]), { metadata });
    assert.deepEqual(reply.outputs.y.float_val, [2.5]);
  },

  async compressed_requests() {
    for (const algorithm of [1, 2]) {
      const client = open(PredictionService, { "grpc.default_compression_algorithm": algorithm });
      const reply = await call(client, "Predict", floats("echo", [1, 5000], Array(5000).fill(3)));
      assert.deepEqual(reply.outputs.y.float_val, Array(5000).fill(3));
      client.close();
    }
  },

  async conversation_with_reflection() {
    for (const version of ["v1", "v1alpha"]) {
      const client = open(reflection[version].ServerReflection);
      const talk = client.ServerReflectionInfo({ deadline: Date.now() + 15000 });
      const status = new Promise((resolve) => talk.on("status", resolve));
      const replies = talk[Symbol.asyncIterator]();
      const ask = async (question) => {
        talk.write(question);
        return (await replies.next()).value;
      };
      const listed = (await ask({ list_services: "" })).list_services_response.service.map(({ name }) => name);
      assert.ok(listed.includes("tensorflow.serving.PredictionService"), listed.join());
      for (const name of listed) {
        const reply = await ask({ file_containing_symbol: name });
        assert.equal(reply.message_response, "file_descriptor_response", name);
      }
      const wrong = await ask({ file_containing_symbol: "x".repeat(50000) });
      assert.equal(wrong.error_response.error_code, grpc.status.NOT_FOUND);
      assert.equal(wrong.original_request.file_containing_symbol.length, 50000);
      // Far more at once than the windows of either side hold.
      const symbol = "y".repeat(60000);
      for (let count = 0; count < 100; count += 1) talk.write({ file_containing_symbol: symbol });
      for (let count = 0; count < 100; count += 1) {
        const { value } = await replies.next();
        assert.equal(value.original_request.file_containing_symbol, symbol);
      }
      talk.end();
      assert.ok((await replies.next()).done);
      assert.equal((await status).code, grpc.status.OK);
      client.close();
    }
  },

  async health_is_watched() {
    const client = open(health.Health);
    assert.deepEqual(await call(client, "Check", { service: "" }), { status: "SERVING" });
    const watch = client.Watch({ service: "tensorflow.serving.ModelService" });
    const first = await new Promise((resolve, reject) => watch.on("data", resolve).on("error", reject));
    assert.deepEqual(first, { status: "SERVING" });
    const ended = new Promise((resolve) => watch.on("error", resolve));
    watch.cancel();
    assert.equal((await ended).code, grpc.status.CANCELLED);
    client.close();
  },

  async pings_while_a_call_runs() {
    const client = open(PredictionService, { "grpc.keepalive_time_ms": 1000, "grpc.keepalive_timeout_ms": 5000 });
    const reply = await call(client, "Predict", slow(1200));
    assert.deepEqual(reply.outputs.done.int64_val, ["1200"]);
    client.close();
  },

  async method_that_is_not_served() {
    const empty = () => Buffer.alloc(0);
    const path = "/tensorflow.serving.PredictionService/Guess";
    const answer = new Promise((resolve, reject) => {
      prediction.makeUnaryRequest(path, empty, empty, {}, (error, reply) => (error ? reject(error) : resolve(reply)));
    });
    await fails(answer, grpc.status.UNIMPLEMENTED);
  },
};

async function main() {
  for (const [name, check] of Object.entries(checks)) {
    let failure = null;
    try {
      await check();
    } catch (error) {
      failure = String(error.stack).slice(0, 4000);
    }
    console.log(JSON.stringify([name, failure]));
  }
  prediction.close();
  models.close();
}

main();
