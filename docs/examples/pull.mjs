// Works on the messages of a queue: leases them, works, settles. Needs Node 18 or newer. Run as: node pull.mjs [QUEUE]
const gateway = process.env.POSTHASTE_URL ?? "http://127.0.0.1:8080";
const leases = `${gateway}/v1/queues/${process.argv[2] ?? "jobs"}/leases`;

async function work(message) { // Your work. When it throws, the message comes again, on the queue's retry schedule.
  console.log(message.id, JSON.parse(Buffer.from(message.payload_base64, "base64")));
}

async function post(url, body) {
  const headers = { "Content-Type": "application/json" }, signal = AbortSignal.timeout(60_000);
  const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  return answer.json();
}

for (;;) {
  try { // Waits until there are messages. All that come have to be worked on within the queue's `lease` (30 s).
    for (const message of (await post(leases, { max: 10, wait: "20s", payload_as: "base64" })).items) {
      const { receipt } = message;
      const settlement = await work(message).then(() => ({ ack: [receipt] }),
        (error) => ({ retry: [{ receipt, reason: String(error).slice(0, 200) }] }));
      await post(`${leases}/settle`, settlement);
    }
  } catch (error) { // No gateway. What was not settled comes again when its lease ends.
    console.error(String(error));
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
}
