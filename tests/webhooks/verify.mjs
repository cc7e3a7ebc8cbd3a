// Verifies recorded deliveries with the library for JavaScript. Usage: NODE_LIBRARY=FOLDER node verify.mjs DELIVERIES
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { Webhook, WebhookVerificationError } = createRequire(import.meta.url)(process.env.NODE_LIBRARY);

function verifies(secret, headers, body) {
  try {
    new Webhook(secret).verify(body, headers);
    return true;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
}

function assert(holds, words) {
  if (!holds) throw new Error(words);
}

const deliveries = JSON.parse(readFileSync(process.argv[2], "utf8"));
assert(deliveries.length === 3, "before, during and after");
for (const { name, headers, body: encoded, good, bad } of deliveries) {
  const body = Buffer.from(encoded, "base64").toString("utf8");
  for (const secret of good) {
    assert(verifies(secret, headers, body), `${name}: not verified`);
    assert(!verifies(secret, headers, body.replace("7", "8")), `${name}: a tampered body passed`);
    for (const header of ["webhook-id", "webhook-timestamp"]) {
      const value = headers[header];
      const tampered = { ...headers, [header]: value.slice(0, -1) + (value.endsWith("1") ? "2" : "1") };
      assert(!verifies(secret, tampered, body), `${name}: a tampered ${header} passed`);
    }
  }
  for (const secret of bad) assert(!verifies(secret, headers, body), `${name}: verified with the wrong secret`);
  const count = headers["webhook-signature"].split(" ").length;
  console.log(`node: ${name}: ${count} signature(s), verified by ${good.length} secret(s), refused by ${bad.length}`);
}
