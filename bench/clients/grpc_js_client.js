// Closed-loop load over @grpc/grpc-js with a deadline for each call: PORT IN_FLIGHT SECONDS BODY...
'use strict';
const fs = require('fs');
const path = require('path');
const grpc = require(path.join(__dirname, '../../tests/conformance/node/node_modules/@grpc/grpc-js'));

const [port, inFlight, seconds, ...files] = process.argv.slice(2);
const bodies = files.map((name) => fs.readFileSync(name));
const identity = (value) => value;
const Service = grpc.makeGenericClientConstructor({
  Predict: {
    path: '/tensorflow.serving.PredictionService/Predict',
    requestStream: false,
    responseStream: false,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  },
}, 'PredictionService');
const client = new Service(`127.0.0.1:${port}`, grpc.credentials.createInsecure());

const micros = [];
let failed = 0;
let next = 0;
let running = Number(inFlight);
let began;

function start() {
  const sent = process.hrtime.bigint();
  const options = { deadline: Date.now() + 10000 };
  client.Predict(bodies[next++ % bodies.length], new grpc.Metadata(), options, (error) => {
    if (error) failed += 1;
    else micros.push(Number(process.hrtime.bigint() - sent) / 1000);
    if (Number(process.hrtime.bigint() - began) / 1e9 < Number(seconds)) start();
    else if (--running === 0) finish();
  });
}

function finish() {
  const elapsed = Number(process.hrtime.bigint() - began) / 1e9;
  micros.sort((a, b) => a - b);
  console.log(JSON.stringify({
    ok: micros.length,
    failed,
    seconds: elapsed,
    p50_us: micros[Math.floor(micros.length / 2)],
    p99_us: micros[Math.floor(micros.length * 0.99)],
  }));
  client.close();
}

client.waitForReady(Date.now() + 10000, (error) => {
  if (error) throw error;
  began = process.hrtime.bigint();
  for (let i = 0; i < Number(inFlight); i += 1) start();
});
