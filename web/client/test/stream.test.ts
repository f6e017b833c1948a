import assert from "node:assert/strict";
import { test } from "node:test";
import { backoff } from "../src/model/stream.ts";

test("waits grow, are bounded and spread", () => {
  assert.ok(backoff(0, 0.5) <= 300);
  for (let i = 1; i < 6; i++) assert.ok(backoff(i, 0.5) > backoff(i - 1, 0.5));
  assert.ok(backoff(100, 1) <= 20_000);
  assert.notEqual(backoff(3, 0), backoff(3, 1));
});
