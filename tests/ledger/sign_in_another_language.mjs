// Makes the vectors of docs/reference/transaction.md with Node's own cryptography and a MessagePack writer made from
// that page alone. Prints {"transfer": {"body", "signature", "id"}, "bundle": ..., "delegated": ...} in hexadecimal.
import { createHash, createPrivateKey, createPublicKey, sign } from "node:crypto";

const number = (code, width, value) => {
  const data = Buffer.alloc(1 + width);
  data[0] = code;
  if (width < 8) data.writeUIntBE(Number(value), 1, width);
  else data.writeBigUInt64BE(BigInt(value), 1);
  return data;
};
const shortest = (codes, size) => {
  for (const [code, width] of codes) if (BigInt(size) < 1n << BigInt(8 * width)) return number(code, width, size);
};
const pack = (value) => {
  if (typeof value === "number" || typeof value === "bigint")
    return value < 128 ? Buffer.from([Number(value)]) : shortest([[0xcc, 1], [0xcd, 2], [0xce, 4], [0xcf, 8]], value);
  if (typeof value === "string") {
    const text = Buffer.from(value, "utf8");
    return Buffer.concat([text.length < 32 ? Buffer.from([0xa0 | text.length]) : shortest([[0xd9, 1], [0xda, 2], [0xdb, 4]], text.length), text]);
  }
  if (Buffer.isBuffer(value)) return Buffer.concat([shortest([[0xc4, 1], [0xc5, 2], [0xc6, 4]], value.length), value]);
  const head = value.length < 16 ? Buffer.from([0x90 | value.length]) : shortest([[0xdc, 2], [0xdd, 4]], value.length);
  return Buffer.concat([head, ...value.map(pack)]);
};

const wallet = (byte) => {
  const seed = Buffer.alloc(32, byte);
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]); // PKCS #8 around the seed
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const address = createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32);
  return { key, address };
};
const one = wallet(1), two = wallet(2), chain = "demo-1";
const DOMAIN = Buffer.from("gridpool/transaction/1\0"), CALL_DOMAIN = Buffer.from("gridpool/call/1\0");

const signed = (nonce, mode, calls) => {
  const body = pack([chain, one.address, nonce, 100, mode, calls]);
  const message = Buffer.concat([DOMAIN, body]);
  const id = createHash("sha256").update(message).digest("hex");
  return { body: body.toString("hex"), signature: sign(null, message, one.key).toString("hex"), id };
};
const delegated = (call, nonce, until) => {
  const message = Buffer.concat([CALL_DOMAIN, pack([chain, two.address, nonce, until, call])]);
  return ["ledger.delegated", call, two.address, nonce, until, sign(null, message, two.key)];
};

console.log(JSON.stringify({
  transfer: signed(1, "atomic", [["coins.transfer", two.address, 1500000, "rent"]]),
  bundle: signed(2, "each", [["coins.transfer", two.address, 1, ""], ["ledger.advance_clock", Date.UTC(2026, 0, 1)]]),
  delegated: signed(3, "atomic", [delegated(["coins.transfer", one.address, 5, ""], 7, 90)]),
}));
