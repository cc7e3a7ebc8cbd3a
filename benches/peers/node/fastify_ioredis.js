// A gateway that gives each message an id and pushes it onto a Redis list. Usage: node fastify_ioredis.js PORT REDIS_PORT
'use strict';
const { randomUUID } = require('node:crypto');
const server = require('fastify')();
const { Redis } = require('ioredis');

const [port, redisPort] = process.argv.slice(2).map(Number);
const redis = new Redis(redisPort, '127.0.0.1', { enableAutoPipelining: true });

server.post('/*', async (request, reply) => {
  const id = randomUUID();
  await redis.lpush('messages', JSON.stringify({ id, payload: request.body }));
  reply.code(202);
  return { id };
});
server.listen({ port, host: '127.0.0.1' });
