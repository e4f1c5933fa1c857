// Predictions from this folder in a browser or in Node, without a network: it needs onnxruntime-web only.
//
//   const edge = await open({ log: storageLog("cards") });                                             // in a page
//   const edge = await open({ runtime: "onnxruntime-web", log: await fileLog("predictions.jsonl") });  // in Node
//   await edge.predict([{ amount: 12.5, country: "de" }]);
//   await edge.sync("https://host:8701");

const TOLERANCE = 1e-6;
const [AT_ONCE, BYTES] = [200, 250_000]; // predictions, and about how many bytes of them, a request of `sync`
const WORDS = { number: "a number", integer: "an integer", boolean: "true or false", text: "text" };
const NUMERIC = new Set(["number", "integer"]);

/** A file is not the one that was signed. */
export class Tampered extends Error {}

/** A record that does not fit the schema: what the data plane answers with a 422. */
export class Refused extends Error {
  constructor(rule, message, field = "", record = undefined) {
    super(message);
    Object.assign(this, { rule, field, record });
  }
}

/**
 * The model beside this file. `runtime`: what to import onnxruntime-web from, by default the folder `onnxruntime-web`
 * here. `log`: where answers are written before they are given. `fingerprint`: that of the key which must have signed.
 * Throws `Tampered`.
 */
export async function open({ runtime, log = null, fingerprint = "" } = {}) {
  const root = new URL(".", import.meta.url);
  const ort = await import(runtime ?? new URL("onnxruntime-web/ort.wasm.min.mjs", root).href);
  ort.env.wasm.numThreads = 1; // more need a page that is isolated from others
  const manifest = await signedManifest(root, fingerprint);
  const schema = json(await signedFile(root, manifest, "schema.json"));
  const model = await signedFile(root, manifest, "model.onnx");
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  return new Edge(root, ort, manifest, schema, session, log);
}

class Edge {
  #ort;
  #session;

  constructor(root, ort, manifest, schema, session, log) {
    Object.assign(this, { root, manifest, schema, log });
    this.#ort = ort;
    this.#session = session;
  }

  /**
   * → an object a record: `id`, and `value`, or `score` and `label`, and for several classes `scores`. A record may
   * carry its own `id` and `key`. Throws `Refused`, then nothing is answered.
   */
  async predict(records) {
    validate(this.schema, records);
    const ids = records.map((record) => String(record.id ?? crypto.randomUUID()));
    if (new Set(ids).size < ids.length) throw new Refused("once", "an id stands twice in one request", "id");
    const answers = await this.#answers(records);
    if (this.log) await this.log.append(this.#rows(records, ids, answers));
    return answers.map((answer, i) => ({ id: ids[i], ...answer }));
  }

  /** Every file is as it was signed, and the test vector's records give its answers. → how many records. */
  async check() {
    for (const name of Object.keys(this.manifest.files)) await signedFile(this.root, this.manifest, name);
    const { records, answers } = json(await signedFile(this.root, this.manifest, "vector.json"));
    validate(this.schema, records);
    const given = await this.#answers(records);
    answers.forEach((expected, i) => {
      if (alike(given[i], expected)) return;
      throw new Error(`the test vector gives ${JSON.stringify(given[i])}, not ${JSON.stringify(expected)}`);
    });
    return records.length;
  }

  /**
   * Send the log to the data plane at `url`, and empty it. Sent twice, a prediction is kept once. → `accepted`, a
   * number, and `refused`, a list: those leave the log too. Throws without a network: the log stays.
   */
  async sync(url) {
    const done = { accepted: 0, refused: [] };
    const target = `${url.replace(/\/$/, "")}/v1/models/${this.schema.model}/predictions`;
    const rows = this.log ? await this.log.rows() : [];
    for (const predictions of parts(rows)) {
      const response = await fetch(target, { method: "POST", body: JSON.stringify({ predictions }) });
      if (!response.ok) throw new Error(`the data plane answers ${response.status}: ${await response.text()}`);
      const { accepted, refused } = await response.json();
      done.accepted += accepted;
      done.refused.push(...refused.map((error) => ({ ...predictions[error.record], error })));
      await this.log.remove(predictions.map(({ id }) => id));
    }
    return done;
  }

  async #answers(records) {
    const feeds = {};
    for (const field of this.schema.fields) feeds[field.name] = this.#column(field, records);
    const results = await this.#session.run(feeds);
    const [score, label, scores] = this.#session.outputNames.map((name) => results[name].data);
    if (![...score, ...(scores ?? [])].every(Number.isFinite)) throw new Error("the model could not answer");
    const { labels, classes } = this.schema;
    return Array.from(score, (value, i) => {
      if (!label) return { value };
      const answer = { score: value, label: classes[labels.indexOf(label[i])] };
      const mine = scores?.slice(i * labels.length, (i + 1) * labels.length);
      return mine ? { ...answer, scores: Object.fromEntries(labels.map((name, j) => [name, mine[j]])) } : answer;
    });
  }

  /** (n) as the graph takes it. */
  #column(field, records) {
    const values = records.map((record) => record[field.name]);
    const shape = [values.length];
    if (field.kind !== "text") {
      const numbers = values.map((value) => (value === null ? NaN : Number(value)));
      return new this.#ort.Tensor("float64", Float64Array.from(numbers), shape);
    }
    const nil = this.schema.null_text;
    const unknown = nil + nil; // neither is in the vocabulary, nor is a text with a NUL, which the runtime would cut
    const plain = (value) => (value === nil || value.includes("\0") ? unknown : value);
    const texts = values.map((value) => (value === null ? nil : plain(value)));
    return new this.#ort.Tensor("string", texts, shape);
  }

  #rows(records, ids, answers) {
    const { bundle, version } = this.manifest;
    const at = Date.now();
    return records.map((record, i) => {
      const inputs = Object.fromEntries(this.schema.fields.map(({ name }) => [name, record[name]]));
      const key = record.key == null ? {} : { key: String(record.key) };
      return { id: ids[i], ...key, at, bundle, version, inputs, answer: answers[i] };
    });
  }
}

// The log: `append` rows before they are answered, `rows` of all that wait, `remove` those with these ids

/** In the browser's localStorage, one entry a prediction: tabs do not disturb each other. */
export function storageLog(name, storage = localStorage) {
  const prefix = `homeostat:${name}:`;
  return {
    append: (rows) => rows.forEach((row) => storage.setItem(prefix + row.id, JSON.stringify(row))),
    rows: () =>
      Object.keys(storage)
        .filter((key) => key.startsWith(prefix))
        .map((key) => JSON.parse(storage.getItem(key)))
        .sort((a, b) => a.at - b.at),
    remove: (ids) => ids.forEach((id) => storage.removeItem(prefix + id)),
  };
}

/** In a file of JSON lines, in Node; one process a file. A torn line was never answered and is left out. */
export async function fileLog(path) {
  const fs = await import("node:fs");
  const text = () => (fs.existsSync(path) ? fs.readFileSync(path, "utf8") : "");
  const lines = (rows) => rows.map((row) => `\n${JSON.stringify(row)}\n`).join("");
  const rows = () => text().split("\n").flatMap(parsed);
  return {
    append: (fresh) => fs.appendFileSync(path, lines(fresh)),
    rows,
    remove: (ids) => {
      const gone = new Set(ids);
      fs.writeFileSync(`${path}.new`, lines(rows().filter(({ id }) => !gone.has(id))));
      fs.renameSync(`${path}.new`, path);
    },
  };
}

/** A request's worth of rows each. */
function* parts(rows) {
  let [part, size] = [[], 0];
  for (const row of rows) {
    const bytes = JSON.stringify(row).length;
    if (part.length && (size + bytes > BYTES || part.length === AT_ONCE)) {
      yield part;
      [part, size] = [[], 0];
    }
    part.push(row);
    size += bytes;
  }
  if (part.length) yield part;
}

function parsed(line) {
  try {
    return line ? [JSON.parse(line)] : [];
  } catch {
    return [];
  }
}

/** Numbers within `TOLERANCE`, all else equal. */
function alike(given, expected) {
  if (typeof expected === "number") return Math.abs(given - expected) <= TOLERANCE * Math.max(1, Math.abs(expected));
  if (typeof expected !== "object" || expected === null) return given === expected;
  const names = Object.keys(expected);
  return Object.keys(given).length === names.length && names.every((name) => alike(given[name], expected[name]));
}

// Validation: the rules of the data plane, in its order and its words

/** Throws `Refused` for the first record that does not fit. */
export function validate(schema, records) {
  if (!records.length) throw new Refused("not empty", "records must not be empty", "records");
  records.forEach((record, number) => {
    const fault = form(schema, record) ?? limits(schema, record);
    if (fault) throw Object.assign(fault, { record: number });
  });
}

/** Names and types. */
function form(schema, record) {
  const known = new Set(schema.fields.map((field) => field.name));
  for (const [name, value] of Object.entries(record)) {
    if (known.has(name)) continue;
    if (name !== "id" && name !== "key") return new Refused("unknown", `field ${name} is unknown`, name);
    if (value != null && !names(value)) {
      return new Refused(value === "" ? "length" : "type", `${name} does not have the expected form`, name);
    }
  }
  for (const { name, kind, nullable } of schema.fields) {
    const value = record[name];
    if (value === undefined) return new Refused("required", `field ${name} is missing`, name);
    if (value === null && !nullable) return new Refused("not null", `${name} must not be null`, name);
    if (value !== null && !fits(kind, value)) return new Refused("type", `${name} must be ${WORDS[kind]}`, name);
  }
  return null;
}

function fits(kind, value) {
  if (kind === "integer") return Number.isInteger(value);
  if (kind === "text") return typeof value === "string" && value.isWellFormed();
  return typeof value === kind;
}

/** An id or a key: a whole number, or a text of 1 to 256 characters. */
function names(value) {
  return Number.isInteger(value) || (typeof value === "string" && value.length > 0 && value.length <= 256);
}

/** Ranges, then listed texts. */
function limits(schema, record) {
  const refused = (field, rule) => new Refused(rule, `${field.name} must be ${rule}`, field.name);
  for (const field of schema.fields) {
    const value = record[field.name];
    if (!NUMERIC.has(field.kind) || value === null) continue;
    if (field.low !== null && value < field.low) return refused(field, field.rules.low);
    if (field.high !== null && value > field.high) return refused(field, field.rules.high);
    if (!finite(field.kind, value)) return refused(field, "finite");
  }
  for (const field of schema.fields) {
    const value = record[field.name];
    if (field.values !== null && value !== null && !field.values.includes(value)) {
      return refused(field, field.rules.values);
    }
  }
  return null;
}

/** As the model sees it, in float32. */
function finite(kind, value) {
  return kind === "integer" ? Math.abs(value) <= 2 ** 63 : Number.isFinite(Math.fround(value));
}

// The signature

async function signedManifest(root, fingerprint) {
  if (!globalThis.crypto?.subtle) throw new Tampered("nothing can be verified here: serve the page over https");
  const data = await file(root, "manifest.json");
  const manifest = json(data);
  const key = bytes(manifest.public_key);
  if (fingerprint && (await sha256(key)) !== fingerprint) {
    throw new Tampered("manifest.json was signed with another key");
  }
  const signature = bytes(new TextDecoder().decode(await file(root, "manifest.sig")));
  const verifier = await crypto.subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  if (!(await crypto.subtle.verify({ name: "Ed25519" }, verifier, signature, data))) {
    throw new Tampered("manifest.json does not match its signature");
  }
  return manifest;
}

async function signedFile(root, manifest, name) {
  const data = await file(root, name);
  if ((await sha256(data)) !== manifest.files[name]) throw new Tampered(`${name} is not the file that was signed`);
  return data;
}

async function file(root, name) {
  const url = new URL(name, root);
  if (url.protocol === "file:") return new Uint8Array(await (await import("node:fs/promises")).readFile(url));
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function sha256(data) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function bytes(hex) {
  return Uint8Array.from(hex.trim().match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

function json(data) {
  return JSON.parse(new TextDecoder().decode(data));
}
