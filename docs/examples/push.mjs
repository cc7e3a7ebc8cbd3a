// Takes what a gateway pushes, and answers when it has worked on it. Needs Node 18 or newer. Run as: node push.mjs [PORT]
import { createServer } from "node:http";

// What was worked on: a message may come twice. Keep it with your data, written in one transaction with your work:
// this set is forgotten when the process ends.
const seen = new Set();

async function work(id, body) { // Your work. When it throws, the message comes again, on the queue's retry schedule.
  console.log(id, JSON.parse(body));
}

createServer(async (request, response) => {
  try {
    const id = request.headers["webhook-id"], chunks = [];
    for await (const chunk of request) chunks.push(chunk); // Throws when the sender goes away.
    if (!seen.has(id)) {
      await work(id, Buffer.concat(chunks));
      seen.add(id);
    }
    response.writeHead(204).end();
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
}).listen(Number(process.argv[2] ?? 9000), "127.0.0.1");
