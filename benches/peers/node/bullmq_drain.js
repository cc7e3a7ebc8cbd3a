// Adds COUNT jobs of BYTES, then lets a worker that does nothing take them all; prints jobs a second of both as JSON.
// Usage: node bullmq_drain.js REDIS_PORT COUNT BYTES
'use strict';
const { Queue, Worker } = require('bullmq');

const [port, count, bytes] = process.argv.slice(2).map(Number);
const connection = { host: '127.0.0.1', port };
const BATCH = 1000;

const seconds = (since) => Number(process.hrtime.bigint() - since) / 1e9;

async function add(queue) {
  const data = { x: 'x'.repeat(Math.max(bytes - 8, 0)) };
  for (let done = 0; done < count; done += BATCH) {
    const size = Math.min(BATCH, count - done);
    await queue.addBulk(Array.from({ length: size }, () => ({ name: 'message', data })));
  }
}

async function main() {
  const queue = new Queue('drain', { connection, defaultJobOptions: { attempts: 12, removeOnComplete: true } });
  let since = process.hrtime.bigint();
  await add(queue);
  const addPerS = count / seconds(since);
  let completed = 0;
  since = process.hrtime.bigint();
  const worker = new Worker('drain', async () => {}, { connection, concurrency: 100 });
  await new Promise((resolve) => {
    worker.on('completed', () => {
      completed += 1;
      if (completed === count) resolve();
    });
  });
  console.log(JSON.stringify({ add_per_s: addPerS, drain_per_s: count / seconds(since) }));
  process.exit(0);
}

main();
