// A gateway that makes a job of BullMQ of each message. Usage: node fastify_bullmq.js PORT REDIS_PORT
'use strict';
const server = require('fastify')();
const { Queue } = require('bullmq');

const [port, redisPort] = process.argv.slice(2).map(Number);
const connection = { host: '127.0.0.1', port: redisPort, enableAutoPipelining: true };
const queue = new Queue('messages', { connection, defaultJobOptions: { attempts: 12, removeOnComplete: true } });

server.post('/*', async (request, reply) => {
  const job = await queue.add('message', request.body);
  reply.code(202);
  return { id: job.id };
});
server.listen({ port, host: '127.0.0.1' });
